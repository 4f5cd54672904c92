"""The text tower of OpenCLIP models: trained parts, exact shortening, options."""

from fnmatch import fnmatch

import pytest
import torch
from torch.testing import assert_close

from maskclippp.clip.text_tower import text_lengths
from tests.tiny_models import tiny_text_tower

SENTENCES = ["a cat", "a photo of a small traffic light in the scene.", ""]


@torch.no_grad()
def test_shortening_is_exact() -> None:
    tower = tiny_text_tower()
    tokens = tower.tokenize(SENTENCES)
    assert tokens.shape == (3, 32)
    assert_close(tower(SENTENCES), tower.encode_tokens(tokens))


def test_length_counts_up_to_the_end_of_text() -> None:
    tokens = tiny_text_tower().tokenize(SENTENCES)
    assert text_lengths(tokens).tolist() == [4, 13, 2]


@pytest.mark.parametrize(
    ("finetune_type", "patterns"),
    [
        ("none", []),
        ("all", ["*"]),
        ("attention", ["positional_embedding", "*.attn.in_proj_*"]),
        ("proj", ["ln_final.*", "text_projection", "logit_scale"]),
    ],
)
def test_finetune_types_train_exactly_what_they_say(
    finetune_type: str, patterns: list[str]
) -> None:
    tower = tiny_text_tower(".TEXT_ENCODER.FINETUNE_TYPE", finetune_type)
    for name, parameter in tower.named_parameters():
        expected = any(fnmatch(name, pattern) for pattern in patterns)
        assert parameter.requires_grad == expected, name


def test_unknown_finetune_type_lists_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"'before_s4' is not one of \['all', 'attention', 'none'"):
        tiny_text_tower(".TEXT_ENCODER.FINETUNE_TYPE", "before_s4")


@torch.no_grad()
def test_the_final_norm_can_be_left_out() -> None:
    torch.manual_seed(0)
    plain = tiny_text_tower()
    torch.manual_seed(0)
    skipping = tiny_text_tower(".TEXT_ENCODER.SKIP_LN_FINAL", True)
    assert not torch.allclose(plain(SENTENCES), skipping(SENTENCES), atol=1e-3)
    assert not any(key.startswith("ln_final") for key in skipping.state_dict())


def test_a_tower_that_is_not_causal_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs a causal text tower .* TEXT_ENCODER.MODEL_NAME"):
        tiny_text_tower(".TEXT_ENCODER.MODEL_NAME", "coca_base")


def test_a_hugging_face_tower_is_refused() -> None:
    with pytest.raises(ValueError, match="has a Hugging Face text tower"):
        tiny_text_tower(".TEXT_ENCODER.MODEL_NAME", "xlm-roberta-base-ViT-B-32")
