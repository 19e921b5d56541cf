"""The convolutional models: a shared core with one of five readouts, strengths chosen on validation images."""

from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from whatwhere.config import (
    CoreOptions,
    ModelOptions,
    PenaltyOptions,
    PreprocessingOptions,
    ReadoutOptions,
    TrainingOptions,
)
from whatwhere.errors import OptionError
from whatwhere.estimators.base import (
    Estimator,
    Observer,
    as_recording,
    expect_shape,
    history_table,
    shapes_of,
)
from whatwhere.estimators.candidates import fit_candidates, load_start, nothing_found
from whatwhere.estimators.given_core import GivenCore
from whatwhere.estimators.preparation import Prepared, check_compiler, choose_device, prepare
from whatwhere.estimators.resume import begin_fit, cpu_threads
from whatwhere.location_posterior import credible_regions, entropy
from whatwhere.model import Model, Shapes, initialize
from whatwhere.option_checks import check_options
from whatwhere.parallel import Parallel, helps, join_processes
from whatwhere.plain_options import as_plain, make_options
from whatwhere.presets import options_over_preset
from whatwhere.readouts import PosteriorReadout
from whatwhere.recording import Recording
from whatwhere.storage import checksum
from whatwhere.training import Result
from whatwhere.training_data import TrainingData


class CNN(Estimator):
    """A convolutional core with a readout; the final classes below name their readout and nothing else.

    preset: "recording" (softplus, Poisson loss, small core), "simulation" (the paper's linear models) or "nonlinear"
    (those of its VGG-19 units). The other options go over the preset's: a mapping option by option,
    `training={"batch_size": 64}`; an options object whole. seed: of kernels, masks, batches and the validation split.
    device: "auto" takes a GPU if there is one. threads: of the CPU, None for the machine's default. nonfinite: "error",
    or "rows" or "neurons" to leave out those that hold NaN. devices: processes, each with a GPU of its own where there
    are any, that share every batch of one fit; on each of so many nodes (machines), see `parallel.join_processes`.

    Fitted: `model_`, `options_`, `masks_` (n_neurons, h, w), `locations_` (n_neurons, 2: row, column in image
    pixels), `feature_weights_` (n_neurons, K), `history_`, `candidates_`, `stopped_` (why training ended).
    A model that is loaded has no `candidates_`, of which a run keeps a table.
    """

    given_core: GivenCore | None = None
    """The fitted core that a fit begins with, see `transferred`; no parameter, so a clone has a core of its own."""

    shared_with: dict[str, str] | None = None
    """Of a model of several recordings that share a core (`SharedCoreCNN`) their names and fingerprints."""

    def __init__(
        self,
        preset: str = "recording",
        core: CoreOptions | dict[str, Any] | None = None,
        readout: ReadoutOptions | dict[str, Any] | None = None,
        penalties: PenaltyOptions | dict[str, Any] | None = None,
        training: TrainingOptions | dict[str, Any] | None = None,
        preprocessing: PreprocessingOptions | dict[str, Any] | None = None,
        *,
        seed: int = 0,
        device: str = "auto",
        threads: int | None = None,
        nonfinite: str = "error",
        devices: int = 1,
        nodes: int = 1,
    ) -> None:
        self.preset = preset
        self.core = core
        self.readout = readout
        self.penalties = penalties
        self.training = training
        self.preprocessing = preprocessing
        self.seed = seed
        self.device = device
        self.threads = threads
        self.nonfinite = nonfinite
        self.devices = devices
        self.nodes = nodes

    def options(self) -> ModelOptions:
        """The preset's options with those given in their place; raises `OptionError` where they do not fit."""
        given = {
            concern.name: value
            for concern in fields(ModelOptions)
            if (value := getattr(self, concern.name)) is not None
        }
        options = options_over_preset(self.name, self.preset, given)
        check_options(self.name, options, frozen=self._is_frozen())
        return options

    def _is_frozen(self) -> bool:
        return self.given_core is not None and self.given_core.frozen

    def asked(self) -> dict[str, Any]:
        asked = {"model": self.name, "seed": self.seed, "options": as_plain(self.options())}
        if self.given_core is not None:
            asked["given_core"] = self.given_core.asked()
        return asked if self.shared_with is None else {**asked, "recordings": self.shared_with}

    def fit(
        self,
        images: Any,
        responses: Any = None,
        *,
        folder: str | Path | None = None,
        resume: bool = False,
        observer: Observer | None = None,
        start: Estimator | None = None,
    ) -> Self:
        """As every model's; `start`: a fitted model of the same kind and architecture, whose parameters it starts from.

        Nothing is then held (`readout.hold_masks`, `hold_features`): its masks and weights are no guess. Raises
        `OptionError` where the parameters of `start` do not fit, or where a fitted core is given, too.
        """
        if start is not None and self.given_core is not None:
            raise OptionError("start gives all parameters, and this model has a fitted core to begin with: give one.")
        self.shared_with = None
        options = self.options()
        parallel = self.join()
        device = parallel.device or choose_device(self.device)
        given = as_recording(images, responses, self.nonfinite)
        recording = self.check(given)
        shapes = shapes_of(recording)
        rows = recording.split(options.training.validation_fraction, self.seed)
        parallel.part(min(options.training.batch_size, len(rows[0])))  # raises where some process would have no image
        fingerprint = given.fingerprint()
        threads = self.threads
        alone_in_helper = helps() and parallel.size == 1
        kept = None if folder is None or alone_in_helper else Path(folder)  # the first process keeps what is not shared
        if kept is not None:
            asked = {**self.asked(), "data": fingerprint, "device": device.type}
            if start is not None:
                asked["start"] = checksum(self._parameters_of(start, options))
            if parallel.size > 1:
                asked["processes"] = parallel.size
            threads = parallel.from_first(partial(begin_fit, kept, asked, self.threads, resume))
        with cpu_threads(threads):
            prepared = prepare(recording, options, *rows, device, fingerprint)
            notes = prepared.notes
            if self.threads not in (None, threads):  # told, but not kept: the model is the same to the last byte
                notes += (
                    f"threads={threads}, as the fit was begun with, not {self.threads}: the result depends on it",
                )
            given_to = observer if parallel.first else None
            model, results = fit_candidates(
                lambda chosen: self.network(chosen, shapes).to(device),
                partial(self._begin, prepared.data, None if start is None else self._parameters_of(start, options)),
                options,
                prepared.data,
                notes,
                seed=self.seed,
                folder=kept,
                resume=resume,
                observer=given_to,
                parallel=parallel,
            )
            prepared = replace(prepared, notes=(*prepared.notes, *nothing_found(model, prepared.data)))
        self.remember(recording, rows[0], fingerprint)
        self.keep(model, options, prepared, results)
        return self

    def network(self, options: ModelOptions, shapes: Shapes) -> Model:
        """A network of these sizes that is not fitted, its core frozen if that is asked for."""
        return Model(self.name, options, shapes, frozen=self._is_frozen())

    def _begin(self, data: TrainingData, start: dict[str, Tensor] | None, model: Model) -> None:
        """The values that all candidates begin with."""
        if start is not None:
            load_start(model, start)
            return
        if self.given_core is not None:
            self.given_core.put_into(model)
        initialize(model, data.images, data.responses, self.seed, keep_core=self.given_core is not None)

    def join(self) -> Parallel:
        return join_processes(self.devices, self.nodes, self.device)

    def check(self, recording: Recording) -> Recording:
        options = self.options()
        check_compiler(options, choose_device(self.device))
        with torch.device("meta"):
            network = self.network(options, shapes_of(recording))  # takes no memory
        if self.given_core is not None:
            self.given_core.check(network)
        recording.split(options.training.validation_fraction, self.seed)
        return recording.check_nonnegative() if options.training.loss == "poisson" else recording

    def _parameters_of(self, start: Estimator, options: ModelOptions) -> dict[str, Tensor]:
        """The parameters and statistics of a model that this one may start from; `OptionError` where it may not."""
        if not isinstance(start, CNN) or start.name != self.name:
            raise OptionError(f"start is a {start.name} model: expected another {self.name}, for its parameters.")
        start.check_fitted()
        for concern in ("core", "preprocessing"):
            theirs, ours = getattr(start.options_, concern), getattr(options, concern)
            wrong = [
                option.name for option in fields(ours) if getattr(theirs, option.name) != getattr(ours, option.name)
            ]
            if wrong:
                raise OptionError(
                    f"start has other options of {concern}, {', '.join(wrong)}: its parameters would not mean the same."
                )
        return {name: tensor.cpu() for name, tensor in start.model_.state_dict().items()}

    def keep(self, model: Model, options: ModelOptions, prepared: Prepared, results: list[Result]) -> None:
        """What a fit ended with."""
        self.options_ = options
        self.model_ = model
        self.standardisation_ = prepared.standardisation
        self.response_scale_ = prepared.response_scale
        self.history_ = pd.concat(
            [history_table(result.history, number) for number, result in enumerate(results)], ignore_index=True
        )
        self.candidates_ = pd.DataFrame(
            {
                **_varied(options.penalties, len(results)),
                "validation_loss": [result.best_loss for result in results],
                "best_step": [result.best_step for result in results],
                "steps": [result.history[-1].step for result in results],
                "stopped": [result.stopped for result in results],
            }
        )
        self.stopped_ = results[-1].stopped
        self.notes_ = prepared.notes

    @property
    def masks_(self) -> np.ndarray:
        """*Where*: (n_neurons, h, w), in the pixels of the feature maps."""
        self.check_fitted()
        return self.model_.readout.masks().cpu().numpy()

    @property
    def feature_weights_(self) -> np.ndarray:
        """*What*: (n_neurons, K)."""
        self.check_fitted()
        return self.model_.readout.feature_weights().cpu().numpy()

    @property
    def kernels_(self) -> np.ndarray:
        """The first layer's kernels, (K, n_channels, height, width), or (n_channels, 1, ...) where it is separable."""
        self.check_fitted()
        return self.model_.core.layers[0].spatial_kernels().detach().cpu().numpy()

    @property
    def locations_(self) -> np.ndarray:
        """(n_neurons, 2): row and column of each mask's peak, or of the Gaussian's mean, in pixels of the image."""
        self.check_fitted()
        return self.model_.locations()

    @torch.no_grad()
    def predict(self, images: Any) -> np.ndarray:
        self.check_fitted()
        device = self.model_.bias.device
        predictions = [np.zeros((0, self.shapes_.n_neurons), np.float32)]
        for some in self.standardised(images, self.options_.training.batch_size):
            predictions.append(self.model_(torch.from_numpy(some).to(device)).cpu().numpy())
        return np.concatenate(predictions) * self.response_scale_

    def tensors(self) -> dict[str, Tensor]:
        self.check_fitted()
        return {
            **{f"model/{name}": tensor for name, tensor in self.model_.state_dict().items()},
            "response_scale": torch.tensor(self.response_scale_),
        }

    def description(self) -> dict[str, Any]:
        self.check_fitted()
        return {
            "preset": self.preset,
            **self.asked(),
            "penalties": as_plain(self.model_.options.penalties),
            "stopped": self.stopped_,
        }

    @classmethod
    def restored(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> Self:
        options = make_options(ModelOptions, description["options"])
        chosen = replace(options, penalties=make_options(PenaltyOptions, description["penalties"]))
        estimator = cls(
            description["preset"],
            options.core,
            options.readout,
            options.penalties,
            options.training,
            options.preprocessing,
            seed=description["seed"],
        )
        estimator.options_, estimator.stopped_ = options, description["stopped"]
        estimator.shared_with = description.get("recordings")
        if "given_core" in description:
            estimator.given_core = GivenCore(**description["given_core"])
        shapes = Shapes(**description["shapes"])
        model = estimator.network(chosen, shapes)
        model.load_state_dict({name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model/")})
        estimator.model_ = model.eval().to(choose_device(estimator.device))
        estimator.response_scale_ = tensors["response_scale"].numpy()
        expect_shape("response_scale", estimator.response_scale_, (shapes.n_neurons,))
        return estimator


class FactorizedCNN(CNN):
    """The paper's model: a shared core, and for each neuron a mask (where) times feature weights (what).

    Klindt et al. 2017, equations 2-4.
    """

    name: ClassVar[str] = "factorized"


class FixedMaskCNN(CNN):
    """A shared core read at one fixed pixel per neuron, the peak of its decorrelated average (Batty et al. 2017)."""

    name: ClassVar[str] = "fixed-mask"


class FullyConnectedCNN(CNN):
    """A shared core with a weight for each feature at each position (McIntosh et al. 2016)."""

    name: ClassVar[str] = "fully-connected"


class GaussianCNN(CNN):
    """A shared core read at one point per neuron, drawn from a learned Gaussian in training (Lurz et al. 2021).

    `locations_` are the Gaussians' means, between pixels too; `masks_` the four pixels that each interpolates.
    """

    name: ClassVar[str] = "gaussian"


class PosteriorCNN(CNN):
    """A shared core read where the posterior says that each neuron looks; the places are inferred, not penalised.

    See `readouts.posterior` and `location_inference` for the objective. `masks_` are the expectations of the places.
    """

    name: ClassVar[str] = "posterior"

    @property
    def location_posterior_(self) -> np.ndarray:
        """The probability that each neuron looks at each pixel of the map, whatever its width: (n_neurons, h, w)."""
        self.check_fitted()
        readout = self.model_.readout
        assert isinstance(readout, PosteriorReadout)
        return readout.posterior.sum(1).cpu().numpy()

    @property
    def location_entropy_(self) -> np.ndarray:
        """Of each neuron's `location_posterior_`, in nats: (n_neurons,)."""
        return entropy(self.location_posterior_)

    def credible_regions(self, level: float = 0.9) -> np.ndarray:
        """The smallest region of the map that holds each neuron with probability `level`: bool (n_neurons, h, w)."""
        return credible_regions(self.location_posterior_, level)


def _varied(penalties: PenaltyOptions, n: int) -> dict[str, list[float]]:
    """The strengths that were searched, each with its values in the order of the candidates."""
    candidates = penalties.candidates()[:n]
    return {
        name: [getattr(candidate, name) for candidate in candidates]
        for name, value in vars(penalties).items()
        if isinstance(value, tuple)
    }
