"""The CLIP that ships with the built-in world: whole, small, and at home in its words."""

import math
from pathlib import Path

import open_clip
import torch
from detectron2.config import CfgNode
from safetensors.torch import load_file

from maskclippp.clip.open_clip_models import load_text_tower, load_visual_tower
from maskclippp.data.shapes import dataset
from maskclippp.data.shapes.vocabulary import CLASSES
from maskclippp.words.templates import get_templates
from shapes.pretrain_clip import KINDS, MODEL_NAME, word_margins

WEIGHTS = Path(dataset.__file__).parent / "weights" / "shapes_clip.safetensors"


LEAST_MARGIN = 2.0  # times the logit scale: a factor of e^2 between two words
NODE = CfgNode({"MODEL_NAME": MODEL_NAME, "PRETRAINED": "shapes", "LOAD_FROM": ""})


def test_the_towers_load() -> None:
    visual = load_visual_tower(NODE)
    text, logit_scale = load_text_tower(NODE)
    assert 0 < logit_scale.item() <= math.log(100) + 1e-3
    for tower in (visual, text):
        assert all(torch.isfinite(value).all() for value in tower.state_dict().values())


def test_weights_are_small_and_half_precision() -> None:
    assert WEIGHTS.stat().st_size < 8e6
    state = load_file(WEIGHTS)
    assert state.pop("token_embedding.tokens").dtype == torch.int64
    assert all(v.dtype == torch.float16 for v in state.values())


def test_all_words_are_known_tokens() -> None:
    """Every token of every name, and of the simple templates, was met in pre-training."""
    tokenizer = open_clip.get_tokenizer(MODEL_NAME)
    sentences = [t.format(n) for c in CLASSES for n in c.names for t in get_templates("t14")]
    tokens = tokenizer(sentences)
    used = tokens[tokens != 0].unique()
    rows = load_text_tower(NODE)[0].token_embedding.weight
    assert rows.shape[0] == 49408
    assert (rows[used].norm(dim=1) > 0).all()
    longest = (tokens != 0).sum(dim=1).max()
    assert longest < tokens.shape[1], "no prompt is cut at the context length"


def test_text_vectors_that_differ_in_one_word_are_apart() -> None:
    """They are frozen in fine-tuning: what they do not tell apart, no image tower can."""
    text, logit_scale = load_text_tower(NODE)
    tokens = open_clip.get_tokenizer(MODEL_NAME)([f"a photo of a {c.names[0]}." for c in CLASSES])
    with torch.no_grad():
        vectors = torch.nn.functional.normalize(text(tokens), dim=-1)
    for kind in KINDS:
        assert word_margins(vectors, kind, logit_scale.exp().item()).min() > LEAST_MARGIN
