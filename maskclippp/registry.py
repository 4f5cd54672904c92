"""Exchangeable parts: their base class and the registries from which configs select by name."""

from abc import ABC
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.utils.registry import Registry
from torch import nn

from maskclippp.errors import check_choice

VISUAL_ENCODER_REGISTRY = Registry("VISUAL_ENCODER")
TEXT_ENCODER_REGISTRY = Registry("TEXT_ENCODER")
PSM_REGISTRY = Registry("PSM")
CRITERION_REGISTRY = Registry("CRITERION")
SEGMENTOR_REGISTRY = Registry("SEGMENTOR")


class Part(nn.Module, ABC):
    """A part that is built from the complete config, ``SomePart(cfg)``, or from plain values.

    A part with settings has a constructor of its own, decorated with ``configurable``, and returns
    its arguments from ``from_config``.
    """

    @configurable
    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:  # noqa: ARG003  subclasses read it
        """Arguments of the constructor; none by default."""
        return {}


def get_part(registry: Registry, name: str, key: str) -> Any:
    """The class registered as ``name``; an InputError gives the config ``key`` and valid names."""
    check_choice(f"{key}:", name, sorted(entry for entry, _ in registry))
    return registry.get(name)
