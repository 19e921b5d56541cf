"""The same mathematics in plain PyTorch, as a competent user would write it: the models and one training loop.

Nothing here is imported from whatwhere. Each model holds its parameters in the order in which
`whatwhere.model.Model` does, so that initial values and gradients can be handed over in pairs.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SPARSE_L1 = 1e-3


def batch_norm(n_maps: int, shift: bool) -> nn.BatchNorm2d:
    """Unit variance; with a shift, PyTorch's own layer with its scale frozen at 1 (faster than adding the shift)."""
    layer = nn.BatchNorm2d(n_maps, affine=shift)
    if shift:
        layer.weight.requires_grad_(False)
    return layer


class FactorizedReadout(nn.Module):
    """Masks (n_neurons, h * w), and for several maps feature weights (n_neurons, K); and the output's bias."""

    def __init__(self, n_neurons: int, n_maps: int, n_pixels: int) -> None:
        super().__init__()
        self.mask = nn.Parameter(torch.zeros(n_neurons, n_pixels))
        if n_maps > 1:
            self.weights = nn.Parameter(torch.zeros(n_neurons, n_maps))
        self.bias = nn.Parameter(torch.zeros(n_neurons))

    def forward(self, maps: Tensor) -> Tensor:  # (n_images, K, h, w)
        pooled = maps.flatten(2) @ self.mask.T  # (n_images, K, n_neurons)
        if maps.shape[1] == 1:
            return pooled[:, 0] + self.bias
        return torch.einsum("bkn,nk->bn", pooled, self.weights) + self.bias


class OneKernel(nn.Module):
    """Workload 1."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.Sequential(nn.Conv2d(1, 1, 17, bias=False), batch_norm(1, shift=False))
        self.readout = FactorizedReadout(1000, 1, 32 * 32)

    def forward(self, images: Tensor) -> Tensor:
        return self.readout(self.core(images))

    def loss(self, predictions: Tensor, responses: Tensor) -> tuple[Tensor, Tensor]:
        penalty = 0.02 * self.readout.mask.abs().sum(1).mean()
        return F.mse_loss(predictions, responses), penalty


class ThreeLayers(nn.Module):
    """Workloads 2 and 5; and with a penalty, 5s."""

    def __init__(self, n_maps_last: int = 4, n_neurons: int = 1000, strength: float = 0.0) -> None:
        super().__init__()
        self.strength = strength
        layers: list[nn.Module] = []
        for n_inputs, n_maps in ((3, 32), (32, 64), (64, n_maps_last)):
            layers += [nn.Conv2d(n_inputs, n_maps, 5, bias=False), batch_norm(n_maps, shift=True), nn.ReLU()]
        self.core = nn.Sequential(*layers)
        self.readout = FactorizedReadout(n_neurons, n_maps_last, 32 * 32)

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.readout(self.core(images)))

    def loss(self, predictions: Tensor, responses: Tensor) -> tuple[Tensor, Tensor]:
        return F.mse_loss(predictions, responses), mask_and_feature_l1(self.readout, self.strength)


class PublishedV1(nn.Module):
    """Workload 3, with the smoothness, group sparsity and product penalties of the published V1 model."""

    laplacian: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 48, 13, bias=False)
        self.second = nn.Conv2d(48, 48, 3, padding=1, bias=False)
        self.third = nn.Conv2d(48, 48, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(batch_norm(48, shift=False) for _ in range(3))
        self.readout = FactorizedReadout(103, 48, 19 * 19)
        self.register_buffer("laplacian", torch.tensor([[[[0.5, 1.0, 0.5], [1.0, -6.0, 1.0], [0.5, 1.0, 0.5]]]]))

    def forward(self, images: Tensor) -> Tensor:
        maps = F.softplus(self.norms[0](self.first(images)))
        maps = F.softplus(self.norms[1](self.second(maps)))
        maps = self.norms[2](self.third(maps))
        return F.softplus(self.readout(maps))

    def loss(self, predictions: Tensor, responses: Tensor) -> tuple[Tensor, Tensor]:
        smoothness = F.conv2d(self.first.weight, self.laplacian, padding=1).square().sum()
        groups = sum((layer.weight.square().sum((2, 3)) + 1e-12).sqrt().sum() for layer in (self.second, self.third))
        product = (self.readout.mask.abs().sum(1) * self.readout.weights.abs().sum(1)).mean()
        penalty = 0.02 * product + 0.03 * smoothness + 0.05 * groups
        return F.poisson_nll_loss(predictions, responses, log_input=False, eps=1e-5), penalty


def mask_and_feature_l1(readout: FactorizedReadout, strength: float) -> Tensor:
    """Both L1 norms, averaged over neurons."""
    if not strength:
        return torch.zeros(())
    return strength * (readout.mask.abs().sum(1).mean() + readout.weights.abs().sum(1).mean())


class SeparableLayers(nn.Module):
    """Workload 4; and with a penalty, 4s."""

    def __init__(self, strength: float = 0.0) -> None:
        super().__init__()
        self.strength = strength
        layers: list[nn.Module] = [nn.Conv2d(1, 64, 9, padding=4, bias=False), batch_norm(64, shift=True)]
        for _ in range(3):
            layers += [
                nn.ELU(),
                nn.Conv2d(64, 64, 7, padding=3, groups=64, bias=False),
                nn.Conv2d(64, 64, 1, bias=False),
                batch_norm(64, shift=True),
            ]
        self.core = nn.Sequential(*layers)
        self.readout = FactorizedReadout(5335, 64, 36 * 64)

    def forward(self, images: Tensor) -> Tensor:
        return F.softplus(self.readout(self.core(images)))

    def loss(self, predictions: Tensor, responses: Tensor) -> tuple[Tensor, Tensor]:
        loss = F.poisson_nll_loss(predictions, responses, log_input=False, eps=1e-5)
        return loss, mask_and_feature_l1(self.readout, self.strength)


class EqualLayers(nn.Module):
    """Workloads 2e and 5e: of 2 and 5 what other libraries have, too."""

    def __init__(self, n_maps: int, n_neurons: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n_inputs in (3, n_maps, n_maps):
            layers += [nn.Conv2d(n_inputs, n_maps, 5, bias=False), batch_norm(n_maps, shift=True), nn.ELU()]
        self.core = nn.Sequential(*layers)
        self.readout = FactorizedReadout(n_neurons, n_maps, 32 * 32)

    def forward(self, images: Tensor) -> Tensor:
        return F.softplus(self.readout(self.core(images)))

    def loss(self, predictions: Tensor, responses: Tensor) -> tuple[Tensor, Tensor]:
        return F.poisson_nll_loss(predictions, responses, log_input=False, eps=1e-5), torch.zeros(())


MODELS: dict[str, Callable[[], nn.Module]] = {
    "1": OneKernel,
    "2": ThreeLayers,
    "2b": ThreeLayers,
    "2e": lambda: EqualLayers(32, 1000),
    "3": PublishedV1,
    "3b": PublishedV1,
    "4": SeparableLayers,
    "4s": lambda: SeparableLayers(SPARSE_L1),
    "5": lambda: ThreeLayers(128, 8192),
    "5e": lambda: EqualLayers(64, 8192),
    "5s": lambda: ThreeLayers(128, 8192, SPARSE_L1),
}


def step_of(model: nn.Module, images: Tensor, responses: Tensor, batch_size: int) -> Callable[[], None]:
    """One step of a plain training loop, to be called again and again."""
    optimizer = torch.optim.Adam(model.parameters())
    batches: list[Tensor] = []
    model.train()

    def step() -> None:
        if not batches:
            batches.extend(torch.randperm(len(images)).split(batch_size))
        rows = batches.pop()
        loss, penalty = model.loss(model(images[rows]), responses[rows])
        optimizer.zero_grad()
        (loss + penalty).backward()
        optimizer.step()

    return step
