"""Every generator turns images into masks."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from maskclippp.generators import ImageMasks, MaskGenerator, build_generator
from maskclippp.masks.soft_masks import Frame, SoftMasks
from maskclippp.meta_arch import MaskCLIPpp
from tests.generators.tiny_generators import CONFIGS, NUM_QUERIES, fcclip_config, tiny_generator
from tests.tiny_models import TEST_CLASSES, labeled_record, random_image, tiny_config, tiny_model

SIZES = [(64, 96), (50, 71)]
TRAINED = list(CONFIGS)


@pytest.mark.parametrize("name", TRAINED)
def test_masks_are_probabilities_that_span_the_padded_batch(name: str) -> None:
    generated = tiny_generator(name)([{"image": random_image(*size)} for size in SIZES])
    for found, size in zip(generated, SIZES, strict=True):
        masks, frame = found.masks.values, found.masks.frame
        assert frame is not None
        assert frame.padded_size == (64, 96)
        assert frame.image_size == size
        assert len(masks) == NUM_QUERIES
        assert masks.dtype == torch.float32
        assert masks.min() >= 0
        assert masks.max() <= 1
        # The stride of the finest map in rows and columns alike.
        assert masks.shape[1] * 96 == masks.shape[2] * 64


@pytest.mark.parametrize("name", TRAINED)
def test_the_place_of_the_image_is_that_after_the_encoders_own_resizing(name: str) -> None:
    generator = tiny_generator(
        name,
        *(".VISUAL_ENCODER_F.TEST_RESIZE_TYPE", "short", ".VISUAL_ENCODER_F.TEST_IMAGE_SIZE", 40),
    )
    (found,) = generator([{"image": random_image(50, 75)}])
    assert found.masks.frame == Frame(padded_size=(64, 64), image_size=(40, 60))


@pytest.mark.parametrize("name", TRAINED)
def test_images_of_one_size_do_not_change_each_other(name: str) -> None:
    generator = tiny_generator(name)
    records = [{"image": random_image(40, 60)} for _ in range(3)]
    for record, found in zip(records, generator(records), strict=True):
        assert_close(found.masks.values, generator([record])[0].masks.values)


@pytest.mark.parametrize("name", TRAINED)
def test_it_is_never_trained(name: str) -> None:
    generator = tiny_generator(name)
    assert not any(module.training for module in generator.modules())
    assert not any(parameter.requires_grad for parameter in generator.parameters())
    assert not generator([{"image": random_image(64, 64)}])[0].masks.values.requires_grad


@pytest.mark.parametrize("name", TRAINED)
def test_it_is_no_part_of_the_model_that_uses_it(name: str) -> None:
    model = MaskCLIPpp(CONFIGS[name]()).eval()
    before = set(model.state_dict())
    model([{"image": random_image(64, 64)}])
    assert set(model.state_dict()) == before
    model.train()
    assert not any(module.training for module in model._get_generator().modules())


@pytest.mark.parametrize("name", TRAINED)
def test_it_stays_in_evaluation_mode(name: str) -> None:
    assert not any(module.training for module in tiny_generator(name).train().modules())


@pytest.mark.parametrize("name", TRAINED)
def test_masks_are_finite_in_bfloat16(name: str) -> None:
    generator = tiny_generator(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = generator([{"image": random_image(64, 64)}])
    masks = found.masks.values
    assert masks.dtype == torch.float32
    assert masks.isfinite().all()


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("encoder", ["none", "DummyVisualEncoder"])
def test_a_generator_without_its_encoder_is_refused(name: str, encoder: str) -> None:
    message = rf"'{name}' decodes .*VISUAL_ENCODER_F\.NAME is '{encoder}'"
    with pytest.raises(ValueError, match=message):
        tiny_generator(name, ".VISUAL_ENCODER_F.NAME", encoder)


@pytest.mark.parametrize("name", TRAINED)
def test_a_map_that_the_encoder_does_not_give_is_named(name: str) -> None:
    node = CONFIGS[name]().MODEL.MASKCLIPPP
    *given, absent = node.VISUAL_ENCODER_F.OUT_FEATURES
    message = rf"IN_FEATURES: \['{absent}'\] are not feature maps .* gives \['{given[0]}'"
    with pytest.raises(ValueError, match=message):
        tiny_generator(name, ".VISUAL_ENCODER_F.OUT_FEATURES", given)


@pytest.mark.parametrize("name", TRAINED)
def test_a_missing_checkpoint_is_named(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"SEGMENTOR\.PRETRAINED: absent\.pth is not there"):
        tiny_generator(name, ".SEGMENTOR.PRETRAINED", "absent.pth")


@pytest.mark.parametrize("name", TRAINED)
def test_the_missing_checkpoint_is_told_before_the_encoder_is_built(name: str) -> None:
    """Which may be downloaded, or be in the same file."""
    options = (".SEGMENTOR.PRETRAINED", "absent.pth", ".VISUAL_ENCODER_F.PRETRAINED", "absent.pth")
    with pytest.raises(FileNotFoundError, match=r"SEGMENTOR\.PRETRAINED: absent\.pth is not there"):
        tiny_generator(name, *options)


@pytest.mark.parametrize("name", ["GTSegmentor", "SuperpixelSegmentor"])
def test_generators_without_feature_maps_need_no_encoder(name: str) -> None:
    generator = build_generator(tiny_config(".SEGMENTOR.NAME", name))
    (found,) = generator([labeled_record((48, 64), 0, 2)])
    assert len(found.masks) > 0
    assert found.masks.shape == (48, 64)
    assert found.masks.frame is None


@pytest.mark.parametrize("name", ["GTSegmentor", "PanGTSegmentor", "SuperpixelSegmentor"])
def test_an_encoder_whose_maps_are_not_read_is_not_built(name: str) -> None:
    generator = build_generator(
        fcclip_config(
            *(".SEGMENTOR.NAME", name, ".VISUAL_ENCODER_F.PRETRAINED", "absent.pth"),
            *(".VISUAL_ENCODER_F.TEST_RESIZE_TYPE", "short"),
            *(".VISUAL_ENCODER_F.TEST_IMAGE_SIZE", 32),
        )
    )
    assert not list(generator.parameters())
    if name == "GTSegmentor":  # ground-truth masks have the input size of the encoder all the same
        (found,) = generator([labeled_record((48, 64), 0, 2)])
        assert found.masks.values.shape == (2, 32, 42)


class NoMasks(MaskGenerator):
    """Classifies, as the trained generators, and finds nothing in any image."""

    def forward(self, records: Sequence[dict[str, Any]]) -> list[ImageMasks]:
        sizes = [(record["image"].shape[-2], record["image"].shape[-1]) for record in records]
        return [
            ImageMasks(
                SoftMasks(torch.zeros(0, 8, 8), Frame((64, 64), size)),
                torch.zeros(0, len(TEST_CLASSES) + 1),
            )
            for size in sizes
        ]


@pytest.mark.parametrize("psm", ["LinearPSM", "DummyPSM"])
def test_an_image_in_which_nothing_is_found(psm: str) -> None:
    model = tiny_model(
        *(".PSM.NAME", psm, ".TEST.ENSEMBLE_ON", True, ".TEST.GEOMETRIC_ENSEMBLE_ALPHA", 0.5),
        *("MODEL.MASK_FORMER.TEST.PANOPTIC_ON", True, "MODEL.MASK_FORMER.TEST.INSTANCE_ON", True),
    ).eval()
    model._get_generator = NoMasks
    (result,) = model([{"image": random_image(40, 60), "height": 45, "width": 50}])
    # All classes score 0: like every tie, the first one has it.
    assert result["sem_seg_labels"].shape == (45, 50)
    assert not result["sem_seg_labels"].any()
    ids, segments = result["panoptic_seg"]
    assert not ids.any()
    assert segments == []
    assert len(result["instances"]) == 0
