"""Vision transformers and their mask tokens compute what the published implementation computes."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from maskclippp.clip import CLIPViT, EVACLIPViT
from maskclippp.clip.mask_attention import MaskAttentionSettings
from maskclippp.clip.mask_tokens import MaskTokenEncoder
from maskclippp.clip.position_embedding import resize_position_embedding
from tests.golden_cases import GoldenCase, cases, indexed, mask_threshold
from tests.golden_models import check_sizes, encoder_arguments, eva_tower, open_clip_tower
from tests.tiny_models import soft

CASES = [
    case for family in ("eva02_encoder", "eva01_encoder", "vit_encoder") for case in cases(family)
]


def build(case: GoldenCase, variant: str) -> MaskTokenEncoder:
    """The encoder of a case, in the mode of a variant ``<mode>_<resize>[_thresh<value>]``."""
    config = case.info["config"]
    arguments: dict[str, Any] = {
        "first_block": config["MASK_PRIOR_BEG"],
        "mask_attention": MaskAttentionSettings(
            threshold=mask_threshold(case, variant),
            log_scale=config["MASK_LOGIT_SCALE"],
            learnable=config["LEARNABLE_MASK_LOGIT_SCALE"],
            downsample_method=config["DOWNSAMPLE_METHOD"],
        ),
        **encoder_arguments(case, variant),
    }
    encoder: MaskTokenEncoder
    if "eva_clip_model_config" in case.info:
        encoder = EVACLIPViT(proxy=eva_tower(case), **arguments)
    else:
        encoder = CLIPViT(proxy=open_clip_tower(case), **arguments)
    encoder.load_state_dict(case.tensors("weights"))
    return encoder.train(variant.startswith("train"))


def joined_outputs(case: GoldenCase, variant: str) -> dict[str, Tensor]:
    """The outputs of a variant; those of all images of one kind are joined under one name."""
    images = len(indexed(case.tensors("inputs"), "image_"))
    found = case.outputs_of(variant)
    for name in {name.removesuffix("_0") for name in found if name.endswith("_0")}:
        found[name] = torch.cat([found.pop(f"{name}_{index}") for index in range(images)])
    return found


def run(encoder: MaskTokenEncoder, case: GoldenCase, variant: str) -> dict[str, Tensor]:
    """All outputs for the images and masks of a case, by the names of the case."""
    inputs = case.tensors("inputs")
    with torch.no_grad():
        encoded = encoder(indexed(inputs, "image_"), soft(indexed(inputs, "masks_")))
    check_sizes(case, variant, encoded.batch)
    assert encoded.mask_embeddings is not None
    assert encoded.mask_areas is not None
    return {
        "input.images": encoded.batch.images,
        "input.masks": encoded.batch.padded_masks(),
        "m_embs": encoded.mask_embeddings,
        "areas": encoded.mask_areas,
        **encoded.maps,
    }


@pytest.mark.parametrize(
    ("case", "variant"),
    [(case, variant) for case in CASES for variant in case.info["variants"] if variant != "plain"],
    ids=str,
)
def test_outputs(case: GoldenCase, variant: str) -> None:
    expected = joined_outputs(case, variant)
    assert "m_embs" in expected
    own = run(build(case, variant), case, variant)
    for name, value in expected.items():
        assert_close(own[name], value, **case.tolerance, msg=lambda text, at=name: f"{at}: {text}")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_mask_embeddings_do_not_depend_on_what_else_is_asked_for(case: GoldenCase) -> None:
    """Asked for alone, the image's tokens are left out of the last block."""
    variant = next(iter(case.info["variants"]))
    encoder = build(case, variant)
    encoder.out_features = ("m_embs",)
    own = run(encoder, case, variant)["m_embs"]
    assert_close(own, joined_outputs(case, variant)["m_embs"], **case.tolerance)


def test_the_tower_without_masks() -> None:
    # The compact copy tests the tower by the variants with masks alone.
    for case in (case for case in CASES if "plain" in case.info["variants"]):
        images, outputs = case.tensors("inputs")["plain_image"], case.tensors("outputs")
        encoder = build(case, "test_none")
        with torch.no_grad():
            tokens, context = encoder.tower.embed(images)
            for block in encoder.blocks():
                tokens = encoder.tower.run_block(block, tokens, context)
            embedding = encoder._embed(tokens[:, 0])
        assert_close(embedding, outputs["plain/embedding"], **case.tolerance)
        if "plain/tokens_before_norm" in outputs:
            assert_close(tokens, outputs["plain/tokens_before_norm"], **case.tolerance)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_position_embedding(case: GoldenCase) -> None:
    weights = case.tensors("weights")
    name = "proxy.pos_embed" if "proxy.pos_embed" in weights else "proxy.positional_embedding"
    table = weights[name].flatten(0, -2)
    for key, expected in case.tensors("outputs").items():
        if key.startswith("pos_embed_at_"):
            height, width = map(int, key.removeprefix("pos_embed_at_").split("x"))
            own = resize_position_embedding(table, (height, width))
            assert_close(own, expected.flatten(0, -2), **case.tolerance)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_weights_are_saved_by_their_published_names(case: GoldenCase) -> None:
    weights = case.tensors("weights")
    saved = build(case, "test_none").state_dict()
    assert set(saved) == set(weights)
    for name, value in weights.items():
        assert torch.equal(saved[name], value), name
