"""Scaled cosine similarity of masks and text."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from maskclippp.clip.similarity import choose_logit_scale, clamped_scale, similarity


@pytest.mark.parametrize("scale", [None, math.log(2.0)])
def test_every_mask_is_compared_with_every_synonym_in_every_template(scale: float | None) -> None:
    masks, text = 3 * torch.randn(3, 8), F.normalize(torch.randn(4, 2, 8), dim=-1)
    found = similarity(masks, text, None if scale is None else torch.tensor(scale))
    factor = 1 if scale is None else 2
    for n in range(3):
        for k in range(4):
            for t in range(2):
                expected = factor * torch.cosine_similarity(masks[n], text[k, t], dim=0)
                assert_close(found[n, k, t], expected)


def test_the_scale_ends_at_100() -> None:
    assert clamped_scale(torch.tensor(9.0)) == 100


def test_a_trained_scale_of_the_tower_is_used_itself() -> None:
    scale = torch.nn.Parameter(torch.tensor(2.0))
    assert choose_logit_scale(scale, used=True) is scale
    scale.requires_grad_(False)
    own = choose_logit_scale(scale, used=True)
    assert own is not scale
    assert own is not None
    assert own.requires_grad
    assert own == scale
    with torch.no_grad():
        own += 1
    assert scale == 2, "the tower's own is frozen"


def test_an_unused_scale_is_not_trained() -> None:
    scale = torch.nn.Parameter(torch.tensor(2.0))
    assert choose_logit_scale(scale, used=False) is None
    assert not scale.requires_grad
