"""The default configuration, read from ``defaults.yaml`` with its tuples restored."""

from pathlib import Path
from typing import Any

import yaml

CONFIG_VERSION = 2
"""Version of the key layout; assumed for files without a VERSION."""

# YAML has no tuples. A merged value must have the type of the default, so these must be tuples.
_TUPLE_KEYS = (
    "MODEL.RPN.BBOX_REG_WEIGHTS",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS",
    "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS",
    "MODEL.ROI_BOX_CASCADE_HEAD.IOUS",
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS",
    "MODEL.RETINANET.BBOX_REG_WEIGHTS",
    "INPUT.MIN_SIZE_TRAIN",
    "DATASETS.TRAIN",
    "DATASETS.PROPOSAL_FILES_TRAIN",
    "DATASETS.TEST",
    "DATASETS.PROPOSAL_FILES_TEST",
    "SOLVER.STEPS",
    "TEST.AUG.MIN_SIZES",
)


def default_values() -> dict[str, Any]:
    """A fresh nested dictionary of every default value."""
    text = Path(__file__).with_name("defaults.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    for full_key in _TUPLE_KEYS:
        *parents, key = full_key.split(".")
        node = values
        for parent in parents:
            node = node[parent]
        node[key] = _as_tuple(node[key])
    return values


def _as_tuple(value: list[Any]) -> tuple[Any, ...]:
    return tuple(_as_tuple(item) if isinstance(item, list) else item for item in value)
