"""The text towers compute what the published implementation computes."""

from dataclasses import fields

import open_clip
import pytest
import torch
from open_clip.model import CLIPTextCfg, _build_text_tower
from torch.testing import assert_close

from maskclippp.clip.text_tower import CLIPTextEncoder, EVACLIPTextEncoder, OpenClipTextTower
from tests.golden_cases import GoldenCase, cases

TEXT_CASES = cases("clip_text", "eva_text")
# Keys of EVA-CLIP's models that choose another implementation of the same function.
_EVA_IMPLEMENTATION = ("xattn", "fusedLN")


def build_text_tower(case: GoldenCase) -> OpenClipTextTower:
    """The tower that the names of the case's weights tell, with these weights."""
    model, weights = case.info["clip_model_config"], case.tensors("weights")
    text_config = {k: v for k, v in model["text_cfg"].items() if k not in _EVA_IMPLEMENTATION}
    assert set(text_config) <= {field.name for field in fields(CLIPTextCfg)}
    is_eva = any(key.startswith("proxy.") for key in weights)
    tower = (EVACLIPTextEncoder if is_eva else CLIPTextEncoder)(
        tower=_build_text_tower(model["embed_dim"], text_config, model.get("quick_gelu", False)),
        logit_scale=torch.zeros(()),
        tokenizer=open_clip.tokenize,
    )
    tower.load_state_dict(weights)  # strict: every key of the case is the tower's own
    return tower.eval()


@pytest.mark.parametrize("case", TEXT_CASES, ids=str)
def test_sentences_become_the_same_tokens(case: GoldenCase) -> None:
    tokens = build_text_tower(case).tokenize(case.info["sentences"])
    assert torch.equal(tokens, case.tensors("inputs")["tokens"].long())


@pytest.mark.parametrize("case", TEXT_CASES, ids=str)
def test_embeddings(case: GoldenCase) -> None:
    with torch.no_grad():
        embeddings = build_text_tower(case)(case.info["sentences"])
    assert_close(embeddings, case.tensors("outputs")["embeddings"], **case.tolerance)
