"""Text towers compute what open_clip's encode_text computes, also where tokens are left out."""

from typing import Any

import pytest
import torch
from open_clip.factory import get_model_config
from open_clip.model import _build_text_tower
from torch import Tensor
from torch.testing import assert_close

from maskclippp.clip import CLIPTextEncoder, EVACLIPTextEncoder
from maskclippp.clip.text_tower import OpenClipTextTower, text_encoder_name
from maskclippp.errors import InputError
from tests.clip.documented_models import refused_models
from tests.clip.small_towers import ALL_MODELS, randomized

PARTS = {"CLIPTextEncoder": CLIPTextEncoder, "EVACLIPTextEncoder": EVACLIPTextEncoder}
VOCABULARY = 100
OWN_TOWERS = [name for name in ALL_MODELS if text_encoder_name(name) in PARTS]


def small_text_tower(name: str) -> Any:
    """open_clip's text tower of a model, with few and narrow blocks and random weights."""
    config = get_model_config(name)
    text = {**config["text_cfg"], "layers": 2, "width": 32, "heads": 2, "vocab_size": VOCABULARY}
    return randomized(_build_text_tower(config["embed_dim"], text, config.get("quick_gelu", False)))


def some_tokens(tower: Any) -> Tensor:
    """Texts of different lengths, up to the whole context, as the tower's tokenizer would give."""
    length = tower.context_length
    ends_by_id = tower.pool_type == "eos"
    end, pad = (tower.eos_id, 1) if ends_by_id else (VOCABULARY - 1, 0)
    tokens = torch.full((4, length), pad)
    for row, count in zip(tokens, (1, 4, 9, length - 1), strict=True):
        row[:count] = torch.randint(3, VOCABULARY - 1, (count,))
        row[count] = end
    return tokens


@pytest.mark.parametrize("name", sorted(set(OWN_TOWERS) - refused_models("text")))
@torch.no_grad()
def test_text_embeddings_are_those_of_open_clip(name: str) -> None:
    theirs = small_text_tower(name)
    tokens = some_tokens(theirs)
    expected = theirs(tokens)
    ours: OpenClipTextTower = PARTS[text_encoder_name(name)](
        tower=theirs, logit_scale=torch.zeros(()), tokenizer=lambda _: tokens
    )
    assert_close(ours(["" for _ in tokens]), expected)
    for text, embedding in zip(tokens, expected, strict=True):
        length = int(ours.lengths(text[None]))
        assert_close(ours.encode_tokens(text[None, :length])[0], embedding)


@pytest.mark.parametrize("name", sorted(refused_models("text")))
def test_refused_models_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="TEXT_ENCODER"):
        CLIPTextEncoder(
            tower=small_text_tower(name), logit_scale=torch.zeros(()), tokenizer=lambda _: None
        )


@pytest.mark.parametrize(
    ("name", "saves"),
    [
        ("ViT-B-16", True),
        ("ViT-H-14-worldwide", True),  # pools at its end token
        ("ViT-B-16-SigLIP2", False),  # not causal, pools the last position
        ("MobileCLIP2-S4", False),  # not causal, although it pools the end of the text
        ("ViT-L-14-CLIPA", False),
        ("PE-Core-B-16", True),
    ],
)
def test_tokens_are_left_out_only_of_causal_towers(name: str, saves: bool) -> None:
    theirs = small_text_tower(name)
    ours = CLIPTextEncoder(tower=theirs, logit_scale=torch.zeros(()), tokenizer=lambda _: None)
    lengths = ours.lengths(some_tokens(theirs)).tolist()
    context = theirs.context_length
    assert lengths == ([2, 5, 10, context] if saves else [context] * 4)
