"""The pixel decoder fits any feature pyramid and says what does not fit."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from benchmarks.plain import pixel_decoder as plain_pixel_decoder
from maskclippp.generators.mask2former.pixel_decoder import MSDeformAttnPixelDecoder

CHANNELS = {"stage1": 4, "stage2": 6, "stage3": 8, "stage4": 10}
STRIDES = {"stage1": 4, "stage2": 8, "stage3": 16, "stage4": 32}
SETTINGS: dict[str, Any] = {
    "channels": CHANNELS,
    "strides": STRIDES,
    "transformer_in_features": ["stage2", "stage3", "stage4"],
    "conv_dim": 32,
    "mask_dim": 12,
    "num_layers": 1,
    "num_heads": 4,
    "feedforward_dim": 16,
}


def build(**changes: Any) -> MSDeformAttnPixelDecoder:
    torch.manual_seed(0)
    return MSDeformAttnPixelDecoder(**{**SETTINGS, **changes}).eval()


def random_features(batch: int = 2, size: tuple[int, int] = (17, 26)) -> dict[str, Tensor]:
    """Features of odd sizes, each half of the finer one, rounded up."""
    torch.manual_seed(1)
    features = {}
    for name, channels in CHANNELS.items():
        features[name] = torch.randn(batch, channels, *size)
        size = (size[0] + 1) // 2, (size[1] + 1) // 2
    return features


@pytest.mark.parametrize("first", range(4))
def test_decoding_equals_the_straightforward_formulation(first: int) -> None:
    decoder = build(transformer_in_features=list(CHANNELS)[first:], num_layers=2)
    for layer in decoder.transformer.encoder.layers:
        # A fresh layer samples at cell centers, all points alike.
        nn.init.normal_(layer.self_attn.sampling_offsets.weight, std=0.1)
        nn.init.normal_(layer.self_attn.attention_weights.weight)
    features = random_features()
    output = decoder(features)
    mask_features, maps = plain_pixel_decoder.decode(decoder, features)
    assert_close(output.mask_features, mask_features)
    for found, expected in zip(output.multi_scale_features, maps, strict=True):
        assert_close(found, expected)


def test_every_image_is_decoded_alone() -> None:
    decoder, features = build(), random_features()
    together = decoder(features)
    for index in range(2):
        alone = decoder({name: maps[index : index + 1] for name, maps in features.items()})
        assert_close(together.mask_features[index : index + 1], alone.mask_features)
        for found, expected in zip(
            together.multi_scale_features, alone.multi_scale_features, strict=True
        ):
            assert_close(found[index : index + 1], expected)


@pytest.mark.parametrize("first", range(4))
def test_any_split_between_encoder_and_pyramid(first: int) -> None:
    features = random_features()
    output = build(transformer_in_features=list(CHANNELS)[first:])(features)
    assert output.mask_features.shape == (2, 12, 17, 26)
    sizes = [tuple(features[name].shape[-2:]) for name in ("stage4", "stage3", "stage2")]
    assert [tuple(maps.shape) for maps in output.multi_scale_features] == [
        (2, 32, *size) for size in sizes
    ]


def test_pyramid_steps_are_numbered_from_the_finest_feature() -> None:
    decoder = build(transformer_in_features=["stage4"])
    widths = [decoder.get_parameter(f"adapter_{i}.weight").shape[1] for i in (1, 2, 3)]
    assert widths == [CHANNELS[name] for name in ("stage1", "stage2", "stage3")]


def test_order_of_names_does_not_matter() -> None:
    features = random_features()
    shuffled = build(transformer_in_features=["stage3", "stage4", "stage2"])
    assert_close(shuffled(features).mask_features, build()(features).mask_features)


def test_float16_autocast_does_not_change_the_result() -> None:
    decoder, features = build(), random_features()
    with torch.autocast("cpu", dtype=torch.float16):
        output = decoder(features)
    assert torch.equal(output.mask_features, decoder(features).mask_features)


def test_bfloat16_autocast_is_close_and_keeps_norms_and_sums_in_float32() -> None:
    decoder, features = build(), random_features()
    expected = decoder(features)
    norms: list[torch.dtype] = []
    for layer in decoder.transformer.encoder.layers:
        layer.get_submodule("norm2").register_forward_hook(
            lambda *call: norms.append(call[-1].dtype)
        )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = decoder(features)
    assert found.mask_features.dtype == torch.bfloat16
    assert norms
    assert set(norms) == {torch.float32}
    assert_close(found.mask_features.float(), expected.mask_features, rtol=0.1, atol=0.1)


def test_half_precision_features_are_accepted() -> None:
    decoder, features = build(), random_features()
    output = decoder({name: maps.half() for name, maps in features.items()})
    assert_close(output.mask_features, decoder(features).mask_features, rtol=0.01, atol=0.01)


def test_half_precision_weights_are_accepted() -> None:
    decoder, features = build(), random_features()
    expected = decoder(features).mask_features
    found = decoder.bfloat16()(features).mask_features
    assert_close(found.float(), expected, rtol=0.1, atol=0.1)


def test_every_parameter_is_trained() -> None:
    decoder = build().train()
    output = decoder(random_features())
    (output.mask_features**2).mean().backward()
    untrained = [name for name, value in decoder.named_parameters() if value.grad is None]
    assert untrained == []


def test_missing_feature_is_named() -> None:
    features = random_features()
    del features["stage3"]
    with pytest.raises(ValueError, match=r"'stage3' of shape \[B, 8, h, w\] expected, found \['st"):
        build()(features)


def test_feature_of_another_encoder_is_named() -> None:
    features = {**random_features(), "stage1": torch.zeros(2, 5, 17, 26)}
    with pytest.raises(ValueError, match=r"'stage1'.*\[B, 4, h, w\].*found the shape \[2, 5, 17"):
        build()(features)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv_dim": 48}, "multiple of 32.*found 48"),
        ({"norm": "BN"}, "norm must be one of.*'BN'"),
        ({"transformer_in_features": ["stage5"]}, "stage5"),
        ({"transformer_in_features": []}, "must be among"),
        ({"common_stride": 2}, "must double, found"),
        ({"strides": {**STRIDES, "stage2": 16}}, "must double, found"),
        (
            {
                "channels": {"stage1": 4, "stage2": 6},
                "strides": {"stage1": 4, "stage2": 8},
                "transformer_in_features": ["stage2"],
            },
            "3 feature maps expected.*make 2",
        ),
        ({"num_heads": 5}, "5 heads"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**changes)
