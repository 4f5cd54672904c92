"""Configuration: a typed tree of values, and objects that are built from it."""

from detectron2.config.config import CfgNode, get_cfg
from detectron2.config.configurable import configurable

__all__ = ["CfgNode", "configurable", "get_cfg"]
