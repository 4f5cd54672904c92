"""Pixel statistics are those of the weights, unless the config sets others."""

import logging
from typing import Any

import pytest

from maskclippp.clip.pixel_statistics import pixel_statistics
from tests.tiny_models import tiny_config

CLIP = ([122.7709383, 116.7460125, 104.09373615], [68.5005327, 66.6321579, 70.32316305])
HALF = ([127.5] * 3, [127.5] * 3)


def statistics(model: str, pretrained: str, **options: Any) -> tuple[list[float], list[float]]:
    node = tiny_config().MODEL.MASKCLIPPP.VISUAL_ENCODER
    node.MODEL_NAME, node.PRETRAINED = model, pretrained
    for key, value in options.items():
        node[key] = value
    return pixel_statistics(node)


@pytest.mark.parametrize(
    ("model", "pretrained", "expected"),
    [
        ("ViT-B-16-SigLIP2-512", "webli", HALF),
        ("PE-Core-L-14-336", "meta", HALF),
        ("MobileCLIP2-S0", "dfndr2b", ([0.0] * 3, [255.0] * 3)),
        ("MobileCLIP2-S4", "dfndr2b", CLIP),
        ("ViT-L-14", "openai", CLIP),
        ("ViT-L-14", "laion2b-s32b-b82k", HALF),  # as open_clip accepts it
        ("EVA02-CLIP-L-14-336", "eva02_clip", CLIP),
        ("convnext_base_w_320", "laion_aesthetic-s13B-b82K-augreg", CLIP),
        ("ViT-B-16-SigLIP2-512", "some/file.safetensors", HALF),
        ("PE-Core-S-16-384", "random", HALF),
        ("shapes_convnext", "shapes", CLIP),
        ("", "", CLIP),
    ],
)
def test_statistics_of_the_weights(model: str, pretrained: str, expected: Any) -> None:
    assert statistics(model, pretrained) == expected


def test_statistics_of_the_config_go_first() -> None:
    own = {"PIXEL_MEAN": [1.0, 2.0, 3.0], "PIXEL_STD": [4.0, 5.0, 6.0]}
    assert statistics("ViT-B-16-SigLIP2", "webli", **own) == ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])


def test_a_file_of_a_model_with_different_weights_is_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert statistics("ViT-L-14", "some/file.pt") == CLIP
    assert "set both" in caplog.text
