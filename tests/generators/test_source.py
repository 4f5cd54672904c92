"""A generator with its encoder turns images into masks, whatever the generator is."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from maskclippp.clip import EncodedImages
from maskclippp.generators import GeneratedMasks, MaskGenerator, MaskSource, build_mask_source
from maskclippp.masks.soft_masks import Frame
from maskclippp.meta_arch import MaskCLIPpp
from tests.generators.tiny_generators import CONFIGS, NUM_QUERIES, fcclip_config, tiny_source
from tests.tiny_models import TEST_CLASSES, labeled_record, random_image, tiny_config, tiny_model

SIZES = [(64, 96), (50, 71)]
TRAINED = list(CONFIGS)


@pytest.mark.parametrize("name", TRAINED)
def test_masks_are_probabilities_that_span_the_padded_batch(name: str) -> None:
    generated = tiny_source(name)([{"image": random_image(*size)} for size in SIZES])
    assert generated.frames is not None
    for masks, frame, size in zip(generated.masks, generated.frames, SIZES, strict=True):
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
    source = tiny_source(
        name,
        *(".VISUAL_ENCODER_F.TEST_RESIZE_TYPE", "short", ".VISUAL_ENCODER_F.TEST_IMAGE_SIZE", 40),
    )
    generated = source([{"image": random_image(50, 75)}])
    assert generated.frames is not None
    assert generated.frames[0].image_size == (40, 60)
    assert generated.frames[0].padded_size == (64, 64)


@pytest.mark.parametrize("name", TRAINED)
def test_images_of_one_size_do_not_change_each_other(name: str) -> None:
    source = tiny_source(name)
    records = [{"image": random_image(40, 60)} for _ in range(3)]
    together = source(records)
    for index, record in enumerate(records):
        assert_close(together.masks[index], source([record]).masks[0])


@pytest.mark.parametrize("name", TRAINED)
def test_it_is_never_trained(name: str) -> None:
    source = tiny_source(name)
    assert not any(module.training for module in source.modules())
    assert not any(parameter.requires_grad for parameter in source.parameters())
    assert not source([{"image": random_image(64, 64)}]).masks[0].requires_grad


@pytest.mark.parametrize("name", TRAINED)
def test_it_is_no_part_of_the_model_that_uses_it(name: str) -> None:
    model = MaskCLIPpp(CONFIGS[name]()).eval()
    before = set(model.state_dict())
    model([{"image": random_image(64, 64)}])
    assert set(model.state_dict()) == before
    model.train()
    assert not any(module.training for module in model._get_mask_source().modules())


@pytest.mark.parametrize("name", TRAINED)
def test_it_stays_in_evaluation_mode(name: str) -> None:
    assert not any(module.training for module in tiny_source(name).train().modules())


@pytest.mark.parametrize("name", TRAINED)
def test_masks_are_finite_in_bfloat16(name: str) -> None:
    source = tiny_source(name)
    record = {"image": random_image(64, 64)}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (masks,) = source([record]).masks
    assert masks.dtype == torch.float32
    assert masks.isfinite().all()


@pytest.mark.parametrize("name", TRAINED)
def test_a_generator_without_its_encoder_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"'{name}' decodes .*VISUAL_ENCODER_F\.NAME is 'none'"):
        tiny_source(name, ".VISUAL_ENCODER_F.NAME", "none")


@pytest.mark.parametrize("name", TRAINED)
def test_a_map_that_the_encoder_does_not_give_is_named(name: str) -> None:
    node = CONFIGS[name]().MODEL.MASKCLIPPP
    *given, absent = node.VISUAL_ENCODER_F.OUT_FEATURES
    message = rf"IN_FEATURES: \['{absent}'\] are no feature maps .* gives \['{given[0]}'"
    with pytest.raises(ValueError, match=message):
        tiny_source(name, ".VISUAL_ENCODER_F.OUT_FEATURES", given)


@pytest.mark.parametrize("name", TRAINED)
def test_a_missing_checkpoint_is_named(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"SEGMENTOR\.PRETRAINED: absent\.pth is not there"):
        tiny_source(name, ".SEGMENTOR.PRETRAINED", "absent.pth")


@pytest.mark.parametrize("name", TRAINED)
def test_the_missing_checkpoint_is_told_before_the_encoder_is_built(name: str) -> None:
    """Which may be downloaded, or be in the same file."""
    options = (".SEGMENTOR.PRETRAINED", "absent.pth", ".VISUAL_ENCODER_F.PRETRAINED", "absent.pth")
    with pytest.raises(FileNotFoundError, match=r"SEGMENTOR\.PRETRAINED: absent\.pth is not there"):
        tiny_source(name, *options)


@pytest.mark.parametrize("name", ["GTSegmentor", "SuperpixelSegmentor"])
def test_generators_without_feature_maps_need_no_encoder(name: str) -> None:
    source = build_mask_source(tiny_config(".SEGMENTOR.NAME", name))
    assert source.encoder is None
    generated = source([labeled_record((48, 64), 0, 2)])
    assert len(generated.masks[0]) > 0
    assert generated.frames is None


@pytest.mark.parametrize("name", ["GTSegmentor", "PanGTSegmentor", "SuperpixelSegmentor"])
def test_an_encoder_whose_maps_are_not_read_is_not_built(name: str) -> None:
    source = build_mask_source(
        fcclip_config(
            *(".SEGMENTOR.NAME", name, ".VISUAL_ENCODER_F.PRETRAINED", "absent.pth"),
            *(".VISUAL_ENCODER_F.TEST_RESIZE_TYPE", "short"),
            *(".VISUAL_ENCODER_F.TEST_IMAGE_SIZE", 32),
        )
    )
    assert not list(source.parameters())
    if name == "GTSegmentor":  # true masks have the size of the images of the encoder all the same
        assert source([labeled_record((48, 64), 0, 2)]).masks[0].shape == (2, 32, 42)


class NoMasks(MaskGenerator):
    """Classifies, as the trained generators, and finds nothing in any image."""

    def forward(
        self, batched_inputs: Sequence[dict[str, Any]], encoded: EncodedImages | None
    ) -> GeneratedMasks:
        sizes = [
            (record["image"].shape[-2], record["image"].shape[-1]) for record in batched_inputs
        ]
        return GeneratedMasks(
            masks=[torch.zeros(0, 8, 8) for _ in sizes],
            logits=[torch.zeros(0, len(TEST_CLASSES) + 1) for _ in sizes],
            classifier="open",
            frames=[Frame((64, 64), size) for size in sizes],
        )


@pytest.mark.parametrize("psm", ["LinearPSM", "DummyPSM"])
def test_an_image_in_which_nothing_is_found(psm: str) -> None:
    model = tiny_model(
        *(".PSM.NAME", psm, ".TEST.ENSEMBLE_ON", True, ".TEST.GEOMETRIC_ENSEMBLE_ALPHA", 0.5),
        *("MODEL.MASK_FORMER.TEST.PANOPTIC_ON", True, "MODEL.MASK_FORMER.TEST.INSTANCE_ON", True),
    ).eval()
    model._get_mask_source = lambda: MaskSource(NoMasks())
    (result,) = model([{"image": random_image(40, 60), "height": 45, "width": 50}])
    # All classes score 0: like every tie, the first one has it.
    assert result["sem_seg_labels"].shape == (45, 50)
    assert not result["sem_seg_labels"].any()
    ids, segments = result["panoptic_seg"]
    assert not ids.any()
    assert segments == []
    assert len(result["instances"]) == 0
