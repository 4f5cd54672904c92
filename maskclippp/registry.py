"""The registries of exchangeable parts, which configs select by name."""

from typing import Any

from detectron2.utils.registry import Registry

from maskclippp.errors import InputError

VISUAL_ENCODER_REGISTRY = Registry("VISUAL_ENCODER")
TEXT_ENCODER_REGISTRY = Registry("TEXT_ENCODER")
PSM_REGISTRY = Registry("PSM")
CRITERION_REGISTRY = Registry("CRITERION")
SEGMENTOR_REGISTRY = Registry("SEGMENTOR")


def get_part(registry: Registry, name: str, key: str) -> Any:
    """The class registered as ``name``; an InputError gives the config ``key`` and valid names."""
    if name not in registry:
        names = sorted(entry for entry, _ in registry)
        raise InputError(f"{key}: {name!r} is not one of {names}")
    return registry.get(name)
