"""Networks of the other libraries' cores and readouts, with the initial values of ours.

Core and readout are theirs; the output nonlinearity (where their readout has none), the loss and the loop are those of
`plain.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from workloads import Workload, make_model

from peers.classes import public
from whatwhere.model import Model


class Network(nn.Module):
    """A core, a readout and what follows it; `frames`: images go through the core as videos of one frame."""

    def __init__(
        self, workload: Workload, core: nn.Module, readout: nn.Module, *, frames: bool = False, rectified: bool = False
    ) -> None:
        super().__init__()
        self.core, self.readout, self.frames = core, readout, frames
        self.output = nn.Identity() if rectified or workload.options.readout.nonlinearity == "identity" else F.softplus
        self.squared = workload.options.training.loss == "squared"
        self.penalised = workload.options.penalties.mask_l1 > 0

    def forward(self, images: Tensor) -> Tensor:  # (n_images, C, H, W)
        return self.output(self.readout(self.core(images[:, :, None] if self.frames else images)))

    def loss(self, predictions: Tensor, responses: Tensor) -> tuple[Tensor, Tensor]:
        penalty = self.readout.regularizer() if self.penalised else torch.zeros(())
        if self.squared:
            return F.mse_loss(predictions, responses), penalty
        return F.poisson_nll_loss(predictions, responses, log_input=False, eps=1e-5), penalty


class OneFrame(nn.Module):
    """A readout of videos, applied to one frame: (n_images, K, 1, h, w) to (n_images, n_neurons)."""

    def __init__(self, readout: nn.Module, *, video: bool) -> None:
        super().__init__()
        self.readout, self.video = readout, video

    def forward(self, maps: Tensor) -> Tensor:
        return self.readout(maps)[:, 0] if self.video else self.readout(maps[:, :, 0])


@dataclass(frozen=True)
class Handed:
    """A parameter of ours, theirs, and the linear map that makes theirs from ours.

    compared: whether its gradient says something; not where noise is drawn, which each draws by itself.
    """

    ours: Tensor
    theirs: Tensor
    convert: Callable[[Tensor], Tensor]
    compared: bool = True


@dataclass(frozen=True)
class Peer:
    """A network of another library, ours with the same values, and what was handed over."""

    ours: Model
    network: Network
    handed: list[Handed]

    @torch.no_grad()
    def hand_over(self) -> None:
        for each in self.handed:
            each.theirs.copy_(each.convert(each.ours))


def neuralpredictors(workload: Workload) -> Peer:
    """Stacked2dCore with FullFactorized2d or FullGaussian2d."""
    ours = make_model(workload)
    core, handed = _stacked_core(workload, ours)
    n_neurons, shape = workload.shapes.n_neurons, ours.core.output_shape
    zeros = torch.zeros(n_neurons)
    if workload.readout == "gaussian":
        readout = public("FullGaussian2d")(shape, n_neurons, bias=True, gauss_type="full", mean_activity=zeros)
        handed += _handed_gaussian(ours, readout)
    else:
        # their penalty is the sum of |m_n|_1 |w_l|_1 over all pairs of neurons n, l; here every w is 1
        weight = workload.options.penalties.mask_l1 / n_neurons**2
        readout = public("FullFactorized2d")(
            shape, n_neurons, bias=True, normalize=False, mean_activity=zeros, spatial_and_feature_reg_weight=weight
        )
        handed.append(_as_it_is(ours.readout.mask, readout.spatial))
        if shape[0] == 1:
            nn.init.ones_(readout.features).requires_grad_(False)
        else:
            handed.append(_as_it_is(ours.readout.weights, readout.features))
        handed.append(_as_it_is(ours.bias, readout.bias))
    return _made(Peer(ours, Network(workload, core, readout), handed))


def openretina(workload: Workload) -> Peer:
    """SimpleCoreWrapper, its kernels one frame long, with FactorizedReadout or PointGaussianReadout."""
    ours = make_model(workload)
    core, handed = _openretina_core(workload, ours)
    n_neurons, (n_maps, height, width) = workload.shapes.n_neurons, ours.core.output_shape
    shape, zeros = (n_maps, 1, height, width), torch.zeros(n_neurons)
    if workload.readout == "gaussian":
        readout = public("PointGaussianReadout")(shape, n_neurons, bias=True, gauss_type="full", mean_activity=zeros)
        handed += _handed_gaussian(ours, readout)
    else:
        readout = public("FactorizedReadout")(
            shape,
            n_neurons,
            mask_l1_reg=0.0,
            weights_l1_reg=0.0,
            laplace_mask_reg=0.0,
            mask_size=(height, width),
            readout_bias=True,
            init_scales=[(0.0, 0.001), (0.0, 0.001)],
        )
        handed += [
            Handed(ours.readout.mask, readout.mask_weights, lambda mask: mask.flatten(1).T),
            Handed(ours.readout.weights, readout.feature_weights, lambda weights: weights.T),
            _as_it_is(ours.bias, readout.bias),
        ]
    factorized = workload.readout == "factorized"
    wrapped = OneFrame(readout, video=factorized)
    return _made(Peer(ours, Network(workload, core, wrapped, frames=True, rectified=factorized), handed))


def openretina_masks(workload: Workload) -> Peer:
    """SimpleCoreWrapper with GaussianMaskReadout: masks of a Gaussian's shape, of which ours has no like."""
    ours = make_model(workload)
    core, handed = _openretina_core(workload, ours)
    n_neurons, (n_maps, height, width) = workload.shapes.n_neurons, ours.core.output_shape
    readout = public("GaussianMaskReadout")((n_maps, 1, height, width), n_neurons, mean_activity=torch.zeros(n_neurons))
    handed.append(Handed(ours.readout.weights, readout.features, lambda weights: weights.T[None, :, None]))
    return _made(
        Peer(ours, Network(workload, core, OneFrame(readout, video=True), frames=True, rectified=True), handed)
    )


def _stacked_core(workload: Workload, ours: Model) -> tuple[nn.Module, list[Handed]]:
    options = workload.options.core
    layers = options.layers()
    same, shift = layers[0].padding == "same", options.batch_norm_shift
    core = public("Stacked2dCore")(
        input_channels=workload.shapes.n_channels,
        hidden_channels=layers[0].n_maps,
        input_kern=layers[0].kernel_size[0],
        hidden_kern=layers[-1].kernel_size[0],
        layers=len(layers),
        pad_input=same,
        hidden_padding=None if same else 0,
        bias=False,
        batch_norm_scale=False,
        independent_bn_bias=shift,  # the normalisation's own scale and shift, or none of them
        final_nonlinearity=options.last_nonlinearity == "elu",
        linear=options.nonlinearity == "identity",
        depth_separable=layers[-1].separable,
        stack=-1,
        input_regularizer="LaplaceL2norm",  # of no weight, but the default warns
        use_avg_reg=False,
    )
    handed: list[Handed] = []
    for layer, theirs in zip(ours.core.layers, core.features, strict=True):
        if layer.depthwise is None:
            handed.append(_as_it_is(layer.convolution.weight, theirs.conv.weight))
        else:
            nn.init.dirac_(theirs.ds_conv.in_depth_conv.weight)  # the one that ours does not have
            handed.append(_as_it_is(layer.depthwise.weight, theirs.ds_conv.spatial_conv.weight))
            handed.append(_as_it_is(layer.convolution.weight, theirs.ds_conv.out_depth_conv.weight))
        if layer.normalize.shift is not None:
            theirs.norm.weight.requires_grad_(False)
            handed.append(_as_it_is(layer.normalize.shift, theirs.norm.bias))
    return core, handed


def _openretina_core(workload: Workload, ours: Model) -> tuple[nn.Module, list[Handed]]:
    layers = workload.options.core.layers()
    core = public("SimpleCoreWrapper")(
        channels=(workload.shapes.n_channels, *(layer.n_maps for layer in layers)),
        temporal_kernel_sizes=(1,) * len(layers),
        spatial_kernel_sizes=tuple(layer.kernel_size[0] for layer in layers),
        gamma_input=0.0,
        gamma_temporal=0.0,
        gamma_in_sparse=0.0,
        gamma_hidden=0.0,
        cut_first_n_frames=0,
        input_padding=False,
        hidden_padding=False,
        convolution_type="full",
    )
    handed: list[Handed] = []
    for layer, theirs in zip(ours.core.layers, core.features, strict=True):
        theirs.norm.weight.requires_grad_(False)
        theirs.bias.bias.requires_grad_(False)  # a second shift, still added, but not learned
        handed.append(Handed(layer.convolution.weight, theirs.conv.conv.weight, lambda kernels: kernels[:, :, None]))
        handed.append(_as_it_is(layer.normalize.shift, theirs.norm.bias))
    return core, handed


def _handed_gaussian(ours: Model, readout: nn.Module) -> list[Handed]:
    """Theirs has the column first, and as unit of each axis half its own length."""
    scale = (ours.readout.unit / ours.readout.centre)[:, None]  # (2, 1)
    return [
        Handed(ours.readout.mean, readout._mu, lambda mean: (mean * scale[:, 0].to(mean)).flip(1)[None, :, None]),
        Handed(ours.readout.spread, readout.sigma, lambda a: (a * scale.to(a)).flip(1, 2)[None], compared=False),
        Handed(ours.readout.weights, readout._features, lambda weights: weights.T[None, :, None]),
        _as_it_is(ours.bias, readout.bias),
    ]


def _as_it_is(ours: Tensor, theirs: Tensor) -> Handed:
    return Handed(ours, theirs, lambda value: value)


def _made(peer: Peer) -> Peer:
    peer.hand_over()
    return peer
