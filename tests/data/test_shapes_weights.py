"""The CLIP that ships with the built-in world: whole, small, and at home in its words."""

from pathlib import Path

import open_clip
import torch
from safetensors.torch import load_file

import maskclippp.clip  # noqa: F401  (makes the model known to open_clip)
from maskclippp.data.shapes import dataset
from maskclippp.data.shapes.vocabulary import CLASSES
from maskclippp.words.templates import get_templates

WEIGHTS = Path(dataset.__file__).parent / "weights" / "shapes_clip.safetensors"


def test_weights_load_with_all_keys() -> None:
    model = open_clip.create_model("shapes_convnext")
    state = load_file(WEIGHTS)
    assert set(state) == set(model.state_dict())
    model.load_state_dict(state)
    assert all(torch.isfinite(value).all() for value in state.values())


def test_weights_are_small_and_half_precision() -> None:
    assert WEIGHTS.stat().st_size < 8e6
    assert all(v.dtype == torch.float16 for v in load_file(WEIGHTS).values())


def test_all_words_are_known_tokens() -> None:
    """Every token of every name, and of the simple templates, was met in pre-training."""
    tokenizer = open_clip.get_tokenizer("shapes_convnext")
    sentences = [t.format(n) for c in CLASSES for n in c.names for t in get_templates("t14")]
    tokens = tokenizer(sentences)
    used = tokens[tokens != 0].unique()
    rows = load_file(WEIGHTS)["token_embedding.weight"].float()
    assert (rows[used].norm(dim=1) > 0).all()
    longest = (tokens != 0).sum(dim=1).max()
    assert longest < tokens.shape[1], "no prompt is cut at the context length"
