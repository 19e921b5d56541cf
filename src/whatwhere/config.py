"""Options, one frozen dataclass per concern, checked when made.

The library, the command line and the files on disk all use these and nothing else: a default, its meaning and its
allowed range stand here once. Strengths may be tuples: every combination is then fitted and the one with the lowest
unpenalised validation loss kept.
"""

import operator
from dataclasses import field, fields
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from whatwhere.errors import OptionError
from whatwhere.plain_options import with_own_errors

Nonlinearity = Literal["identity", "relu", "softplus", "elu"]
OutputNonlinearity = Literal["identity", "relu", "softplus"]
Positive = Annotated[float, Field(gt=0)]


def _whole(value: Any) -> Any:
    """NumPy's integers as Python's; truth values and texts are no counts."""
    return value if isinstance(value, bool | str) or not hasattr(value, "__index__") else operator.index(value)


Count = Annotated[int, Field(ge=1, strict=True), BeforeValidator(_whole)]
Padding = Literal["valid", "same"]
Strength = Annotated[float, Field(ge=0)]
Strengths = Strength | tuple[Strength, ...]

BATCH_NORM_MOMENTUM = 0.1
WHOLE_EVERY = 10
SGD_MOMENTUM = 0.9
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


def _option(default: Any, doc: str) -> Any:
    """A dataclass field whose `doc` is shown by the command line's help."""
    return field(default=default, metadata={"doc": doc})


@with_own_errors
@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CoreOptions:
    """The convolutional core, shared by all neurons: images (n, C, H, W) to feature maps (n, K, h, w).

    A single value stands for every layer; otherwise one value a layer, as many as `kernel_sizes`.
    """

    kernel_sizes: tuple[Count | tuple[Count, Count], ...] = _option(
        (9, 5, 5), "pixels, one a layer; a pair is (height, width)"
    )
    n_maps: Count | tuple[Count, ...] = _option(16, "feature maps of each layer")
    padding: Padding | tuple[Padding, ...] | None = _option(
        None, "valid crops the map by the kernel, same keeps its size; if not given, valid in the first layer alone"
    )
    separable: bool | tuple[bool, ...] = _option(False, "depthwise then pointwise convolution in place of a full one")
    batch_norm: bool = _option(True, "normalise each map to unit variance over the batch, never with a learned scale")
    batch_norm_shift: bool = _option(True, "learn an offset for each map, after the normalisation if there is one")
    batch_norm_momentum: Annotated[float, Field(gt=0, le=1)] = _option(
        BATCH_NORM_MOMENTUM, "weight of the newest batch in the running statistics"
    )
    nonlinearity: Nonlinearity = _option("elu", "after every layer but the last")
    last_nonlinearity: Nonlinearity = _option("identity", "after the last layer")
    kernel_std: Positive = _option(0.01, "standard deviation of the initial kernels")

    @model_validator(mode="after")
    def _one_value_a_layer(self) -> "CoreOptions":
        if not self.kernel_sizes:
            raise ValueError("kernel_sizes is empty: a core needs at least one layer.")
        if not self.batch_norm and self.batch_norm_momentum != BATCH_NORM_MOMENTUM:
            raise ValueError(
                f"batch_norm_momentum (={self.batch_norm_momentum}) has nothing to act on without batch_norm: leave it"
                f" at {BATCH_NORM_MOMENTUM}."
            )
        for name in ("n_maps", "padding", "separable"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != self.n_layers:
                raise ValueError(
                    f"{name} has {len(value)} values but kernel_sizes has {self.n_layers}: give one value a layer,"
                    " or a single one for all."
                )
        return self

    @property
    def n_layers(self) -> int:
        return len(self.kernel_sizes)

    def layers(self) -> list["LayerShape"]:
        """One `LayerShape` a layer, single values repeated."""
        padding = self.padding or ("valid",) + ("same",) * (self.n_layers - 1)
        sizes = [(size, size) if isinstance(size, int) else size for size in self.kernel_sizes]
        return [
            LayerShape(size, *shape)
            for size, *shape in zip(
                sizes,
                *(_repeat(value, self.n_layers) for value in (self.n_maps, padding, self.separable)),
                strict=True,
            )
        ]


@dataclass(frozen=True)
class LayerShape:
    """One layer of the core: its kernel (height, width), maps, padding and whether it is separable."""

    kernel_size: tuple[int, int]
    n_maps: int
    padding: str
    separable: bool


def _repeat(value: Any, n: int) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,) * n


@with_own_errors
@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ReadoutOptions:
    """What the readout may look like, and where masks and places start."""

    nonlinearity: OutputNonlinearity = _option("softplus", "of the output: identity, relu or softplus")
    nonnegative_masks: bool = _option(False, "keep every mask at or above zero (projected after each step)")
    nonnegative_features: bool = _option(False, "keep every feature weight at or above zero (projected)")
    feature_norm: Literal["unit", "free"] = _option(
        "free", "unit: |w_n| = 1, so that only the mask carries the scale; free: penalise the product"
    )
    mask_norm: Literal["unit", "free"] = _option(
        "free",
        "factorised, unit: |m_n| = 1, so that only the feature weights carry the scale, and penalties of masks make"
        " them narrow without making neurons weak",
    )
    hold_masks: Annotated[int, Field(ge=0)] = _option(
        0,
        "factorised: steps in which each neuron looks at one pixel, from `locate_from` on at the one whose features"
        " explain it best, found anew each `locate_every` steps; then masks are free",
    )
    start: Literal["average", "types", "features"] = _option(
        "average",
        "where neurons look at first: average: at the peak of the decorrelated average; types: where it is most like"
        " what neurons of a type have in common, and these begin with one feature map (in a core of one layer, with its"
        " kernel); features: places and types by a fixed bank of local features (edges, bars and colours, each of one"
        " contrast), which finds nonlinear neurons",
    )
    hold_features: Annotated[int, Field(ge=0)] = _option(
        0,
        "steps, of start types or features: so long feature weights keep the proportions that they start with, and the"
        " core learns what each type has in common",
    )
    sta_smoothing: Annotated[float, Field(ge=0)] = _option(
        2.0,
        "pixels, but for start features: the Gaussian that smooths the squared, decorrelated average before its peak",
    )
    mask_noise: Annotated[float, Field(ge=0)] = _option(0.001, "standard deviation of the initial masks off their peak")
    covariance: Literal["full", "uncorrelated", "isotropic"] = _option(
        "full", "gaussian: of the position drawn in training; uncorrelated: in rows and columns; isotropic: one width"
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = _option(
        0.0, "but posterior: share of the core's features that are set to 0 in each step, the others scaled up for it"
    )
    position_std: Annotated[float, Field(ge=0)] = _option(
        0.1, "gaussian: its standard deviation at first, in halves of the map's longer side"
    )
    noise: Literal["auto", "constant", "rate", "poisson", "estimated"] = _option(
        "auto",
        "posterior: variance of a response given its rate r: constant; rate: a + b |r|; estimated: a + b |r| + c r^2;"
        " poisson; auto: the one that the data choose (BIC)",
    )
    widths: tuple[Annotated[float, Field(ge=0)], ...] = _option(
        (0.0,), "posterior: widths in pixels of the Gaussians that a place may be; 0 is one pixel"
    )
    sampled: bool = _option(True, "posterior: train at places drawn from the posterior, not at their expectation")
    locate_every: Count = _option(
        25, "posterior, and factorised while masks are held: steps between two inferences of the places"
    )
    locate_from: Annotated[int, Field(ge=0)] = _option(
        100, "posterior, and factorised while masks are held: steps before the first of them"
    )
    anneal_steps: Annotated[int, Field(ge=0)] = _option(
        300, "posterior: steps in which the temperature falls to 1 and the noise's least variance to its last value"
    )
    temperature: Annotated[float, Field(ge=1)] = _option(3.0, "posterior: of the first inference")
    prior_ridges: Annotated[tuple[Positive, ...], Field(min_length=1)] = _option(
        (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
        "posterior, and factorised with `hold_masks`: noise over the weights' prior variance, relative to the features'"
        " power; each is as likely",
    )


@with_own_errors
@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PenaltyOptions:
    """Strengths of the penalties. Each is an average over neurons, so it means the same for any population.

    A tuple of strengths is searched on the validation part. A readout refuses a strength that it does not have.
    """

    mask_l1: Strengths = _option(0.0, "factorised: mean over neurons of |m_n|_1")
    feature_l1: Strengths = _option(0.0, "factorised, fixed mask, gaussian: mean over neurons of |w_n|_1")
    product_l1: Strengths = _option(0.0, "factorised: mean over neurons of |m_n|_1 |w_n|_1, the published V1 form")
    weight_l2: Strengths = _option(0.0, "fully connected: mean over neurons of |q_n|_2 squared")
    activity_l1: Strengths = _option(0.0, "fully connected: mean over images and neurons of |prediction|")
    smoothness: Strengths = _option(0.0, "squared Laplacian of the first layer's kernels (equation 6)")
    group_sparsity: Strengths = _option(0.0, "norms of the later layers' kernels (equation 7)")
    relative: bool = _option(True, "smoothness and group sparsity relative to each kernel's norm")

    def single(self) -> dict[str, float]:
        """The strengths by name, each one number; raises `OptionError` where there are several to choose from."""
        strengths = {option.name: getattr(self, option.name) for option in fields(self) if option.name != "relative"}
        for name, value in strengths.items():
            if isinstance(value, tuple):
                raise OptionError(f"{name} holds {len(value)} strengths: expected one. Choose among `candidates()`.")
        return strengths

    def candidates(self) -> list["PenaltyOptions"]:
        """Every combination of the strengths, each with single values; the first strength varies slowest."""
        combinations: list[dict[str, Any]] = [{}]
        for option in fields(self):
            value = getattr(self, option.name)
            choices = value if isinstance(value, tuple) else (value,)
            combinations = [{**chosen, option.name: choice} for chosen in combinations for choice in choices]
        return [PenaltyOptions(**chosen) for chosen in combinations]

    @model_validator(mode="after")
    def _no_empty_tuple(self) -> "PenaltyOptions":
        for option in fields(self):
            if getattr(self, option.name) == ():
                raise ValueError(f"{option.name} is an empty list: give at least one strength.")
        return self


@with_own_errors
@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrainingOptions:
    """The loss, the optimiser and the schedule of early stopping."""

    loss: Literal["poisson", "squared"] = _option("poisson", "poisson (r - y log r) or squared error")
    optimizer: Literal["adam", "sgd"] = _option("adam", "adam, or sgd: gradient descent with momentum")
    momentum: Annotated[float, Field(ge=0, lt=1)] = _option(SGD_MOMENTUM, "of sgd, the share of its last step kept")
    learning_rate: Positive = _option(3e-3, "of the optimiser, at first")
    proximal: bool = _option(
        False, "L1 and group penalties by proximal steps: masks, feature weights and kernels become exactly 0"
    )
    whole_every: Count = _option(
        WHOLE_EVERY,
        "proximal, factorised: of so many steps one is of whole masks; once all but a sixteenth of the pixels are 0,"
        " the others are of the rest, which is faster. 1: always whole masks",
    )
    batch_size: Count = _option(128, "images a step")
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = _option(
        0.2, "of the training images, where the recording does not set its own aside"
    )
    check_every: Count = _option(25, "steps between two looks at the validation loss")
    patience: Count = _option(6, "checks without a better validation loss before the learning rate falls")
    patience_from: Annotated[int, Field(ge=0)] = _option(0, "steps before which checks are not counted")
    rate_factor: Annotated[float, Field(gt=0, lt=1)] = _option(0.3, "the learning rate is multiplied by this")
    n_rates: Count = _option(2, "number of learning rates; after the last one runs out of patience, training stops")
    max_steps: Annotated[int, Field(ge=0)] = _option(20_000, "training stops here at the latest")
    refit: bool = _option(
        False, "at last, fit to training and validation images together, for as many steps as were best on the latter"
    )
    memory_gib: Positive = _option(
        4.0,
        "GiB that training images may take (as float32): where they would take more, they are read as they are needed,"
        " and each epoch has an order that a disk can follow",
    )
    precision: Literal["float32", "bf16"] = _option("float32", "bf16 computes the forward pass in bfloat16")
    compile: bool = _option(False, "the core by torch.compile: faster steps, after some seconds to begin with")
    checkpoint_seconds: Annotated[float, Field(ge=0)] = _option(30.0, "between checkpoints, where a folder is given")

    @model_validator(mode="after")
    def _momentum_of_sgd(self) -> "TrainingOptions":
        if self.optimizer != "sgd" and self.momentum != SGD_MOMENTUM:
            raise ValueError(
                f"momentum (={self.momentum}) has nothing to act on with optimizer '{self.optimizer}': leave it at"
                f" {SGD_MOMENTUM}, or choose 'sgd'."
            )
        return self


@with_own_errors
@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PreprocessingOptions:
    """What is done to images and responses before the fit, undone in `predict`."""

    standardize: Literal["global", "pixel", "none"] = _option(
        "global", "images to zero mean and unit variance, by one number or by one a pixel, from training images alone"
    )
    scale_responses: bool = _option(True, "divide each neuron's responses by their standard deviation")


@with_own_errors
@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ModelOptions:
    """All options of one convolutional model: the defaults suit recordings of responses that are not negative."""

    core: CoreOptions = field(default_factory=CoreOptions)
    readout: ReadoutOptions = field(default_factory=ReadoutOptions)
    penalties: PenaltyOptions = field(default_factory=PenaltyOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    preprocessing: PreprocessingOptions = field(default_factory=PreprocessingOptions)


@with_own_errors
@dataclass(frozen=True, kw_only=True, config=_STRICT)
class OptimiserOptions:
    """When a minimisation on all data at once stops, and the steps of Adam and SGD."""

    max_iterations: Count = _option(1000, "iterations at most")
    max_seconds: Positive | None = _option(
        None, "seconds at most, the evaluation under way apart; no limit if not given"
    )
    tolerance: Positive = _option(
        1e-5,
        "converged where no derivative is larger; Nelder-Mead: where its simplex is no larger in any way",
    )
    learning_rate: Positive | None = _option(None, "of adam and sgd; 0.01 if not given")
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = _option(None, "of sgd; 0.9 if not given")


@with_own_errors
@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RunOptions:
    """What the command line asks of a run beside the model's own options."""

    preset: Literal["recording", "simulation", "nonlinear"] = _option(
        "recording", "default options: for recordings, or for linear or nonlinear simulations"
    )
    neurons: Count | None = _option(None, "fit this many neurons, drawn at random with the seed; all if not given")
    seed: Annotated[int, Field(ge=0)] = _option(0, "of neurons, split, kernels, masks and batches")
    device: str = _option("auto", "auto (a GPU if there is one), cpu, cuda, cuda:1, ...")
    threads: Count | None = _option(None, "of the CPU; the machine's default if not given")
    devices: Count = _option(1, "GPUs, or processes of the CPU, of each machine that share one fit")
    nodes: Count = _option(1, "machines that share one fit")
    nonfinite: Literal["error", "rows", "neurons"] = _option(
        "error", "responses that are NaN or infinite: refuse them, or leave out rows or neurons"
    )
