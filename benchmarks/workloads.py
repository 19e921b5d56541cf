"""The workloads: options of the model, sizes, data, and the step that a fit repeats."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from whatwhere.config import CoreOptions, ModelOptions, PenaltyOptions, ReadoutOptions, TrainingOptions
from whatwhere.model import Model, Shapes
from whatwhere.readouts import Start
from whatwhere.readouts.support import Support
from whatwhere.training import Trainer, TrainingData

N_BATCHES = 4
SUPPORT = 25  # pixels
SPARSE_L1 = 1e-3


@dataclass(frozen=True)
class Workload:
    """One model on data of one size.

    - `steps`: how many make a round of a second or more; of plain PyTorch, which takes every step alike, one in
      `plain_every`
    - `support`: pixels that each mask holds, the rest are 0; None: all
    - `readout`: its name in `whatwhere.readouts`
    """

    name: str
    description: str
    options: ModelOptions
    shapes: Shapes
    steps: int
    plain_every: int = 1
    support: int | None = None
    readout: str = "factorized"


def _three_layers(name: str, n_maps: int, n_neurons: int, steps: int) -> Workload:
    """The paper's network for nonlinear populations, with so many maps in its last layer."""
    return Workload(
        name,
        f"44x44x3, 5x5 kernels 32-64-{n_maps}, ReLU, batch norm with shift, squared error, {n_neurons:,} neurons,"
        " batch 64",
        ModelOptions(
            core=CoreOptions(
                kernel_sizes=(5, 5, 5),
                n_maps=(32, 64, n_maps),
                padding="valid",
                nonlinearity="relu",
                last_nonlinearity="relu",
            ),
            readout=ReadoutOptions(nonlinearity="relu"),
            training=TrainingOptions(loss="squared", learning_rate=1e-3, batch_size=64),
        ),
        Shapes(n_channels=3, height=44, width=44, n_neurons=n_neurons),
        steps=steps,
    )


WORKLOADS = {
    "1": Workload(
        "1",
        "48x48x1, one 17x17 kernel, identity, squared error, mask L1, 1,000 neurons, batch 256",
        ModelOptions(
            core=CoreOptions(
                kernel_sizes=(17,), n_maps=1, padding="valid", batch_norm_shift=False, nonlinearity="identity"
            ),
            readout=ReadoutOptions(nonlinearity="identity"),
            penalties=PenaltyOptions(mask_l1=0.02),
            training=TrainingOptions(loss="squared", learning_rate=1e-3, batch_size=256),
        ),
        Shapes(n_channels=1, height=48, width=48, n_neurons=1000),
        steps=10,
    ),
    "2": _three_layers("2", n_maps=4, n_neurons=1000, steps=4),
    "3": Workload(
        "3",
        "31x31x1, 13-3-3 kernels of 48 maps, softplus, Poisson, smoothness, group sparsity, product L1, 103 neurons,"
        " batch 256",
        ModelOptions(
            core=CoreOptions(
                kernel_sizes=(13, 3, 3),
                n_maps=48,
                padding=("valid", "same", "same"),
                batch_norm_shift=False,
                nonlinearity="softplus",
            ),
            readout=ReadoutOptions(nonlinearity="softplus"),
            penalties=PenaltyOptions(product_l1=0.02, smoothness=0.03, group_sparsity=0.05, relative=False),
            training=TrainingOptions(loss="poisson", learning_rate=1e-3, batch_size=256),
        ),
        Shapes(n_channels=1, height=31, width=31, n_neurons=103),
        steps=4,
    ),
    "4": Workload(
        "4",
        "36x64x1, 9x9 then three depth-separable 7x7 layers of 64 maps, same padding, ELU, Poisson, 5,335 neurons,"
        " batch 64",
        ModelOptions(
            core=CoreOptions(
                kernel_sizes=(9, 7, 7, 7),
                n_maps=64,
                padding="same",
                separable=(False, True, True, True),
                nonlinearity="elu",
            ),
            readout=ReadoutOptions(nonlinearity="softplus"),
            training=TrainingOptions(loss="poisson", learning_rate=1e-3, batch_size=64),
        ),
        Shapes(n_channels=1, height=36, width=64, n_neurons=5335),
        steps=2,
    ),
    "5": _three_layers("5", n_maps=128, n_neurons=8192, steps=2),
}


def _sparse(workload: Workload) -> Workload:
    """The same with masks of few pixels, kept so by a penalty; a round has a fit's mixture of steps."""
    options = replace(
        workload.options,
        readout=replace(workload.options.readout, feature_norm="unit"),
        penalties=PenaltyOptions(mask_l1=SPARSE_L1, feature_l1=SPARSE_L1),
        training=replace(workload.options.training, proximal=True),
    )
    description = f"{workload.description}; masks of {SUPPORT} pixels, L1 of masks and feature weights"
    every = options.training.whole_every
    return replace(
        workload,
        name=f"{workload.name}s",
        description=description,
        options=options,
        steps=every,
        plain_every=every // 2,
        support=SUPPORT,
    )


def _half(workload: Workload) -> Workload:
    """The same with our forward pass in bfloat16; plain PyTorch's stays in float32."""
    options = replace(workload.options, training=replace(workload.options.training, precision="bf16"))
    description = f"{workload.description}; whatwhere in bf16, plain in float32"
    return replace(workload, name=f"{workload.name}b", description=description, options=options)


WORKLOADS |= {f"{name}s": _sparse(WORKLOADS[name]) for name in ("4", "5")}
WORKLOADS |= {f"{name}b": _half(WORKLOADS[name]) for name in ("2", "3")}


def make_data(workload: Workload) -> tuple[Tensor, Tensor]:
    """Images (n, C, H, W) of white noise and responses (n, n_neurons) of 0 or more, enough for `N_BATCHES` batches."""
    generator = torch.Generator().manual_seed(int(workload.name[0]))
    shapes, n_images = workload.shapes, N_BATCHES * workload.options.training.batch_size
    images = torch.empty(n_images, shapes.n_channels, shapes.height, shapes.width).normal_(generator=generator)
    responses = torch.empty(n_images, shapes.n_neurons).exponential_(generator=generator)
    return images, responses


@torch.no_grad()
def make_model(workload: Workload) -> Model:
    """The model with random initial values, the same at each call."""
    generator = torch.Generator().manual_seed(0)
    model = Model(workload.readout, workload.options, workload.shapes)
    model.core.initialize(generator)
    _, height, width = model.core.output_shape
    peaks = torch.randint(height * width, (workload.shapes.n_neurons,), generator=generator)
    model.readout.initialize(Start(peaks, torch.ones(len(peaks)), 0.001), generator)
    if workload.support is not None:
        masks = model.readout.mask.flatten(1)
        chosen = torch.rand(masks.shape, generator=generator).topk(workload.support, 1).indices
        masks.copy_(torch.zeros_like(masks).scatter_(1, chosen, masks.gather(1, chosen)))
    return model


def step_of(model: Model, images: Tensor, responses: Tensor) -> Callable[[], None]:
    """The step that `whatwhere.training.train` repeats: batch, forward, loss, penalties, backward, Adam, projection."""
    data = TrainingData(images, responses, images[:1], responses[:1])
    trainer = Trainer(model, data, seed=0)
    model.train()
    if not model.options.training.proximal:
        return trainer.step
    support = Support.of(model.readout.mask.detach().flatten(1) != 0)
    values = support.gathered(model.readout.mask.detach())

    def step() -> None:
        trainer.step()
        if model.readout.restricted is None:  # a whole step: masks of noise would not stay sparse by themselves
            with torch.no_grad():
                support.scatter_(model.readout.mask.zero_(), values)
        elif len(model.readout.restricted.values) != len(values):
            raise RuntimeError(f"masks hold {len(model.readout.restricted.values):,} pixels, not {len(values):,}")

    return step
