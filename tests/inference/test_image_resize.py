"""Images that the model resizes have the pixels that Pillow gives them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskclippp.data.mappers import EvaluationMapper
from maskclippp.inference.image_resize import resize_like_pillow
from maskclippp.meta_arch import MaskCLIPpp
from tests.tiny_models import tiny_config

SIZES = [
    *((h, w, 61, 37) for h, w in ((61, 37), (1, 1), (40, 25), (120, 111), (61, 200), (9, 37))),
    *((50, 70, h, w) for h, w in ((1, 1), (100, 140), (7, 500), (49, 71), (300, 3))),
    *((427, 640, 800, 1199), (1000, 9, 800, 900), (1000, 9, 1200, 20), (9, 1000, 20, 800)),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("contrast", [False, True])
def test_pixels_are_those_of_pillow(size: tuple[int, int, int, int], contrast: bool) -> None:
    height, width, *target = size
    pixels = np.random.randint(0, 256, (height, width, 3), dtype=np.uint8)
    if contrast:
        pixels = np.where(pixels > 127, np.uint8(255), np.uint8(0))
    expected = Image.fromarray(pixels).resize((target[1], target[0]), Image.Resampling.BILINEAR)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    resized = resize_like_pillow(image, (target[0], target[1]))
    assert np.array_equal(resized.permute(1, 2, 0).numpy(), np.asarray(expected))


def test_the_model_resizes_as_the_loader_does(tmp_path: Path) -> None:
    pixels = np.random.randint(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    model = MaskCLIPpp(tiny_config(".TEXT_CACHE", False, ".SEGMENTOR.NAME", "SuperpixelSegmentor"))
    seen: list[Any] = []
    model.visual_encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0][0]))
    labels = []
    for on_device in (False, True):
        mapper = EvaluationMapper(
            min_size=64, max_size=80, with_ground_truth=False, resize_on_device=on_device
        )
        record = mapper({"file_name": str(tmp_path / "image.png")})
        assert record["image"].shape == ((3, 50, 70) if on_device else (3, 57, 80))
        results: Any = model.eval()([record])
        labels.append(results[0]["sem_seg_labels"])
    assert torch.equal(*seen)
    assert labels[0].shape == (50, 70)
    assert torch.equal(*labels)
