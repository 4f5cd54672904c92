"""Every model of open_clip embeds masks: a mask over everything is embedded as the image.

That equality sees wrong norms, positions, rotary layouts, scales and projections.
"""

from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

from maskclippp.clip.families import encoder_of_tower
from maskclippp.clip.mask_attention import MaskAttentionSettings
from maskclippp.clip.visual_encoder import EncodedImages, VisualEncoder
from maskclippp.errors import InputError
from maskclippp.masks.batching import InputFormat, PaddedBatch
from maskclippp.registry import VISUAL_ENCODER_REGISTRY
from tests.clip.documented_models import refused_models
from tests.clip.small_towers import ALL_MODELS, embedding_of, native_size, small_tower
from tests.tiny_models import soft

# Largest relative error of the embedding of a mask over everything, in float64. The weights of an
# average have 1e-6 in their denominator.
TOLERANCE = {"AverageEncoder": 1e-6}
EXACT = 1e-12


MODELS = sorted(set(ALL_MODELS) - refused_models("image"))


@lru_cache(maxsize=1)  # for the tests of one model, which follow each other
def encoder_for(name: str, **options: Any) -> VisualEncoder:
    """The encoder that ``auto`` chooses, of a shrunk tower; masks see what the image sees."""
    tower = small_tower(name)
    kind = encoder_of_tower(tower)
    if kind == "EVACLIPViT":
        tower = tower.trunk
    if kind != "AverageEncoder":
        options |= {"mask_attention": MaskAttentionSettings()}
    if kind in ("EVACLIPViT", "MaskTokenEncoder"):
        options |= {"first_block": 1, "sees_prefix": True}
    if kind == "CLIPResNet":
        options |= {"sees_prefix": True}
    made: VisualEncoder = VISUAL_ENCODER_REGISTRY.get(kind)(
        proxy=tower,
        input_format=InputFormat([0.0] * 3, [1.0] * 3),
        out_features=("i_embs",),
        **options,
    )
    return made.double().eval()


def encode(encoder: VisualEncoder, images: Tensor, *masks: Tensor) -> EncodedImages:
    """Encode images [B, 3, H, W] and the masks of each, as they are."""
    sizes = [(images.shape[-2], images.shape[-1])] * len(images)
    return encoder.encode(PaddedBatch(images, sizes, soft(masks)), with_masks=True)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_a_mask_over_everything_is_embedded_as_the_image(name: str) -> None:
    encoder = encoder_for(name)
    images = torch.randn(1, 3, *native_size(encoder.proxy)).double()
    encoded = encode(encoder, images, torch.ones(1, *images.shape[-2:]))
    expected = embedding_of(encoder.proxy, images)
    for found in (encoded.mask_embeddings, encoded.maps["i_embs"][..., 0, 0]):
        assert found is not None
        error = (found - expected).norm() / expected.norm()
        assert error < TOLERANCE.get(type(encoder).__name__, EXACT)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_masks_on_another_grid(name: str) -> None:
    """Not square; one mask is empty, the other one is not embedded as if it were empty."""
    encoder = encoder_for(name)
    stride = getattr(encoder, "tower", encoder).stride
    masks = torch.zeros(2, 3 * stride, 5 * stride)
    masks[1, stride:, 2 * stride :] = 1
    encoded = encode(encoder, torch.randn(1, 3, *masks.shape[1:]).double(), masks)
    assert encoded.mask_embeddings is not None
    assert encoded.mask_embeddings.isfinite().all()
    empty, other = encoded.mask_embeddings
    assert (empty - other).norm() > 1e-3 * other.norm()


@pytest.mark.parametrize("name", sorted(refused_models("image")))
def test_refused_models_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"VISUAL_ENCODER.MODEL_NAME: .* cannot embed masks"):
        encoder_of_tower(small_tower(name))
