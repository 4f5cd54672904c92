"""Depthwise convolutions: outputs and gradients are those of PyTorch's own."""

import copy

import pytest
import torch
from torch import nn

from maskclippp.clip.depthwise import DepthwiseConv2d, use_fast_depthwise


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def run(convolution, maps):
    """Output and gradients of maps and parameters."""
    maps = maps.clone(memory_format=torch.preserve_format).requires_grad_()
    output = convolution(maps)
    output.backward(torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output))
    gradients = [maps.grad, *(parameter.grad for parameter in convolution.parameters())]
    convolution.zero_grad()
    return output, gradients


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("kernel", "padding", "bias"),
    [(7, 3, True), (5, 2, False), ((5, 7), (1, 0), True), (4, 3, True)],
)
def test_gradients_are_those_of_a_convolution(kernel, padding, bias, layout):
    usual = nn.Conv2d(6, 6, kernel, padding=padding, groups=6, bias=bias).double()
    fast = DepthwiseConv2d.of(copy.deepcopy(usual))
    maps = torch.randn(3, 6, 13, 9, dtype=torch.float64).to(memory_format=layout)
    expected, found = run(usual, maps), run(fast, maps)
    torch.testing.assert_close(found, expected)


def test_gradients_of_many_images_are_summed_precisely():
    """In bfloat16 every image would be rounded."""
    fast = DepthwiseConv2d.of(nn.Conv2d(8, 8, 7, padding=3, groups=8, bias=False))
    maps = torch.randn(32, 8, 20, 20).bfloat16()
    exact = run(copy.deepcopy(fast).double(), maps.double())[1][1]
    found = run(copy.deepcopy(fast).bfloat16(), maps)[1][1].double()
    assert (found - exact).norm() / exact.norm() < 0.006


def test_only_wanted_gradients_are_computed():
    fast = DepthwiseConv2d.of(nn.Conv2d(4, 4, 7, padding=3, groups=4))
    maps = torch.randn(1, 4, 8, 8, requires_grad=True)
    fast.requires_grad_(False)
    fast(maps).sum().backward()
    assert maps.grad is not None
    assert all(parameter.grad is None for parameter in fast.parameters())
    fast.requires_grad_(True)
    fast(maps.detach()).sum().backward()
    assert all(parameter.grad is not None for parameter in fast.parameters())


def test_autocast_decides_the_type():
    fast = DepthwiseConv2d.of(nn.Conv2d(4, 4, 7, padding=3, groups=4))
    maps = torch.randn(2, 4, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        output, gradients = run(fast, maps)
    assert output.dtype == torch.bfloat16
    assert {gradient.dtype for gradient in gradients} == {torch.float32}
    torch.testing.assert_close(gradients, run(fast, maps)[1], rtol=0.02, atol=0.2)


def test_convolutions_of_other_kinds_stay():
    network = nn.Sequential(
        nn.Conv2d(4, 4, 7, padding=3, groups=4),
        nn.Sequential(nn.Conv2d(4, 4, 7, padding=3, groups=4, stride=2)),
        nn.Conv2d(4, 4, 3, padding=1, groups=4),
        nn.Conv2d(4, 4, 5, groups=4, padding="same"),
        nn.Conv2d(4, 4, 5, groups=4, padding=5),
        nn.Conv2d(4, 4, 5, groups=4, padding=2, padding_mode="reflect"),
        nn.Conv2d(4, 8, 7, padding=3),
    )
    names, weights = list(network.state_dict()), list(network.parameters())
    maps = torch.randn(1, 4, 20, 20)
    expected = network(maps)
    use_fast_depthwise(network)
    replaced = [name for name, m in network.named_modules() if isinstance(m, DepthwiseConv2d)]
    assert replaced == ["0"]
    assert list(network.state_dict()) == names
    assert all(a is b for a, b in zip(network.parameters(), weights, strict=True))
    torch.testing.assert_close(network(maps), expected, rtol=0, atol=0)
