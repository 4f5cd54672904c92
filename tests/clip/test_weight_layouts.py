"""Every published layout of CLIP weights fills both towers, each key exactly once."""

import json
import logging
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from maskclippp.clip.open_clip_models import load_text_tower, load_visual_tower
from maskclippp.clip.position_embedding import resize_position_embedding
from maskclippp.clip.weight_layouts import split_clip_state
from tests.clip.weight_files import (
    EVA_MODELS,
    LOGIT_SCALE,
    check_towers,
    eva_clip_state,
    hugging_face_state,
    node,
    open_clip_state,
)
from tests.tiny_models import MODEL_NAME

pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")

MODELS = [MODEL_NAME, "ViT-tiny", "RN-tiny", *EVA_MODELS]
OPENAI_ENTRIES = {"input_resolution": 32, "context_length": 16, "vocab_size": 49408}


@pytest.mark.parametrize("model_name", MODELS)
def test_open_clip_files(model_name: str, tmp_path: Path) -> None:
    state = open_clip_state(model_name)
    torch.save(state, tmp_path / "clip.pt")
    check_towers(node(tmp_path / "clip.pt", model_name), state)


@pytest.mark.parametrize("model_name", MODELS)
def test_half_precision_safetensors(model_name: str, tmp_path: Path) -> None:
    state = open_clip_state(model_name)
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    save_file(half, tmp_path / "clip.safetensors")
    made = node(tmp_path / "clip.safetensors", model_name)
    check_towers(made, state)
    assert {parameter.dtype for parameter in load_visual_tower(made).parameters()} == {
        torch.float32
    }


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_folders_of_hugging_face(activation: str, tmp_path: Path) -> None:
    state = open_clip_state("ViT-tiny")
    save_file(hugging_face_state(state), tmp_path / "model.safetensors")
    config = {"model_type": "clip", "vision_config": {"hidden_act": activation}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    check_towers(node(tmp_path, "ViT-tiny"), state)
    assert ("QuickGELU" in activations("ViT-tiny", tmp_path)) == (activation == "quick_gelu")


@pytest.mark.parametrize(
    ("model_name", "wrapper", "prefix"),
    [
        ("EVA01-tiny", "", ""),
        ("EVA02-tiny", "", "module."),
        ("EVA02-tiny", "model", ""),
        ("EVA02-tiny", "module", ""),
        ("EVA02-tiny", "state_dict", "module."),
    ],
)
def test_files_of_eva_clip(model_name: str, wrapper: str, prefix: str, tmp_path: Path) -> None:
    state = open_clip_state(model_name)
    published = {f"{prefix}{key}": value for key, value in eva_clip_state(state).items()}
    torch.save({wrapper: published, "epoch": 3} if wrapper else published, tmp_path / "EVA.pt")
    check_towers(node(tmp_path / "EVA.pt", model_name.replace("-", "-CLIP-", 1)), state)


def test_text_towers_of_custom_models_lie_under_a_prefix(tmp_path: Path) -> None:
    state = open_clip_state()
    own = {k: v for k, v in state.items() if k.startswith("visual.") or k == "logit_scale"}
    renamed = {f"text.{key}": value for key, value in state.items() if key not in own}
    torch.save({**own, **renamed}, tmp_path / "clip.pt")
    check_towers(node(tmp_path / "clip.pt"), state)


@pytest.mark.parametrize("key", ["attn_mask", "text.attn_mask"])
def test_causal_masks_of_old_files_are_left_out(key: str) -> None:
    state = {"text.ln_final.bias": torch.ones(3), key: torch.ones(2, 2)}
    assert set(split_clip_state(state, source="old").text) == {"ln_final.bias"}


def openai_archive(model_name: str, path: Path) -> dict[str, Tensor]:
    """Write a TorchScript archive as OpenAI did; returns what it holds in open_clip's layout."""
    state = open_clip_state(model_name)
    model = open_clip.create_model(model_name)
    model.load_state_dict(state)
    for name, value in OPENAI_ENTRIES.items():
        vars(model).pop(name, None)
        model.register_buffer(name, torch.tensor(value))
    size = 64 if model_name.startswith("RN") else 32
    inputs = (torch.rand(1, 3, size, size), torch.ones(1, 16, dtype=torch.int64))
    torch.jit.trace(model.eval(), inputs, check_trace=False).half().save(path)
    return state


@pytest.mark.parametrize("model_name", ["ViT-tiny", "RN-tiny"])
def test_archives_of_openai(model_name: str, tmp_path: Path) -> None:
    state = openai_archive(model_name, tmp_path / "openai.pt")
    check_towers(node(tmp_path / "openai.pt", model_name), state)


def activations(model_name: str, pretrained: object) -> set[str]:
    """Names of the activation functions of both transformers."""
    made = node(pretrained, model_name)
    towers: list[nn.Module] = [load_visual_tower(made), load_text_tower(made)[0]]
    return {
        type(part).__name__ for t in towers for part in t.modules() if "GELU" in str(type(part))
    }


def test_weights_of_openai_get_quick_gelu_by_any_model_name(tmp_path: Path) -> None:
    openai_archive("ViT-tiny", tmp_path / "openai.pt")
    assert activations("ViT-tiny", tmp_path / "openai.pt") == {"QuickGELU"}
    torch.save(open_clip_state("ViT-tiny"), tmp_path / "other.pt")
    assert activations("ViT-tiny", tmp_path / "other.pt") == {"GELU"}
    assert activations("ViT-tiny-quickgelu", tmp_path / "other.pt") == {"QuickGELU"}


POSITIONS = {
    "ViT-tiny": ("visual.positional_embedding", 4),
    "RN-tiny": ("visual.attnpool.positional_embedding", 2),
    "EVA02-tiny": ("visual.trunk.pos_embed", 4),
}


@pytest.mark.parametrize("model_name", POSITIONS)
def test_position_embeddings_of_another_grid_are_resized_aloud(
    model_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (key, side), state = POSITIONS[model_name], open_clip_state(model_name)
    width = state[key].shape[-1]
    table = torch.rand(1 + 3 * 3, width)
    torch.save({**state, key: table.view(*state[key].shape[:-2], -1, width)}, tmp_path / "3x3.pt")
    with caplog.at_level(logging.INFO, "maskclippp"):
        tower = load_visual_tower(node(tmp_path / "3x3.pt", model_name)).state_dict()
    expected = resize_position_embedding(table, (side, side))
    assert torch.equal(tower[key.removeprefix("visual.")].flatten(0, -2), expected)
    assert f"resized from a 3 x 3 grid to {side} x {side}" in caplog.text


@pytest.mark.parametrize("shape", [(11, 32), (10, 16)])
def test_position_embeddings_that_are_no_grid_or_of_another_width_are_refused(
    shape: tuple[int, int], tmp_path: Path
) -> None:
    state = {**open_clip_state("ViT-tiny"), "visual.positional_embedding": torch.rand(shape)}
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(ValueError, match=r"positional_embedding: expected shape \[17, 32\]"):
        load_visual_tower(node(tmp_path / "clip.pt", "ViT-tiny"))


def test_position_embeddings_of_text_are_never_resized(tmp_path: Path) -> None:
    state = {**open_clip_state("ViT-tiny"), "positional_embedding": torch.rand(10, 8)}
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(ValueError, match=r"positional_embedding: expected shape \[16, 8\]"):
        load_text_tower(node(tmp_path / "clip.pt", "ViT-tiny"))


def test_few_disagreements_are_all_listed(tmp_path: Path) -> None:
    state = open_clip_state()
    state["visual.trunk.stem.0.weight"] = torch.zeros(8, 3, 4, 4)
    state["visual.trunk.stages.9.gamma"] = torch.zeros(8)
    del state["visual.trunk.stem.0.bias"]
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(ValueError, match=r"do not fit 'shapes_convnext' \(3 disagree") as error:
        load_visual_tower(node(tmp_path / "clip.pt"))
    for line in (
        "missing trunk.stem.0.bias",
        "unexpected trunk.stages.9.gamma",
        "trunk.stem.0.weight: expected shape [32, 3, 4, 4], found [8, 3, 4, 4]",
    ):
        assert line in str(error.value)


def test_many_disagreements_are_counted(tmp_path: Path) -> None:
    state = open_clip_state()
    extra = {f"visual.trunk.extra.{index}": torch.zeros(1) for index in range(15)}
    torch.save({**state, **extra}, tmp_path / "clip.pt")
    with pytest.raises(ValueError, match=r"\(15 disagreements\)(.|\n)*and 5 more"):
        load_visual_tower(node(tmp_path / "clip.pt"))


@pytest.mark.parametrize("other", ["ViT-tiny", "EVA02-tiny"])
def test_files_of_another_model_altogether_are_told_in_one_line(other: str, tmp_path: Path) -> None:
    torch.save(open_clip_state(other), tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"only \d+ of the model's \d+ tensors") as error:
        load_visual_tower(node(tmp_path / "other.pt", "RN-tiny"))
    assert "\n" not in str(error.value)
    assert "the model has attnpool.c_proj.bias" in str(error.value)


def test_a_model_of_the_same_kind_and_another_size_is_told_by_its_shapes(tmp_path: Path) -> None:
    state = {
        key: value if value.ndim == 0 else torch.zeros(*value.shape[:-1], value.shape[-1] + 1)
        for key, value in open_clip_state().items()
    }
    torch.save(state, tmp_path / "larger.pt")
    with pytest.raises(
        ValueError, match=r"positional_embedding: expected shape \[32, 64\], found \[32, 65\]"
    ):
        load_text_tower(node(tmp_path / "larger.pt"))


def test_a_tensor_under_two_names_is_refused() -> None:
    twice = {"ln_final.bias": torch.ones(3), "text.ln_final.bias": torch.ones(3)}
    with pytest.raises(ValueError, match=r"'both\.pt' have a text tower twice: .*ln_final\.bias"):
        split_clip_state(twice, source="both.pt")
    names = ("q_proj.weight", "q_bias", "q_proj.bias")
    eva = {f"visual.blocks.0.attn.{name}": torch.ones(3) for name in names}
    with pytest.raises(ValueError, match=r"'both\.pt' have tensors twice"):
        split_clip_state(eva, source="both.pt")


def test_logit_scale_may_be_a_vector_of_one(tmp_path: Path) -> None:
    state = {**open_clip_state(), "logit_scale": torch.tensor([LOGIT_SCALE]).half()}
    torch.save(state, tmp_path / "clip.pt")
    assert load_text_tower(node(tmp_path / "clip.pt"))[1] == torch.tensor(LOGIT_SCALE)
