"""Weight files of tiny CLIP models in the layouts that real ones are published in."""

from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor

from maskclippp.clip.eva_keys import to_published_keys
from maskclippp.clip.model_names import model_config
from maskclippp.clip.open_clip_models import load_text_tower, load_visual_tower
from tests import tiny_eva
from tests.tiny_models import MODEL_NAME, tiny_config

EVA_MODELS = ("EVA01-tiny", "EVA02-tiny")
LOGIT_SCALE = 3.25


def node(pretrained: object, model_name: str = MODEL_NAME, **options: Any) -> CfgNode:
    """A config node from which both towers can be loaded."""
    made = tiny_config().MODEL.MASKCLIPPP.VISUAL_ENCODER
    made.MODEL_NAME, made.PRETRAINED = model_name, str(pretrained)
    for key, value in options.items():
        made[key] = value
    return made


def open_clip_state(model_name: str = MODEL_NAME) -> dict[str, Tensor]:
    """A complete random state dict in open_clip's layout."""
    visual = load_visual_tower(node("random", model_name)).state_dict()
    text = load_text_tower(node("random", model_name))[0].state_dict()
    prefix = "text." if model_config(model_name).get("custom_text") else ""
    towers = {
        **{f"visual.{key}": value for key, value in visual.items()},
        **{f"{prefix}{key}": value for key, value in text.items()},
    }
    # Exact in half precision, in which files may be stored; no two tensors are alike.
    state = {
        key: torch.rand(value.shape).half().float() if value.is_floating_point() else value
        for key, value in towers.items()
    }
    return {**state, "logit_scale": torch.tensor(LOGIT_SCALE)}


def eva_clip_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of an EVA model as the EVA-CLIP project publishes it, rotary tables too."""
    trunk = "visual.trunk."
    tower = {k.removeprefix(trunk): v for k, v in state.items() if k.startswith(trunk)}
    others = {k: v for k, v in state.items() if not k.startswith(trunk)}
    depth = tiny_eva.SIZE["depth"]
    places = ["rope", *(f"blocks.{index}.attn.rope" for index in range(depth))]
    rotary = [f"visual.{place}.freqs_{kind}" for place in places for kind in ("cos", "sin")]
    return {
        **others,
        **{f"visual.{key}": value for key, value in to_published_keys(tower).items()},
        **{key: torch.rand(16, 16) for key in rotary},
    }


def check_towers(made: CfgNode, expected: dict[str, Tensor]) -> None:
    """Both towers that a node describes have exactly the tensors of an open_clip state dict."""
    visual = load_visual_tower(made).state_dict()
    text, logit_scale = load_text_tower(made)
    found = {f"visual.{key}": value for key, value in visual.items()}
    prefix = "text." if any(key.startswith("text.") for key in expected) else ""
    found |= {f"{prefix}{key}": value for key, value in text.state_dict().items()}
    found["logit_scale"] = logit_scale
    assert set(found) == set(expected)
    assert all(torch.equal(found[key], value) for key, value in expected.items())
