"""Single towers of OpenCLIP models with pretrained weights."""

import importlib.util
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import open_clip
import torch
from detectron2.config import CfgNode
from open_clip.model import _build_text_tower, _build_vision_tower
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer
from torch import Tensor, nn

from maskclippp.clip.hub_files import hub_folder
from maskclippp.clip.model_names import model_config, open_clip_name
from maskclippp.clip.pretrained import read_pretrained
from maskclippp.clip.similarity import MAX_LOGIT_SCALE
from maskclippp.clip.weight_layouts import ClipWeights, resize_positions
from maskclippp.errors import InputError, MissingPackageError
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


def load_text_tower(node: CfgNode) -> tuple[nn.Module, Tensor]:
    """The text tower of ``node.MODEL_NAME`` and the model's logit scale (log, scalar)."""
    config = model_config(node.MODEL_NAME)
    text = dict(config["text_cfg"])
    if text.get("hf_model_name"):
        what = f"the text tower of {node.MODEL_NAME!r}"
        require_transformers(what)
        text["hf_model_name"] = str(hub_folder(text["hf_model_name"], what))
        text["hf_model_pretrained"] = False  # weights come from PRETRAINED
    weights = read_pretrained(node, "text")
    tower = _build_text_tower(config["embed_dim"], text, _needs_quick_gelu(config, weights))
    logit_scale = torch.tensor(float(np.log(1 / 0.07)))
    if weights is not None:
        load_exactly(tower, weights.text, source=weights.source, model_name=node.MODEL_NAME)
        if weights.logit_scale is not None:
            logit_scale = weights.logit_scale.float().reshape(())
    return tower, logit_scale


def load_tokenizer(model_name: str) -> Callable[[list[str]], Tensor]:
    """The tokenizer of a CLIP model: sentences -> int64 ids [S, context length].

    Raises:
        MissingFileError: the tokenizer is one of the Hugging Face Hub, and not on this machine.
        MissingPackageError: it needs the package transformers.
        InputError: its files are unusable.
    """
    text = model_config(model_name)["text_cfg"]
    repository = text.get("hf_tokenizer_name")
    if not repository:
        return open_clip.get_tokenizer(open_clip_name(model_name))
    what = f"the tokenizer of {model_name!r}"
    require_transformers(what)
    folder = hub_folder(repository, what)
    try:
        return HFTokenizer(
            str(folder),
            context_length=text.get("context_length", DEFAULT_CONTEXT_LENGTH),
            tokenizer_mode=text.get("tokenizer_mode"),
            **text.get("tokenizer_kwargs", {}),
        )
    except (OSError, ValueError, ImportError) as error:
        raise InputError(
            f"MODEL_NAME: {folder} does not have {what} ({str(error).splitlines()[0]}); it needs "
            f"the files of {repository} on the Hugging Face Hub"
        ) from error


def require_transformers(what: str) -> None:
    """Raise a MissingPackageError if the package transformers is not installed."""
    if importlib.util.find_spec("transformers") is None:
        raise MissingPackageError(
            f"MODEL_NAME: {what} needs the package transformers: pip install "
            "'maskclippp[transformers]'"
        )


def max_logit_scale(model_name: str) -> float:
    """The upper limit of the similarity scale of a model while it is trained.

    100 as in CLIP; models trained with a sigmoid for every pair, such as SigLIP, have no limit,
    and exceed 100.
    """
    return math.inf if "init_logit_bias" in model_config(model_name) else MAX_LOGIT_SCALE


def _needs_quick_gelu(config: dict[str, Any], weights: ClipWeights | None) -> bool:
    """OpenAI's weights need QuickGELU, whatever the model is called in open_clip."""
    return config.get("quick_gelu", False) or (weights is not None and weights.quick_gelu)
