"""Checkpoints of trained generators: where they are published, and how a head takes its weights."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from detectron2.config import CfgNode
from torch import nn

from maskclippp.clip.weight_layouts import load_exactly
from maskclippp.errors import InputError, MissingFileError
from maskclippp.files.weights import read_weights

logger = logging.getLogger(__name__)

_HEAD_PREFIX = "sem_seg_head."
_VOID_KEY = "void_embedding.weight"
_QUERIES_KEY = "predictor.query_feat.weight"
_OLD_QUERIES_KEY = "predictor.static_query.weight"

# Weights that ship with the package, by the names that configs give them.
_SHAPES = Path(__file__).resolve().parents[1] / "data" / "shapes" / "weights"
_SHIPPED = {
    "shapes": _SHAPES / "shapes_fcclip.safetensors",
    "shapes_mask2former": _SHAPES / "shapes_mask2former.safetensors",
}

_MASK2FORMER = "https://dl.fbaipublicfiles.com/maskformer/mask2former/coco/panoptic"
_FCCLIP_PAGE = "https://github.com/bytedance/fc-clip"
_MAFTP_PAGE = "https://github.com/jiaosiyu1999/MAFT-Plus"
# File names of the published configs, and where the files come from: an address of the file
# itself, or the page that links to it.
_ORIGINS = {
    "maskformer2_swin_tiny_bs16_50ep_final_9fd0ae.pkl": (
        f"{_MASK2FORMER}/maskformer2_swin_tiny_bs16_50ep/model_final_9fd0ae.pkl"
    ),
    "maskformer2_swin_large_IN21k_384_bs16_100ep_final_f07440.pkl": (
        f"{_MASK2FORMER}/maskformer2_swin_large_IN21k_384_bs16_100ep/model_final_f07440.pkl"
    ),
    "fcclip_coco-pan_clip-convnext-base.pth": _FCCLIP_PAGE,
    "fcclip_coco-pan_clip-convnext-large.pth": _FCCLIP_PAGE,
    "maftp_b.pth": _MAFTP_PAGE,
    "maftp_l.pth": _MAFTP_PAGE,
    "maftp_l_pano.pth": _MAFTP_PAGE,
}


def check_present(file: str, key: str) -> Path:
    """The path of a generator's checkpoint; ``shapes`` names the one that ships with the package.

    Raises:
        FileNotFoundError: it is not there; says where it is published and how to get it.
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
    origin = _ORIGINS.get(path.name)
    if origin is None:
        advice = "check the path (relative to the working directory, or absolute)"
    elif origin.endswith(path.suffix):
        advice = f"download it: mkdir -p {path.parent} && curl -L -o {path} {origin}"
    else:
        advice = f"download it by the link on {origin} and put it there"
    raise MissingFileError(f"{key}: {path} is not there (looked in {Path.cwd()}); {advice}")


def load_head(parts: Mapping[str, nn.Module], node: CfgNode) -> None:
    """Load the parts of a generator from the checkpoint that its config names.

    They are the keys ``sem_seg_head.*`` and ``void_embedding.weight``; what else the checkpoint
    holds is somebody else's.

    Args:
        parts: by the first components of their keys, without ``sem_seg_head.``.
        node: the config node SEGMENTOR.

    Raises:
        FileNotFoundError: see :func:`check_present`.
        ValueError: the checkpoint is of another architecture; lists what disagrees.
    """
    file, key = node.PRETRAINED, "MODEL.MASKCLIPPP.SEGMENTOR.PRETRAINED"
    if file == "random":
        return
    content = read_weights(check_present(file, key))
    state = {k.removeprefix(_HEAD_PREFIX): v for k, v in content.items() if _is_of_head(k)}
    if _OLD_QUERIES_KEY in state:
        state[_QUERIES_KEY] = state.pop(_OLD_QUERIES_KEY)
    head = nn.ModuleDict(parts)
    own = head.state_dict()
    found, expected = state.get(_QUERIES_KEY), own[_QUERIES_KEY]
    if found is not None and len(found) != len(expected):
        raise InputError(
            f"{key}: {file} has {len(found)} queries, but MODEL.MASK_FORMER.NUM_OBJECT_QUERIES is "
            f"{len(expected)}; set it to {len(found)}"
        )
    unused = sorted(state.keys() - own.keys())
    # Layers beyond those of the config would be missed; what no layer resembles, nobody misses.
    kinds = {_without_numbers(name) for name in own}
    foreign = [name for name in unused if _without_numbers(name) not in kinds]
    if foreign:
        examples = foreign[:3]
        logger.warning("%s: %d entries are not used, for example %s", file, len(foreign), examples)
    used = {k: v for k, v in state.items() if k not in foreign}
    load_exactly(head, used, source=file, model_name=node.NAME)


def _without_numbers(key: str) -> str:
    """What kind of parameter a key names, in whichever layer."""
    return re.sub(r"\d+", "0", key)


def _is_of_head(key: str) -> bool:
    return key.startswith(_HEAD_PREFIX) or key == _VOID_KEY
