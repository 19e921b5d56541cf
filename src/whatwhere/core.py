"""The core: convolutions shared by all neurons, which compute *what* there is at every position of the image."""

import math

import torch
from scipy.fft import next_fast_len
from torch import Tensor, nn
from torch.nn import functional

from whatwhere.config import CoreOptions, LayerShape
from whatwhere.errors import InputError
from whatwhere.parallel import ALONE, Parallel
from whatwhere.penalties import group_slopes, group_sparsity, kernel_norms, smoothness

NONLINEARITIES = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "softplus": nn.Softplus,
    "elu": nn.ELU,
}


_MOST_PLANES = 4
"""Pairs of input and output map up to which a large kernel is cheaper by Fourier transforms, measured on a CPU."""
_LEAST_PIXELS = 81
"""Of such a kernel."""


class UnitBatchNorm(nn.Module):
    """Batch normalisation to unit variance: an optional learned shift, never a learned scale.

    A learned scale would let the core grow its maps and so escape the penalty on the masks. Processes that share a
    batch normalise by the statistics of all of it.
    """

    parallel: Parallel = ALONE

    def __init__(self, n_maps: int, shift: bool, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.eps = 1e-5
        self.register_buffer("running_mean", torch.zeros(n_maps))
        self.register_buffer("running_var", torch.ones(n_maps))
        self.register_buffer("scale", torch.ones(n_maps), persistent=False)
        self.shift = nn.Parameter(torch.zeros(n_maps)) if shift else None
        self.running_mean: Tensor
        self.running_var: Tensor
        self.scale: Tensor

    def forward(self, maps: Tensor) -> Tensor:  # (n_images, K, h, w)
        if self.training and self.parallel.size > 1:
            return self._shared(maps)
        return functional.batch_norm(
            maps,
            self.running_mean,
            self.running_var,
            self.scale,
            self.shift,
            training=self.training,
            momentum=self.momentum,
            eps=self.eps,
        )

    def _shared(self, maps: Tensor) -> Tensor:
        """By the mean and variance over the images of all processes, through which gradients pass."""
        each = maps.float()
        count = each.new_full((1,), each.numel() / each.shape[1])
        total, count = self.parallel.sum(torch.cat([each.sum((0, 2, 3)), count])).split([each.shape[1], 1])
        mean = total / count
        centred = each - mean.view(-1, 1, 1)
        variance = self.parallel.sum(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        normalised = centred * (variance + self.eps).rsqrt().view(-1, 1, 1)
        shifted = normalised if self.shift is None else normalised + self.shift.view(-1, 1, 1)
        return shifted.to(maps.dtype)


class Layer(nn.Module):
    """Convolution, batch normalisation, nonlinearity: maps (n, K_in, h, w) to (n, K, h', w')."""

    def __init__(self, n_inputs: int, shape: LayerShape, options: CoreOptions, last: bool) -> None:
        super().__init__()
        bias = options.batch_norm_shift and not options.batch_norm  # else the normalisation shifts, or nothing does
        before, padding = _padding(shape)
        self.padding = padding
        self.by_fourier = (
            shape.padding == "valid"
            and not (shape.separable or bias)
            and n_inputs * shape.n_maps <= _MOST_PLANES
            and math.prod(shape.kernel_size) >= _LEAST_PIXELS
        )
        self.pad = nn.ZeroPad2d(before) if any(before) else nn.Identity()
        self.depthwise: nn.Conv2d | None = None
        if shape.separable:
            self.depthwise = nn.Conv2d(
                n_inputs, n_inputs, shape.kernel_size, padding=padding, groups=n_inputs, bias=False
            )
            self.convolution = nn.Conv2d(n_inputs, shape.n_maps, 1, bias=bias)
        else:
            self.convolution = nn.Conv2d(n_inputs, shape.n_maps, shape.kernel_size, padding=padding, bias=bias)
        self.normalize = (
            UnitBatchNorm(shape.n_maps, options.batch_norm_shift, options.batch_norm_momentum)
            if options.batch_norm
            else nn.Identity()
        )
        self.nonlinearity = NONLINEARITIES[options.last_nonlinearity if last else options.nonlinearity]()
        if hasattr(self.nonlinearity, "inplace"):
            self.nonlinearity.inplace = True  # nothing else needs its input: one tensor of maps less a layer

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.pad(maps)
        if self.depthwise is not None:
            maps = self.depthwise(maps)  # (n_images, K_in, h', w')
        if self.by_fourier and maps.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            maps = fourier_correlation(maps, self.convolution.weight)
        else:
            maps = self.convolution(maps)
        return self.nonlinearity(self.normalize(maps))  # (n_images, K, h', w')

    def padded(self, maps: Tensor) -> Tensor:
        """Maps with all the zeros around them that the spatial kernels reach: (n, K_in, h' + kh - 1, w' + kw - 1)."""
        rows, columns = self.padding
        padded: Tensor = functional.pad(self.pad(maps), (columns, columns, rows, rows))
        return padded

    def spatial_kernels(self) -> Tensor:
        """The weights that have extent in space: (K, K_in, height, width), or (K_in, 1, height, width) if separable."""
        return self.convolution.weight if self.depthwise is None else self.depthwise.weight

    def group_norms(self) -> Tensor:
        """|W_kl|_2 for each map k and input map l, (K, K_in)."""
        if self.depthwise is None:
            return kernel_norms(self.convolution.weight)
        pointwise = self.convolution.weight[:, :, 0, 0].abs()  # (K, K_in)
        return pointwise * kernel_norms(self.depthwise.weight)[:, 0]


def fourier_correlation(maps: Tensor, kernels: Tensor) -> Tensor:
    """The valid correlation out_k = sum_l maps_l * kernels_kl as a product of Fourier transforms.

    maps: (n_images, K_in, h, w), kernels: (K, K_in, kh, kw); returns (n_images, K, h - kh + 1, w - kw + 1). For one
    large kernel on the CPU several times as fast as the direct sum. Circular, but the valid part does not wrap around.
    """
    (height, width), (kernel_height, kernel_width) = maps.shape[-2:], kernels.shape[-2:]
    size = next_fast_len(height, real=True), next_fast_len(width, real=True)
    spectra = torch.fft.rfft2(maps, s=size)[:, None]  # (n_images, 1, K_in, ...)
    products = spectra * torch.fft.rfft2(kernels, s=size).conj()  # (n_images, K, K_in, ...)
    correlated = torch.fft.irfft2(products.squeeze(2) if maps.shape[1] == 1 else products.sum(2), s=size)
    return correlated[..., : height - kernel_height + 1, : width - kernel_width + 1]


def _padding(shape: LayerShape) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """Zeros to add before the convolution (left, right, top, bottom), and those that it adds itself (rows, columns).

    Same padding adds k - 1 in all: evenly for an odd kernel, which the convolution does itself; for an even one the
    extra pixel comes last.
    """
    height, width = shape.kernel_size
    if shape.padding == "valid":
        return (0, 0, 0, 0), (0, 0)
    if height % 2 and width % 2:
        return (0, 0, 0, 0), (height // 2, width // 2)
    return ((width - 1) // 2, width // 2, (height - 1) // 2, height // 2), (0, 0)


class Core(nn.Module):
    """c = layer_L(... layer_1(x)): images (n_images, C, H, W) to feature maps (n_images, K, h, w).

    Raises `InputError` where a kernel is larger than the maps that it meets.
    """

    def __init__(self, options: CoreOptions, n_channels: int, height: int, width: int) -> None:
        super().__init__()
        self.options = options
        self.output_shape = output_shape(options, height, width)
        layers, n_inputs = [], n_channels
        for number, shape in enumerate(options.layers(), start=1):
            layers.append(Layer(n_inputs, shape, options, last=number == options.n_layers))
            n_inputs = shape.n_maps
        self.layers: list[Layer] = nn.ModuleList(layers)  # type: ignore[assignment]  # typed by what it holds

    def forward(self, images: Tensor) -> Tensor:
        maps = images  # (n_images, C, H, W)
        if maps.device.type == "cpu":  # with the maps innermost in memory the CPU's convolutions are faster
            maps = maps.to(memory_format=torch.channels_last)
        for layer in self.layers:
            maps = layer(maps)
        return maps  # (n_images, K, h, w)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Draws every kernel from N(0, kernel_std^2), on the CPU so that every device starts alike; the rest is 0."""
        for parameter in self.parameters():
            drawn = torch.zeros(parameter.shape)
            if parameter.ndim == 4:
                drawn.normal_(0.0, self.options.kernel_std, generator=generator)
            parameter.copy_(drawn)

    def smoothness(self, relative: bool) -> Tensor:
        """Squared Laplacian of the first layer's kernels."""
        return smoothness(self.layers[0].spatial_kernels(), relative)

    def group_sparsity(self, relative: bool, *, smooth_only: bool = False) -> Tensor:
        """Sum over the later layers of the norms of their kernels; `smooth_only`: but for the part that `shrunken` has.

        What is left then is that a relative penalty falls as the whole kernel grows.
        """
        later = [group_sparsity(layer.group_norms(), relative, smooth_only) for layer in self.layers[1:]]
        return torch.stack(later).sum() if later else next(self.parameters()).new_zeros(())

    @torch.no_grad()
    def shrunken(self, strength: float, relative: bool) -> list[tuple[Tensor, Tensor]]:
        """What group sparsity of this strength shrinks, with the derivative of the penalty by the norm of each kernel.

        The derivatives are (K, K_in) for weights (K, K_in, height, width); of a separable layer those of each factor
        hold the other as it is.
        """
        found: list[tuple[Tensor, Tensor]] = []
        for layer in self.layers[1:] if strength else ():
            norms = layer.group_norms()
            by_norm = strength * group_slopes(norms, relative)  # (K, 1)
            weight = layer.convolution.weight
            if layer.depthwise is None:
                found.append((weight, by_norm.expand_as(norms)))
                continue
            kernels = kernel_norms(layer.depthwise.weight)[:, 0]  # (K_in,)
            found.append((weight, by_norm * kernels))
            pointwise = weight[:, :, 0, 0].abs()  # (K, K_in)
            found.append((layer.depthwise.weight, (by_norm * pointwise).sum(0)[:, None]))
        return found


def output_shape(options: CoreOptions, height: int, width: int) -> tuple[int, int, int]:
    """(K, h, w) of the feature maps for images of height x width pixels.

    Raises `InputError` where a kernel is larger than the map that it meets.

    >>> output_shape(CoreOptions(), 36, 64)
    (16, 28, 56)
    """
    for number, layer in enumerate(options.layers(), start=1):
        kernel_height, kernel_width = layer.kernel_size
        if kernel_height > height or kernel_width > width:
            raise InputError(
                f"the kernel of layer {number} ({kernel_height} x {kernel_width} pixels) is larger than the map that"
                f" it meets ({height} x {width}): choose smaller kernel_sizes, or padding 'same' in earlier layers."
            )
        if layer.padding == "valid":
            height, width = height - kernel_height + 1, width - kernel_width + 1
    return options.layers()[-1].n_maps, height, width


def map_offset(options: CoreOptions) -> tuple[float, float]:
    """(row, column) in image pixels of the field centre of the feature maps' first pixel.

    Pixel (i, j) of a map looks at the image around (i + row, j + column). A valid kernel of size k moves the centre
    by (k - 1) / 2; with same padding the field is centred, but for even kernels, whose extra pixel of padding is
    last, by half a pixel.

    >>> map_offset(CoreOptions(kernel_sizes=(9, 4), padding=("valid", "same")))
    (4.5, 4.5)
    """
    row = column = 0.0
    for layer in options.layers():
        (kernel_height, kernel_width), same = layer.kernel_size, layer.padding == "same"
        row += (kernel_height - 1) / 2 - (kernel_height - 1) // 2 * same
        column += (kernel_width - 1) / 2 - (kernel_width - 1) // 2 * same
    return row, column


def receptive_field(options: CoreOptions) -> tuple[int, int]:
    """(height, width) in image pixels of what one pixel of the feature maps sees.

    >>> receptive_field(CoreOptions(kernel_sizes=(9, (4, 3)), n_maps=2))
    (12, 11)
    """
    sizes = [layer.kernel_size for layer in options.layers()]
    return 1 + sum(height - 1 for height, _ in sizes), 1 + sum(width - 1 for _, width in sizes)
