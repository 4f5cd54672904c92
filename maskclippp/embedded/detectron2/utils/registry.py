"""Registries: from names in a config to classes."""

from fvcore.common.registry import Registry

__all__ = ["Registry"]
