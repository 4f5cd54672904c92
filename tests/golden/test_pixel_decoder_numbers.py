"""The pixel decoder computes what the published implementation computes, by its own key names."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from maskclippp.generators.mask2former.deformable_attention import (
    MultiScaleDeformableAttention,
    sample_multi_scale,
)
from maskclippp.generators.mask2former.pixel_decoder import (
    MSDeformAttnPixelDecoder,
    PixelDecoderOutput,
)
from maskclippp.generators.mask2former.sine_position import sine_position_encoding
from tests.golden_cases import COMPACT_COPY, GoldenCase, cases, golden_root

ATTENTION = cases("ms_deform_attn")
SAMPLING = [case for case in ATTENTION if "weights" not in case.info]
MODULES = [case for case in ATTENTION if "weights" in case.info]
DECODERS = cases("pixel_decoder")
INVENTORIES = {
    path.name.split(".")[0]: path
    for root in (COMPACT_COPY, golden_root())
    for path in sorted(root.glob("checkpoint_keys/maskgenerator__*.json.gz"))
}


def sizes_of(inputs: dict[str, Tensor]) -> list[tuple[int, int]]:
    return [(height, width) for height, width in inputs["spatial_shapes"].tolist()]


@pytest.mark.parametrize("case", SAMPLING, ids=str)
def test_sampling_and_its_gradients(case: GoldenCase) -> None:
    inputs, expected = case.tensors("inputs"), case.tensors("outputs")
    arguments = {
        name: inputs[name].requires_grad_()
        for name in ("value", "sampling_locations", "attention_weights")
    }
    output = sample_multi_scale(spatial_shapes=sizes_of(inputs), **arguments)
    assert_close(output, expected.pop("out"), **case.tolerance)
    (output * inputs["cotangent"]).sum().backward()
    for name, gradient in expected.items():
        found = arguments[name.removeprefix("grad/")].grad
        assert_close(found, gradient, **case.tolerance, msg=lambda text, n=name: f"{n}: {text}")


def build_attention(case: GoldenCase) -> MultiScaleDeformableAttention:
    config = case.info["config"]
    return MultiScaleDeformableAttention(
        channels=config["d_model"],
        num_levels=len(config["shapes"]),
        num_heads=config["heads"],
        num_points=config["points"],
    )


@pytest.mark.parametrize("case", MODULES, ids=str)
def test_attention_and_its_gradients(case: GoldenCase) -> None:
    inputs, expected = case.tensors("inputs"), case.tensors("outputs")
    check, attention = case.tolerance, build_attention(case)
    for name in [name for name in expected if name.startswith("init/")]:
        fresh = attention.get_parameter(name.removeprefix("init/"))
        assert_close(fresh.detach(), expected.pop(name), **check)
    attention.load_state_dict(case.tensors("weights"))
    query, source, points = (
        inputs[name].requires_grad_() for name in ("query", "src", "reference_points")
    )
    sizes, padding = sizes_of(inputs), inputs["padding_mask"]
    boxes = inputs["reference_boxes"]
    padded = attention(query, points, source, sizes, padding)
    assert_close(padded, expected.pop("out_padded"), **check)
    assert_close(attention(query, points, source, sizes), expected.pop("out"), **check)
    with_boxes = attention(query, boxes, source, sizes, padding)
    assert_close(with_boxes, expected.pop("out_boxes"), **check)
    (padded * inputs["cotangent"]).sum().backward()
    for name, gradient in expected.items():
        part = name.removeprefix("grad/")
        parameter = part.removeprefix("weights/")
        leaf = inputs[part] if part in inputs else attention.get_parameter(parameter)
        assert_close(leaf.grad, gradient, **check, msg=lambda text, n=name: f"{n}: {text}")


def build_decoder(config: dict[str, Any]) -> MSDeformAttnPixelDecoder:
    shapes = config["feature_shapes"]
    return MSDeformAttnPixelDecoder(
        channels={name: channels for name, (channels, _) in shapes.items()},
        strides={name: stride for name, (_, stride) in shapes.items()},
        transformer_in_features=config["transformer_in_features"],
        conv_dim=config["conv_dim"],
        mask_dim=config["mask_dim"],
        norm=config["norm"],
        num_layers=config["transformer_enc_layers"],
        num_heads=config["transformer_nheads"],
        feedforward_dim=config["transformer_dim_feedforward"],
        dropout=config["transformer_dropout"],
        common_stride=config["common_stride"],
    ).eval()


def run_decoder(case: GoldenCase, variant: str) -> PixelDecoderOutput:
    decoder = build_decoder(case.info["config"])
    assert decoder.transformer_in_features == case.info["config"]["levels_used_by_encoder"]
    decoder.load_state_dict(case.tensors("weights"))
    prefix = f"{variant}/"
    features = {
        name.removeprefix(prefix): tensor
        for name, tensor in case.tensors("inputs").items()
        if name.startswith(prefix)
    }
    with torch.no_grad():
        return decoder(features)


def variants(case: GoldenCase) -> list[str]:
    return sorted({name.split("/")[0] for name in case.info["inputs"]})


@pytest.mark.parametrize(
    ("case", "variant"),
    [(case, variant) for case in DECODERS for variant in variants(case)],
    ids=str,
)
def test_pixel_decoder(case: GoldenCase, variant: str) -> None:
    output, check = run_decoder(case, variant), case.tolerance
    expected = {
        name.removeprefix(f"{variant}/"): tensor
        for name, tensor in case.tensors("outputs").items()
        if name.startswith(f"{variant}/")
    }
    assert_close(output.mask_features, expected.pop("mask_features"), **check)
    for index, found in enumerate(output.multi_scale_features):
        assert_close(found, expected.pop(f"multi_scale/{index}"), **check)
    for name, encoding in expected.items():
        assert name.startswith("pos/"), f"{name} was not compared"
        size = (encoding.shape[-2], encoding.shape[-1])
        found = sine_position_encoding(size, encoding.shape[1], device=encoding.device)
        assert_close(found[None], encoding, **check)


@pytest.mark.parametrize("path", INVENTORIES.values(), ids=INVENTORIES.keys())
def test_every_published_key_has_its_place(path: Path) -> None:
    prefix = "sem_seg_head.pixel_decoder."
    published = {
        key.removeprefix(prefix): tuple(shape)
        for key, shape in json.loads(gzip.decompress(path.read_bytes()))[
            "consumed_by_segmentor"
        ].items()
        if key.startswith(prefix)
    }
    with torch.device("meta"):
        decoder = MSDeformAttnPixelDecoder(**sizes_from_inventory(published))
    assert {key: tuple(value.shape) for key, value in decoder.state_dict().items()} == published


def sizes_from_inventory(published: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Constructor arguments of the pixel decoder that a checkpoint belongs to."""
    layers = "transformer.encoder.layers."
    levels, conv_dim = published["transformer.level_embed"]
    steps = {key.split(".")[0] for key in published if key.startswith("adapter_")}
    finer = [published[f"{step}.weight"][1] for step in sorted(steps)]
    coarser = [published[f"input_proj.{level}.0.weight"][1] for level in reversed(range(levels))]
    return {
        "channels": {f"stage{i}": width for i, width in enumerate([*finer, *coarser])},
        "strides": {f"stage{i}": 4 * 2**i for i in range(len(finer) + levels)},
        "transformer_in_features": [f"stage{len(finer) + i}" for i in range(levels)],
        "conv_dim": conv_dim,
        "mask_dim": published["mask_features.weight"][0],
        "norm": "GN" if "layer_1.norm.weight" in published else "",
        "num_layers": len({key.split(".")[3] for key in published if key.startswith(layers)}),
        "feedforward_dim": published[f"{layers}0.linear1.bias"][0],
    }
