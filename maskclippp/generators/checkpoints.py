"""Checkpoints of trained generators: where they are published, and how they are loaded."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from detectron2.config import CfgNode
from torch import nn

from maskclippp.errors import InputError, MissingFileError
from maskclippp.files.published import of_file
from maskclippp.files.state_dicts import compare, load_exactly
from maskclippp.files.weights import read_weights

logger = logging.getLogger(__name__)

_HEAD_PREFIX = "sem_seg_head."
_VOID_KEY = "void_embedding.weight"
_QUERIES_KEY = "predictor.query_feat.weight"
_OLD_QUERIES_KEY = "predictor.static_query.weight"

# Weights that ship with the package, by their names in configs.
_SHAPES = Path(__file__).resolve().parents[1] / "data" / "shapes" / "weights"
_SHIPPED = {
    "shapes": _SHAPES / "shapes_fcclip.safetensors",
    "shapes_mask2former": _SHAPES / "shapes_mask2former.safetensors",
}


def check_present(file: str, key: str) -> Path:
    """The path of a generator's checkpoint; names in ``_SHIPPED`` are those of the package.

    Raises:
        MissingFileError: it does not exist; says where it is published and how to get it.
    """
    if file in _SHIPPED:
        return _SHIPPED[file]
    path = Path(file).expanduser()
    if file and path.is_file():
        return path
    if not file:
        raise MissingFileError(
            f"{key}: no checkpoint of the generator is named; give its path, or 'random' for "
            "untrained weights"
        )
    entry = of_file(path)
    advice = "check the path (relative to the working directory, or absolute)"
    if entry is not None:
        advice = entry.how_to_get()
    raise MissingFileError(f"{key}: {path} is not there (looked in {Path.cwd()}); {advice}")


def load_head(parts: Mapping[str, nn.Module], node: CfgNode) -> None:
    """Load the parts of a generator from the checkpoint that its config names.

    Their keys are ``sem_seg_head.*`` and ``void_embedding.weight``; other keys of the checkpoint
    are ignored.

    Args:
        parts: by the first components of their keys, without ``sem_seg_head.``.
        node: the config node SEGMENTOR.

    Raises:
        MissingFileError: see :func:`check_present`.
        InputError: the checkpoint has another architecture; lists the disagreements.
    """
    file, key = node.PRETRAINED, "MODEL.MASKCLIPPP.SEGMENTOR.PRETRAINED"
    if file == "random":
        return
    content = read_weights(check_present(file, key))
    state = {k.removeprefix(_HEAD_PREFIX): v for k, v in content.items() if _is_of_head(k)}
    if _OLD_QUERIES_KEY in state:
        state[_QUERIES_KEY] = state.pop(_OLD_QUERIES_KEY)
    head = nn.ModuleDict(parts)
    found, expected = state.get(_QUERIES_KEY), head.get_parameter(_QUERIES_KEY)
    if found is not None and len(found) != len(expected):
        raise InputError(
            f"{key}: {file} has {len(found)} queries, but MODEL.MASK_FORMER.NUM_OBJECT_QUERIES is "
            f"{len(expected)}; set it to {len(found)}"
        )
    # Extra *layers* mean that the config is too shallow: an error. Keys unlike those of any layer
    # belong to other modules: a warning.
    kinds = {_without_numbers(key) for key in head.state_dict()}
    unexpected = sorted(compare(state, head).unexpected)
    foreign = [key for key in unexpected if _without_numbers(key) not in kinds]
    if foreign:
        examples = foreign[:3]
        logger.warning("%s: %d entries are not used, for example %s", file, len(foreign), examples)
    used = {k: v for k, v in state.items() if k not in foreign}
    load_exactly(head, used, source=file, model_name=node.NAME)


def _without_numbers(key: str) -> str:
    """The kind of parameter that a key names, the same in all layers."""
    return re.sub(r"\d+", "0", key)


def _is_of_head(key: str) -> bool:
    return key.startswith(_HEAD_PREFIX) or key == _VOID_KEY
