"""Single towers of OpenCLIP models with pretrained weights."""

from collections.abc import Callable
from typing import Any

import numpy as np
import open_clip
import torch
from detectron2.config import CfgNode
from open_clip.model import _build_text_tower, _build_vision_tower
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from maskclippp.clip.model_names import model_config, open_clip_name
from maskclippp.clip.pretrained import read_pretrained
from maskclippp.clip.weight_layouts import ClipWeights, resize_positions
from maskclippp.errors import InputError
from maskclippp.files.state_dicts import load_exactly


def load_visual_tower(node: CfgNode) -> nn.Module:
    """The image tower of ``node.MODEL_NAME`` with the weights of ``node.PRETRAINED``."""
    config = model_config(node.MODEL_NAME)
    weights = read_pretrained(node, "visual")
    tower = _build_vision_tower(
        config["embed_dim"], config["vision_cfg"], _needs_quick_gelu(config, weights)
    )
    if weights is not None:
        visual = resize_positions(weights.visual, tower, source=weights.source)
        load_exactly(tower, visual, source=weights.source, model_name=node.MODEL_NAME)
    return tower


def load_text_tower(node: CfgNode) -> tuple[TextTransformer, Tensor]:
    """The text tower of ``node.MODEL_NAME`` and the model's logit scale (log, scalar)."""
    config = model_config(node.MODEL_NAME)
    if config["text_cfg"].get("hf_model_name"):
        raise InputError(
            f"TEXT_ENCODER.MODEL_NAME: {node.MODEL_NAME!r} has a Hugging Face text tower, which "
            f"{node.NAME} cannot run; choose a model with CLIP's own text tower"
        )
    weights = read_pretrained(node, "text")
    tower = _build_text_tower(
        config["embed_dim"], config["text_cfg"], _needs_quick_gelu(config, weights)
    )
    logit_scale = torch.tensor(float(np.log(1 / 0.07)))
    if weights is not None:
        load_exactly(tower, weights.text, source=weights.source, model_name=node.MODEL_NAME)
        if weights.logit_scale is not None:
            logit_scale = weights.logit_scale.float().reshape(())
    return tower, logit_scale


def load_tokenizer(model_name: str) -> Callable[[list[str]], Tensor]:
    """The tokenizer of a CLIP model: sentences -> int64 ids [S, context length]."""
    return open_clip.get_tokenizer(open_clip_name(model_name))


def _needs_quick_gelu(config: dict[str, Any], weights: ClipWeights | None) -> bool:
    """OpenAI's weights need QuickGELU, whatever the model is called in open_clip."""
    return config.get("quick_gelu", False) or (weights is not None and weights.quick_gelu)
