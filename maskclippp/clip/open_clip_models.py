"""Towers of OpenCLIP models: built one at a time, weights found by tag or path.

``PRETRAINED`` of a config is one of: a tag that open_clip knows for the model (downloaded once),
the path of a file, ``shapes`` for the model that ships with the package, or ``random``.
"""

import difflib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from detectron2.config import CfgNode
from open_clip.factory import get_model_config
from open_clip.model import _build_text_tower, _build_vision_tower
from open_clip.pretrained import download_pretrained, get_pretrained_cfg
from open_clip.pretrained import list_pretrained_tags_by_model as list_tags
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from maskclippp.weights import read_weights

logger = logging.getLogger(__name__)

_PACKAGE = Path(__file__).resolve().parents[1]
_SHIPPED_WEIGHTS = {"shapes": _PACKAGE / "data" / "shapes" / "weights" / "shapes_clip.safetensors"}

open_clip.add_model_config(_PACKAGE / "clip" / "model_configs")

# Keys of a CLIP state dict that belong to neither tower.
_SHARED_KEYS = frozenset({"logit_scale", "logit_bias"})


def load_visual_tower(node: CfgNode) -> nn.Module:
    """The image tower of ``node.MODEL_NAME`` with the weights that the node names."""
    config = model_config(node.MODEL_NAME)
    state = _pretrained_state(node)
    tower = _build_vision_tower(
        config["embed_dim"], config["vision_cfg"], config.get("quick_gelu", False)
    )
    if state is not None:
        visual = {k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")}
        _load_strictly(tower, visual, node)
    return tower


def load_text_tower(node: CfgNode) -> tuple[TextTransformer, Tensor]:
    """The text tower of ``node.MODEL_NAME`` and the model's logit scale (log, scalar)."""
    config = model_config(node.MODEL_NAME)
    if config["text_cfg"].get("hf_model_name"):
        raise ValueError(
            f"TEXT_ENCODER.MODEL_NAME: {node.MODEL_NAME!r} has a Hugging Face text tower, which "
            "CLIPTextEncoder cannot run; choose a model with CLIP's own text tower"
        )
    state = _pretrained_state(node)
    tower = _build_text_tower(
        config["embed_dim"], config["text_cfg"], config.get("quick_gelu", False)
    )
    logit_scale = torch.tensor(float(np.log(1 / 0.07)))
    if state is not None:
        logit_scale = state.get("logit_scale", logit_scale).float().reshape(())
        text = {
            k.removeprefix("text."): v
            for k, v in state.items()
            if not k.startswith("visual.") and k not in _SHARED_KEYS
        }
        # Old files store the causal mask, which follows from the context length.
        text.pop("attn_mask", None)
        _load_strictly(tower, text, node)
    return tower, logit_scale


def load_tokenizer(model_name: str) -> Callable[[list[str]], Tensor]:
    """The tokenizer of an open_clip model: sentences -> int64 ids [S, context length]."""
    tokenizer: Callable[[list[str]], Tensor] = open_clip.get_tokenizer(model_name)
    return tokenizer


def model_config(model_name: str) -> dict[str, Any]:
    """open_clip's configuration of a model; a ValueError names the nearest valid names."""
    config = get_model_config(model_name)
    if config is None:
        names = open_clip.list_models()
        near = difflib.get_close_matches(model_name, names, n=3, cutoff=0.4)
        raise ValueError(
            f"MODEL_NAME: {model_name!r} is not a model of open_clip"
            + (f"; did you mean {' or '.join(near)}?" if near else f"; valid names: {names}")
        )
    return dict(config)


def embedding_width(model_name: str) -> int:
    """Width D of the joint embedding of an open_clip model."""
    return int(model_config(model_name)["embed_dim"])


def _pretrained_state(node: CfgNode) -> dict[str, Tensor] | None:
    """The CLIP state dict that PRETRAINED and LOAD_FROM name; None for random weights."""
    state = None
    if node.PRETRAINED != "random":
        path = _find_pretrained(node.MODEL_NAME, node.PRETRAINED)
        logger.info("Loading %s from %s", node.MODEL_NAME, path)
        state = read_weights(path)
    if node.LOAD_FROM:
        extra = read_weights(Path(node.LOAD_FROM).expanduser())
        prefix = node.LOAD_BEG_KEY
        chosen = {k.removeprefix(prefix): v for k, v in extra.items() if k.startswith(prefix)}
        if not chosen:
            raise ValueError(
                f"LOAD_FROM: no key of {node.LOAD_FROM} starts with LOAD_BEG_KEY {prefix!r}; "
                f"the file has for example {sorted(extra)[:3]}"
            )
        state = {**(state or {}), **chosen}
    return state


def _find_pretrained(model_name: str, pretrained: str) -> Path:
    if pretrained in _SHIPPED_WEIGHTS:
        return _SHIPPED_WEIGHTS[pretrained]
    path = Path(pretrained).expanduser()
    if pretrained and path.is_file():
        return path
    settings = get_pretrained_cfg(model_name, pretrained) if pretrained else None
    if not settings:
        raise ValueError(
            f"PRETRAINED: {pretrained!r} is neither an existing file nor a tag of {model_name!r}; "
            f"its tags are {list_tags(model_name) or 'none'}, 'random' gives untrained weights"
        )
    try:
        return Path(download_pretrained(settings))
    except (OSError, RuntimeError) as error:
        origin = settings.get("hf_hub") or settings.get("url")
        raise FileNotFoundError(
            f"PRETRAINED: the weights {pretrained!r} of {model_name!r} are not on this machine and "
            f"could not be downloaded ({error}). Download {origin} elsewhere, copy the file here "
            "and set PRETRAINED to its path"
        ) from error


def _load_strictly(tower: nn.Module, state: dict[str, Tensor], node: CfgNode) -> None:
    """Load ``state`` so that every key is used exactly once, or list what disagrees."""
    own = tower.state_dict()
    problems = [f"missing {key}" for key in own if key not in state]
    problems += [f"unexpected {key}" for key in state if key not in own]
    problems += [
        f"{key}: expected shape {list(own[key].shape)}, found {list(value.shape)}"
        for key, value in state.items()
        if key in own and own[key].shape != value.shape
    ]
    if problems:
        shown = "\n  ".join(problems[:10])
        raise ValueError(
            f"the weights {node.PRETRAINED!r} do not fit {node.MODEL_NAME!r} "
            f"({len(problems)} disagreements):\n  {shown}"
        )
    tower.load_state_dict(state)
