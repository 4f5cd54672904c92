"""The default configuration: detectron2's keys and ours, which ``keys.yaml`` lists and explains."""

import copy
import functools
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.config import get_cfg as get_detectron2_cfg

from maskclippp.config.yaml_files import read_yaml


def get_cfg() -> CfgNode:
    """The complete default configuration; nothing in it is shared with another one."""
    cfg = get_detectron2_cfg()
    defaults = _read_defaults()
    _add(cfg, {key: value for key, value in defaults.items() if key != "INERT_KEYS"})
    for keys in defaults["INERT_KEYS"].values():
        for full_key, default in keys.items():
            *sections, key = full_key.split(".")
            _add(functools.reduce(getattr, sections, cfg), {key: default})
    return cfg


def inert_keys() -> dict[str, dict[str, Any]]:
    """Keys that are accepted but never read: reason -> full keys with their defaults."""
    return copy.deepcopy(_read_defaults()["INERT_KEYS"])


@functools.cache
def _read_defaults() -> dict[str, Any]:
    return read_yaml(Path(__file__).with_name("keys.yaml"))


def _add(node: CfgNode, values: dict[str, Any]) -> None:
    """Add keys to a section, in place; sections that do not exist are made."""
    for key, value in values.items():
        if isinstance(value, dict):
            _add(node.setdefault(key, CfgNode()), value)
        else:
            node[key] = copy.deepcopy(value)
