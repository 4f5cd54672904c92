"""The text towers of OpenCLIP and EVA-CLIP models: trained parts, exact shortening, options."""

from fnmatch import fnmatch
from typing import Any

import pytest
import torch
from open_clip.transformer import ResidualAttentionBlock
from torch.testing import assert_close

from maskclippp.clip.text_tower import OpenClipTextTower, build_text_tower
from tests.tiny_models import tiny_config, tiny_text_tower

SENTENCES = ["a cat", "a photo of a small traffic light in the scene.", ""]


def text_tower(name: str, **options: Any) -> OpenClipTextTower:
    node = tiny_config().MODEL.MASKCLIPPP.TEXT_ENCODER
    node.NAME = name
    for key, value in options.items():
        node[key] = value
    tower = build_text_tower(node)
    assert isinstance(tower, OpenClipTextTower)
    return tower


@torch.no_grad()
def test_shortening_is_exact() -> None:
    tower = tiny_text_tower()
    tokens = tower.tokenize(SENTENCES)
    assert tokens.shape == (3, 32)
    assert_close(tower(SENTENCES), tower.encode_tokens(tokens))


def test_length_counts_up_to_the_end_of_text() -> None:
    tower = tiny_text_tower()
    assert tower.lengths(tower.tokenize(SENTENCES)).tolist() == [4, 13, 2]


@pytest.mark.parametrize("name", ["CLIPTextEncoder", "EVACLIPTextEncoder"])
@pytest.mark.parametrize(
    ("finetune_type", "patterns"),
    [
        ("none", []),
        ("all", ["*"]),
        ("attention", ["positional_embedding", "*.attn.in_proj_weight"]),
        ("proj", ["ln_final.*", "text_projection", "logit_scale"]),
    ],
)
def test_finetune_types_train_exactly_what_they_say(
    finetune_type: str, patterns: list[str], name: str
) -> None:
    if finetune_type == "attention":
        # What published checkpoints of either kind have trained besides.
        besides = ["*.in_proj_bias"] if name == "CLIPTextEncoder" else ["*.ln_?.*", "*.mlp.*"]
        patterns = patterns + besides
    tower = text_tower(name, FINETUNE_TYPE=finetune_type)
    for key, parameter in tower.named_parameters():
        own = key.removeprefix("proxy.")
        expected = any(fnmatch(own, pattern) for pattern in patterns)
        assert parameter.requires_grad == expected, key


def test_the_two_kinds_compute_the_same_under_different_names() -> None:
    clip, eva = text_tower("CLIPTextEncoder"), text_tower("EVACLIPTextEncoder")
    state = clip.state_dict()
    own = {key if key == "logit_scale" else f"proxy.{key}": value for key, value in state.items()}
    eva.load_state_dict(own)
    with torch.no_grad():
        assert torch.equal(eva(SENTENCES), clip(SENTENCES))


@pytest.mark.parametrize("name", ["CLIPTextEncoder", "EVACLIPTextEncoder"])
def test_gradient_checkpointing_gives_the_same_gradients(name: str) -> None:
    plain = text_tower(name, FINETUNE_TYPE="all")
    saving = text_tower(name, FINETUNE_TYPE="all", GRADIENT_CHECKPOINTING=True)
    saving.load_state_dict(plain.state_dict())
    runs = runs_of_a_block(saving)
    for tower in (plain, saving):
        tower.train()(SENTENCES).square().sum().backward()
    assert len(runs) == 2
    for ours, expected in zip(saving.parameters(), plain.parameters(), strict=True):
        assert_close(ours.grad, expected.grad)


def runs_of_a_block(tower: OpenClipTextTower) -> list[None]:
    """A list to which every run of the first block adds."""
    block = next(part for part in tower.modules() if isinstance(part, ResidualAttentionBlock))
    runs: list[None] = []
    block.register_forward_pre_hook(lambda *_: runs.append(None))
    return runs


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
