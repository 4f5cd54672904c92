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


def hugging_face_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a ViT as transformers writes it, from one in open_clip's layout."""
    names = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    }
    beginnings = {
        "visual.ln_pre.": "vision_model.pre_layrnorm.",
        "visual.ln_post.": "vision_model.post_layernorm.",
        "ln_final.": "text_model.final_layer_norm.",
        "visual.transformer.resblocks.": "vision_model.encoder.layers.",
        "transformer.resblocks.": "text_model.encoder.layers.",
    }
    parts = {".ln_1.": ".layer_norm1.", ".ln_2.": ".layer_norm2.", ".attn.": ".self_attn."}
    parts |= {".c_fc.": ".fc1.", ".c_proj.": ".fc2."}
    written = {"text_model.embeddings.position_ids": torch.arange(4)[None]}
    for key, value in state.items():
        new = names.get(key, key)
        for old, replacement in beginnings.items():
            if new.startswith(old):
                new = replacement + new.removeprefix(old)
        for old, replacement in parts.items():
            new = new.replace(old, replacement)
        if key in ("visual.proj", "text_projection"):
            new = "visual_projection.weight" if key == "visual.proj" else "text_projection.weight"
            written[new] = value.T.contiguous()
        elif "in_proj_" in new:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                written[new.replace("in_proj_", f"{letter}_proj.")] = part.clone()
        else:
            written[new] = value
    return written
