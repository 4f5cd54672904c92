"""The CLIP ResNet encoder computes what the published implementation computes."""

import pytest
import torch
from torch.testing import assert_close

from maskclippp.clip import CLIPResNet
from maskclippp.clip.mask_attention import MaskAttentionSettings
from maskclippp.clip.position_embedding import resize_position_embedding
from maskclippp.masks.batching import PaddedBatch
from tests.golden_cases import GoldenCase, cases, indexed, mask_threshold
from tests.golden_models import check_sizes, encoder_arguments, map_names, open_clip_tower
from tests.tiny_models import soft

RESNET = cases("rn_encoder")


def build(case: GoldenCase, variant: str = "test_none") -> CLIPResNet:
    """The encoder of a case, as in a variant ``<mode>_<resize>[_thresh<value>]``."""
    config = case.info["config"]
    encoder = CLIPResNet(
        proxy=open_clip_tower(case),
        **encoder_arguments(case, variant),
        mask_attention=MaskAttentionSettings(
            threshold=mask_threshold(case, variant),
            log_scale=config["MASK_LOGIT_SCALE"],
            learnable=config["LEARNABLE_MASK_LOGIT_SCALE"],
            downsample_method=config["DOWNSAMPLE_METHOD"],
        ),
    )
    encoder.load_state_dict(case.tensors("weights"))
    return encoder.train(variant.startswith("train"))


@pytest.mark.parametrize(
    ("case", "variant"),
    [(case, variant) for case in RESNET for variant in case.info["variants"] if variant != "plain"],
    ids=str,
)
def test_images_with_masks(case: GoldenCase, variant: str) -> None:
    inputs, expected, check = case.tensors("inputs"), case.outputs_of(variant), case.tolerance
    encoder = build(case, variant)
    with torch.no_grad():
        encoded = encoder(indexed(inputs, "image_"), soft(indexed(inputs, "masks_")))
    check_sizes(case, variant, encoded.batch)
    # The compact copy tests the padding by `encoder_input_resize` alone.
    if "input.images" in expected:
        assert_close(encoded.batch.images, expected["input.images"], **check)
        masks = torch.cat(indexed(expected, "input.masks_"))
        assert_close(encoded.batch.padded_masks(), masks, **check)
    assert_close(encoded.mask_embeddings, torch.cat(indexed(expected, "m_embs_")), **check)
    assert_close(encoded.mask_areas, torch.cat(indexed(expected, "areas_")), **check)
    assert set(encoded.maps) == map_names(case)
    for name, feature_map in encoded.maps.items():
        assert_close(feature_map, expected[name], **check)


def test_image_embedding_of_the_plain_tower() -> None:
    # The compact copy tests image embeddings by the variants with masks alone.
    for case in (case for case in RESNET if "plain" in case.info["variants"]):
        images = case.tensors("inputs")["plain_image"]
        size = (images.shape[-2], images.shape[-1])
        no_masks = [torch.zeros(0, *size)] * len(images)
        batch = PaddedBatch(images, [size] * len(images), no_masks)
        with torch.no_grad():
            encoder = build(case)
            encoder.out_features, encoder.feature_suffix = ("i_embs",), ""
            encoded = encoder.encode(batch, with_masks=False)
        expected = case.outputs_of("plain")["embedding"]
        assert_close(encoded.maps["i_embs"][:, :, 0, 0], expected, **case.tolerance)


@pytest.mark.parametrize("case", RESNET, ids=str)
def test_position_embedding_at_other_grids(case: GoldenCase) -> None:
    embedding = case.tensors("weights")["proxy.attnpool.positional_embedding"]
    prefix = "pos_embed_at_"
    tables = {k: v for k, v in case.tensors("outputs").items() if k.startswith(prefix)}
    assert tables
    for name, expected in tables.items():
        height, width = map(int, name.removeprefix(prefix).split("x"))
        resized = resize_position_embedding(embedding, (height, width))
        assert_close(resized, expected, **case.tolerance)
