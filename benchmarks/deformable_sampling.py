"""Ways to compute deformable sampling: which one is fastest differs between a CPU and a GPU.

``embedding_bag`` is what the package does, ``grid_sample`` the plain formulation, ``triton`` one
kernel, on CUDA only and without gradients.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close

from benchmarks.measure import measure
from benchmarks.plain.pixel_decoder import sample_grids
from maskclippp.generators.mask2former.deformable_attention import sample_multi_scale

Sizes = Sequence[tuple[int, int]]
Way = Callable[[Tensor, Sizes, Tensor, Tensor], Tensor]

# Of images of 800 x 1216 pixels on a GPU; a CPU only tries whether it works.
_GPU_SIZES, _CPU_SIZES = [(25, 38), (50, 76), (100, 152)], [(3, 5), (6, 10)]
_HEADS, _WIDTH, _POINTS = 8, 32, 4


def by_grid_sample(value: Tensor, sizes: Sizes, locations: Tensor, weights: Tensor) -> Tensor:
    """See :func:`sample_multi_scale`."""
    samples = sample_grids(value, sizes, locations)
    share = weights.flatten(-2).transpose(1, 2).flatten(0, 1)[:, None]
    output = (samples * share).sum(dim=-1).unflatten(0, (len(value), -1))  # [B, heads, D, Q]
    return output.flatten(1, 2).transpose(1, 2)


def ways(device: torch.device) -> dict[str, Way]:
    """The ways that a device has, by name; the first is that of the package."""
    found: dict[str, Way] = {"embedding_bag": sample_multi_scale, "grid_sample": by_grid_sample}
    if device.type == "cuda":
        from benchmarks.triton_sampling import by_triton  # PyTorch for CUDA comes with Triton

        found["triton"] = by_triton
    return found


def inputs(device: torch.device, sizes: Sizes) -> tuple[Tensor, Tensor, Tensor]:
    """Values, locations, some of them outside of the maps, and weights; every cell asks."""
    cells = sum(height * width for height, width in sizes)
    shape = (1, cells, _HEADS, len(sizes), _POINTS)
    weights = torch.rand(shape, device=device).flatten(-2).softmax(dim=-1).view(shape)
    locations = torch.rand(*shape, 2, device=device) * 1.2 - 0.1
    return torch.randn(1, cells, _HEADS, _WIDTH, device=device), locations, weights


def check_ways(device: torch.device, repeats: int = 10) -> dict[str, Any]:
    """Whether all ways agree, with gradients where they have them; milliseconds of each."""
    sizes = _GPU_SIZES if device.type == "cuda" else _CPU_SIZES
    value, locations, weights = inputs(device, sizes)
    found = ways(device)
    expected = sample_multi_scale(value, sizes, locations, weights)
    for way in found.values():
        assert_close(way(value, sizes, locations, weights), expected, rtol=1e-3, atol=1e-4)
    first, second = (
        _gradients(way, value, sizes, locations, weights) for way in list(found.values())[:2]
    )
    for ours, other in zip(first, second, strict=True):
        assert_close(ours, other, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        calls = {
            name: lambda way=way: way(value, sizes, locations, weights)
            for name, way in found.items()
        }
        runs = measure(calls, repeats, device)
    return {f"{name}, milliseconds": run.median * 1e3 for name, run in runs.items()}


def _gradients(way: Way, value: Tensor, sizes: Sizes, *others: Tensor) -> tuple[Tensor, ...]:
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (value, *others)]
    result = way(leaves[0], sizes, leaves[1], leaves[2])
    return torch.autograd.grad(result.square().sum(), leaves)
