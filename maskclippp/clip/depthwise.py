"""Depthwise convolutions whose kernels are trained fast on a CPU.

The gradient of a kernel is itself a depthwise convolution: of the input, with the output's gradient
as its large kernel. For kernels above 3 x 3, PyTorch's own formulation took 6 to 13 times as long
on the CPU with AVX512 where it was measured: in bfloat16, half of a training step.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# PyTorch calls oneDNN on such CPUs, with AVX2 as well, where it was not measured.
FASTER_HERE = torch.backends.cpu.get_cpu_capability().startswith("AVX")


class DepthwiseConv2d(nn.Conv2d):
    """A convolution of every channel by itself, with stride and dilation 1 and zero padding."""

    @classmethod
    def replaces(cls, convolution: nn.Conv2d) -> bool:
        """Whether it is such a convolution, with a kernel that is worth it."""
        return (
            type(convolution) is nn.Conv2d
            and convolution.groups == convolution.in_channels == convolution.out_channels
            and min(convolution.kernel_size) > 3
            and convolution.stride == convolution.dilation == (1, 1)
            and convolution.padding_mode == "zeros"
            and not isinstance(convolution.padding, str)
            and all(
                p < k for p, k in zip(convolution.padding, convolution.kernel_size, strict=True)
            )
        )

    @classmethod
    def of(cls, convolution: nn.Conv2d) -> "DepthwiseConv2d":
        """The same convolution, with the same parameters."""
        channels = convolution.in_channels
        sizes: Any = {"kernel_size": convolution.kernel_size, "padding": convolution.padding}
        made = cls(channels, channels, groups=channels, device="meta", **sizes)
        made.weight, made.bias = convolution.weight, convolution.bias
        return made

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, h', w']."""
        if input.device.type != "cpu" or not FASTER_HERE or not torch.is_grad_enabled():
            return super().forward(input)
        dtype = input.dtype
        if torch.is_autocast_enabled("cpu") and dtype != torch.float64:
            dtype = torch.get_autocast_dtype("cpu")
        arguments = (None if a is None else a.to(dtype) for a in (input, self.weight, self.bias))
        apply: Any = _DepthwiseConvolution.apply  # PyTorch does not type it
        output: Tensor = apply(*arguments, self.padding)
        return output


class _DepthwiseConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, kernels: Tensor, bias: Tensor | None, padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(maps, kernels)
        ctx.padding = padding
        return F.conv2d(maps, kernels, bias, padding=padding, groups=len(kernels))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, kernels = ctx.saved_tensors
        of_maps = of_kernels = of_bias = None
        if ctx.needs_input_grad[0]:
            rest = [k - 1 - p for k, p in zip(kernels.shape[2:], ctx.padding, strict=True)]
            flipped = kernels.flip(2, 3)
            of_maps = F.conv2d(gradient, flipped, padding=rest, groups=len(kernels))
        if ctx.needs_input_grad[1]:
            wide = torch.promote_types(kernels.dtype, torch.float32)  # for the sum over images
            total = torch.zeros_like(kernels, dtype=wide)
            for pair in zip(maps, gradient, strict=True):
                image, kernel = map(_channels_first, pair)
                total += F.conv2d(
                    image[None], kernel[:, None], padding=ctx.padding, groups=len(kernels)
                )[0, :, None]
            of_kernels = total.to(kernels.dtype)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_maps, of_kernels, of_bias, None


def _channels_first(image: Tensor) -> Tensor:
    """Contiguous [C, h, w]; as a matrix it is transposed 6 times as fast."""
    return image.flatten(1).contiguous().view(image.shape)


def use_fast_depthwise(network: nn.Module) -> None:
    """Put :class:`DepthwiseConv2d` in the place of each such convolution of a network."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and DepthwiseConv2d.replaces(child):
                setattr(parent, name, DepthwiseConv2d.of(child))
