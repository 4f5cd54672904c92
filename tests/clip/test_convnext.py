"""The ConvNeXt mask classifier: trained parts, empty masks, ragged batches, half precision."""

import pytest
import torch
from torch.testing import assert_close

from maskclippp.clip import VisualEncoder
from tests.tiny_models import random_image, soft, tiny_visual_encoder


def encoder(*options: object) -> VisualEncoder:
    return tiny_visual_encoder(*options).eval()


def stage_of(name: str) -> int:
    """0 for the stem, 1 to 4 for the stages, 5 for the pooling head, 6 for the projection."""
    parts = name.removeprefix("proxy.").split(".")
    if parts[0] == "head":
        return 6
    if parts[1] == "stages":
        return int(parts[2]) + 1
    return {"stem": 0, "head": 5}[parts[1]]


@pytest.mark.parametrize(
    ("finetune_type", "trained_stages"),
    [
        ("none", set()),
        ("all", {0, 1, 2, 3, 4, 5, 6}),
        ("before_proj", {0, 1, 2, 3, 4, 5}),
        ("before_s4", {0, 1, 2, 3}),
        ("after_s4", {4, 5, 6}),
    ],
)
def test_finetune_types_train_exactly_what_they_say(
    finetune_type: str, trained_stages: set[int]
) -> None:
    made = tiny_visual_encoder(".VISUAL_ENCODER.FINETUNE_TYPE", finetune_type).train()
    embeddings = made([random_image(64, 64)], soft([torch.ones(1, 64, 64)])).mask_embeddings
    assert embeddings is not None
    if trained_stages:
        embeddings.sum().backward()
    for name, parameter in made.named_parameters():
        trained = stage_of(name) in trained_stages
        assert (parameter.grad is not None) == trained, name


def test_unknown_finetune_type_lists_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"FINETUNE_TYPE 'some' is not one of \['after_s4', 'all'"):
        encoder(".VISUAL_ENCODER.FINETUNE_TYPE", "some")


def test_unknown_out_feature_lists_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"OUT_FEATURES has \['stage5'\]; valid names are"):
        encoder(".VISUAL_ENCODER.OUT_FEATURES", ["stage5"])


def test_only_the_released_pooling_scheme_is_accepted() -> None:
    with pytest.raises(ValueError, match="MASK_PRIOR_BEG must be 5"):
        encoder(".VISUAL_ENCODER.MASK_PRIOR_BEG", 2)


@pytest.mark.parametrize(
    ("model_name", "found"),
    [("ViT-S-32", "VisionTransformer"), ("MobileCLIP-S1", "FastVit")],  # FastVit has stages too
)
def test_a_model_with_another_image_tower_is_refused(model_name: str, found: str) -> None:
    message = rf"needs an open_clip model with a timm ConvNeXt .* found a {found}"
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        encoder(".VISUAL_ENCODER.MODEL_NAME", model_name)


def test_images_smaller_than_a_cell_are_refused() -> None:
    with pytest.raises(ValueError, match=r"20 x 40 .* stride of 32; set .*SIZE_DIVISIBILITY to 32"):
        encoder(".VISUAL_ENCODER.SIZE_DIVISIBILITY", 0)([random_image(20, 40)])


def test_out_features_have_the_suffix_of_the_config() -> None:
    made = encoder(
        ".VISUAL_ENCODER.OUT_FEATURES",
        ["stage1_f", "stage4_f", "i_embs_f"],
        ".VISUAL_ENCODER.FEATURE_SUFFIX",
        "_f",
    )
    maps = made([random_image(64, 96)]).maps
    shapes = {name: tuple(feature_map.shape[-2:]) for name, feature_map in maps.items()}
    assert shapes == {"stage1_f": (16, 24), "stage4_f": (2, 3), "i_embs_f": (1, 1)}


@torch.no_grad()
def test_a_mask_of_one_cell_embeds_as_its_patch() -> None:
    made = encoder(".VISUAL_ENCODER.DOWNSAMPLE_METHOD", "nearest")
    mask = torch.zeros(1, 64, 96, dtype=torch.bool)
    mask[:, 32:, 64:] = True
    encoded = made([random_image(64, 96)], soft([mask]))
    assert encoded.mask_areas is not None
    assert encoded.mask_areas.tolist() == [1]
    assert encoded.mask_embeddings is not None
    assert_close(encoded.mask_embeddings[0], encoded.maps["p_embs"][0, :, 1, 2])


def test_masks_that_vanish_on_the_grid_stay_finite() -> None:
    made = encoder()
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 0, 0] = True  # bilinear shrinking does not see this pixel
    encoded = made([random_image(64, 64)], soft([masks]))
    assert encoded.mask_areas is not None
    assert encoded.mask_areas.tolist() == [0, 0]
    assert encoded.mask_embeddings is not None
    assert encoded.mask_embeddings.isfinite().all()
    encoded.mask_embeddings.square().sum().backward()
    gradients = [p.grad for p in made.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@torch.no_grad()
def test_images_without_masks_among_others() -> None:
    made, images = encoder(), [random_image(64, 64) for _ in range(3)]
    counts = [0, 2, 0]
    encoded = made(images, soft([torch.rand(count, 64, 64) > 0.5 for count in counts]))
    assert encoded.mask_embeddings is not None
    assert encoded.mask_embeddings.shape == (2, 64)
    assert encoded.batch.image_of_mask.tolist() == [1, 1]
    assert made(images, soft([torch.ones(0, 64, 64)] * 3)).mask_embeddings.shape == (0, 64)


@torch.no_grad()
def test_no_masks_asked_for_gives_maps_alone() -> None:
    encoded = encoder()([random_image(64, 64)])
    assert encoded.mask_embeddings is None
    assert set(encoded.maps) == {"p_embs"}


@torch.no_grad()
def test_a_batch_equals_its_images_one_by_one() -> None:
    made, images = encoder(), [random_image(64, 96) for _ in range(3)]
    masks = [torch.rand(count, 64, 96) > 0.5 for count in (2, 1, 4)]
    together = made(images, soft(masks)).mask_embeddings
    alone = [
        made([image], soft([own])).mask_embeddings for image, own in zip(images, masks, strict=True)
    ]
    assert_close(together, torch.cat(alone))


@torch.no_grad()
def test_images_of_different_sizes_share_a_padded_batch() -> None:
    made = encoder(".VISUAL_ENCODER.SIZE_DIVISIBILITY", 32)
    sizes = [(50, 90), (77, 40)]
    encoded = made([random_image(*size) for size in sizes], soft(torch.ones(2, *s) for s in sizes))
    assert encoded.batch.images.shape == (2, 3, 96, 96)
    assert encoded.batch.image_sizes == sizes
    assert encoded.mask_areas is not None
    # Padding belongs to no mask: a full mask is smaller than the 3 x 3 grid.
    assert (encoded.mask_areas < 9).all()


def test_resizing_is_the_training_kind_only_while_training() -> None:
    options = (".VISUAL_ENCODER.RESIZE_TYPE", "square", ".VISUAL_ENCODER.IMAGE_SIZE", 64)
    made = tiny_visual_encoder(*options)
    assert made.train()([random_image(40, 50)]).batch.image_sizes == [(64, 64)]
    assert made.eval()([random_image(40, 50)]).batch.image_sizes == [(40, 50)]
    frozen = tiny_visual_encoder(*options, ".VISUAL_ENCODER.FINETUNE_TYPE", "none")
    assert frozen.train()([random_image(40, 50)]).batch.image_sizes == [(40, 50)]


@torch.no_grad()
def test_bfloat16_autocast_stays_close() -> None:
    made, image, masks = encoder(), random_image(96, 96), torch.rand(3, 96, 96) > 0.5
    exact = made([image], soft([masks])).mask_embeddings
    with torch.autocast("cpu", torch.bfloat16):
        rough = made([image], soft([masks])).mask_embeddings
    assert (torch.cosine_similarity(rough.float(), exact, dim=-1) > 0.99).all()


@torch.no_grad()
def test_channels_last_gives_the_same_numbers() -> None:
    made, image, masks = encoder(), random_image(96, 96), torch.rand(3, 96, 96) > 0.5
    exact = made([image], soft([masks])).mask_embeddings
    made.to(memory_format=torch.channels_last)
    assert_close(made([image], soft([masks])).mask_embeddings, exact)
