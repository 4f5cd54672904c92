"""Configs: the keys with their defaults, how files build on each other, and how YAML is read."""

from maskclippp.config.keys import get_cfg

__all__ = ["get_cfg"]
