"""Weights in the precision of autocast, which otherwise converts them in every call."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from maskclippp.clip.visual_encoder import VisualEncoder

# What autocast computes in half precision.
_LAYERS = (nn.Linear, nn.Conv2d)


@contextmanager
def converted_weights(modules: Iterable[nn.Module], dtype: torch.dtype) -> Iterator[None]:
    """Within, image towers hold the weights of linear layers and convolutions in ``dtype``.

    Under autocast of this type, results are the same to the bit. The parameters themselves stay as
    they are, with their gradients and hooks: others take their places, which are not trained. Until
    the end, state dicts have the others.

    Args:
        modules: image towers, and modules that have some.
    """
    kept: list[tuple[nn.Module, str, nn.Parameter]] = []
    converted: dict[nn.Parameter, nn.Parameter] = {}  # towers may share them
    towers = {m for module in modules for m in module.modules() if isinstance(m, VisualEncoder)}
    try:
        for layer in {m for tower in towers for m in tower.modules() if isinstance(m, _LAYERS)}:
            for name, parameter in list(layer.named_parameters(recurse=False)):
                if parameter not in converted:
                    half = parameter.detach().to(dtype)
                    converted[parameter] = nn.Parameter(half, requires_grad=False)
                kept.append((layer, name, parameter))
                setattr(layer, name, converted[parameter])
        yield
    finally:
        for holder, name, parameter in kept:
            setattr(holder, name, parameter)
