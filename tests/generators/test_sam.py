"""SAM, SAM-HQ and SAM 2 as generators: a grid of points, filters, and suppression."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.testing import assert_close

from maskclippp.errors import InputError
from maskclippp.generators import SamSegmentor, build_generator
from maskclippp.generators.sam import GridOptions
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.masks.suppression import _iou
from tests.generators.tiny_transformers import SAM_MODELS, save_tiny_model, save_tiny_sam
from tests.tiny_models import random_image, tiny_config

# A random model is never sure of its masks.
EVERYTHING = {"MIN_IOU": -1000.0, "MIN_STABILITY": 0.0, "MAX_OVERLAP": 1.0}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: save_tiny_sam(kind, folder / kind) for kind in SAM_MODELS}


def build(folder: Path, **settings: Any) -> SamSegmentor:
    keys = {"POINTS_PER_SIDE": 4, "POINTS_PER_BATCH": 5, **EVERYTHING, **settings}
    values = [item for key, value in keys.items() for item in (f".SEGMENTOR.SAM.{key}", value)]
    named = (".SEGMENTOR.NAME", "SamSegmentor", ".SEGMENTOR.PRETRAINED", str(folder))
    generator = build_generator(tiny_config(*named, *values))
    assert isinstance(generator, SamSegmentor)
    return generator


def find(generator: SamSegmentor, image: Tensor) -> SoftMasks:
    with torch.no_grad():
        (found,) = generator([{"image": image}])
    assert found.logits is None
    return found.masks


@pytest.mark.parametrize("size", [(60, 90), (100, 50)], ids=str)
@pytest.mark.parametrize("kind", SAM_MODELS)
def test_a_point_proposes_the_masks_of_the_library(
    kind: str, size: tuple[int, int], models: dict[str, Path]
) -> None:
    image = random_image(*size)
    processors = {
        "sam": transformers.SamProcessor,
        "sam_hq": transformers.SamHQProcessor,
        "sam2": transformers.Sam2Processor,
    }
    processor = processors[kind](transformers.AutoImageProcessor.from_pretrained(models[kind]))
    model = transformers.AutoModelForMaskGeneration.from_pretrained(models[kind]).eval()
    center = [[[[size[1] / 2, size[0] / 2]]]]
    inputs = processor(images=[image], input_points=center, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**{key: inputs[key] for key in ("pixel_values", "input_points")})
    masks, scores = outputs.pred_masks[0, 0], outputs.iou_scores[0, 0]
    found = find(build(models[kind], POINTS_PER_SIDE=1), image)
    filled = [
        index for index in scores.argsort(descending=True).tolist() if (masks[index] > 0).any()
    ]
    expected = masks[filled].sigmoid()
    assert_close(found.values, expected, atol=1e-5, rtol=0)
    if found.frame is not None:
        resized = inputs["reshaped_input_sizes"][0].tolist()
        assert list(found.frame.image_size) == resized


@pytest.mark.parametrize("kind", SAM_MODELS)
def test_the_number_of_points_at_once_does_not_matter(kind: str, models: dict[str, Path]) -> None:
    image = random_image(60, 90)
    few, many = (
        find(build(models[kind], POINTS_PER_BATCH=number), image).values for number in (3, 100)
    )
    assert len(few) > 3
    assert_close(few.flatten(1).sum(1).sort().values, many.flatten(1).sum(1).sort().values)


def test_masks_of_low_quality_or_stability_are_dropped(models: dict[str, Path]) -> None:
    image = random_image(60, 90)
    number = len(find(build(models["sam"]), image))
    stable = len(find(build(models["sam"], MIN_STABILITY=0.5, STABILITY_OFFSET=0.1), image))
    assert 0 < stable < number
    assert len(find(build(models["sam"], MIN_IOU=1000.0), image)) == 0


def test_no_two_masks_overlap_more_than_allowed(models: dict[str, Path]) -> None:
    image = random_image(64, 64)  # without padding
    masks = find(build(models["sam"], MAX_OVERLAP=0.3), image).values > 0.5
    assert 1 < len(masks) < len(find(build(models["sam"]), image))
    overlaps = _iou(masks.flatten(1)).fill_diagonal_(0)
    assert overlaps.max() <= 0.3


def test_a_grid_has_points(models: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"SAM\.POINTS_PER_SIDE: expected >= 1, found 0"):
        build(models["sam"], POINTS_PER_SIDE=0)


def test_a_model_that_takes_no_points_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"of the type 'eomt', but SamSegmentor can use \['sam'"):
        build(save_tiny_model("eomt", tmp_path))


class Proposes(nn.Module):
    """Always the same masks and scores, in the place of SAM."""

    def __init__(self, masks: torch.Tensor, scores: list[float]) -> None:
        super().__init__()
        self.masks, self.scores = masks, scores

    def forward(self, **_: object) -> SimpleNamespace:
        return SimpleNamespace(
            pred_masks=self.masks[None, None], iou_scores=torch.tensor([[self.scores]])
        )


def test_masks_at_the_limits_are_kept_and_empty_ones_dropped() -> None:
    """Only the image counts for stability: the lower half is padding."""
    full, empty, good = torch.full((4, 4), 5.0), torch.full((4, 4), -5.0), torch.full((4, 4), 5.0)
    good[2:] = 0.0
    model = Proposes(torch.stack([full, empty, good, full]), [0.5, 0.9, 0.9, 0.4375])
    segmentor = SamSegmentor(model=model, processor=None, options=GridOptions(min_iou=0.5))
    logits, inside, scores = segmentor._propose({}, torch.zeros(1, 2), (0.5, 1.0))
    assert scores.tolist() == pytest.approx([0.5, 0.9])
    assert inside.shape == (2, 2, 4)
    assert logits.shape == (2, 4, 4)
