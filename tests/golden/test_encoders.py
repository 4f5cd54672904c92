"""The encoders compute what the published implementation computes."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from maskclippp.clip import CLIPConvNeXt
from maskclippp.masks.batching import (
    InputFormat,
    Resize,
    downsample_masks,
    pad_batch,
    resize_bilinear,
)
from maskclippp.masks.soft_masks import Frame, SoftMasks
from tests.golden_cases import GoldenCase, cases, indexed
from tests.golden_models import (
    check_sizes,
    encoder_arguments,
    map_names,
    open_clip_tower,
    register_convnext,
)
from tests.tiny_models import soft

CONVNEXT = cases("convnext_encoder")
CPU = torch.device("cpu")


def build_convnext(case: GoldenCase, variant: str) -> CLIPConvNeXt:
    trunk, config = case.info["trunk"], case.info["config"]
    assert config["MASK_PRIOR_BEG"] == 5  # the only one that the encoder supports
    model = case.info["open_clip_model_config"]
    name = register_convnext(trunk["depths"], trunk["dims"], trunk["norm_eps"])
    vision = {**model["vision_cfg"], "timm_model_name": name}
    named = {**case.info, "open_clip_model_config": {**model, "vision_cfg": vision}}
    encoder = CLIPConvNeXt(
        proxy=open_clip_tower(replace(case, info=named)),
        **encoder_arguments(case, variant),
        downsample_method=config["DOWNSAMPLE_METHOD"],
    )
    encoder.load_state_dict(case.tensors("weights"))
    return encoder.train(variant.startswith("train"))


@pytest.mark.parametrize(
    ("case", "variant"),
    [(case, variant) for case in CONVNEXT for variant in case.info["variants"]],
    ids=lambda value: str(value),
)
def test_convnext_encoder(case: GoldenCase, variant: str) -> None:
    inputs, expected = case.tensors("inputs"), case.outputs_of(variant)
    encoder = build_convnext(case, variant)
    with torch.no_grad():
        encoded = encoder(indexed(inputs, "image_"), soft(indexed(inputs, "masks_")))
    check = case.tolerance
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


@pytest.mark.parametrize("case", cases("encoder_input_resize"), ids=str)
def test_input_resize(case: GoldenCase) -> None:
    inputs, outputs = case.tensors("inputs"), case.tensors("outputs")
    images, masks = indexed(inputs, "image_"), indexed(inputs, "masks_")
    for name, run in case.info["runs"].items():
        size = run["TEST_IMAGE_SIZE or TEST_IMAGE_SCALE"] or 1
        kind = run["TEST_RESIZE_TYPE"]
        resize = Resize(kind, size if kind in ("short", "square") else 0, size)
        fmt = InputFormat(case.info["PIXEL_MEAN"], case.info["PIXEL_STD"], run["SIZE_DIVISIBILITY"])
        batch = pad_batch(images, soft(masks), fmt, resize, CPU)
        assert batch.image_sizes == [tuple(size) for size in run["image_sizes"]]
        assert list(batch.images.shape[-2:]) == run["padded"]
        assert_close(batch.images, outputs[f"{name}/images"], **case.tolerance)
        expected = torch.cat(indexed(outputs, f"{name}/masks_"))
        assert_close(batch.padded_masks(), expected, **case.tolerance)


@pytest.mark.parametrize("case", cases("encoder_input_resize"), ids=str)
def test_masks_of_another_resolution(case: GoldenCase) -> None:
    inputs, outputs = case.tensors("inputs"), case.tensors("outputs")
    run = list(case.info["runs"].values())[-1]
    scale = run["TEST_IMAGE_SIZE or TEST_IMAGE_SCALE"]
    fmt = InputFormat(case.info["PIXEL_MEAN"], case.info["PIXEL_STD"], run["SIZE_DIVISIBILITY"])
    late = soft(indexed(inputs, "late_unpadded_"))
    batch = pad_batch(
        indexed(inputs, "image_"),
        late,
        fmt,
        Resize(run["TEST_RESIZE_TYPE"], scale, scale),
        CPU,
    )
    expected = torch.cat(indexed(outputs, "set_unpadded/masks_"))
    assert_close(batch.padded_masks(), expected, **case.tolerance)


@pytest.mark.parametrize("case", cases("encoder_input_resize"), ids=str)
def test_masks_of_the_padded_batch(case: GoldenCase) -> None:
    inputs, outputs = case.tensors("inputs"), case.tensors("outputs")
    late = indexed(inputs, "late_padded_")
    if not late:
        pytest.skip("the compact copy leaves out these masks")
    run = list(case.info["runs"].values())[-1]
    padded_size = tuple(run["padded"])
    for index, values in enumerate(late):
        enlarged = SoftMasks(values).resized(padded_size)
        assert_close(enlarged, outputs[f"set_padded/masks_{index}"], **case.tolerance)
        image_size = tuple(run["image_sizes"][index])
        in_image = SoftMasks(values, Frame(padded_size, image_size)).resized(image_size)
        expected = outputs[f"set_padded_then_unpadded/masks_{index}"]
        assert_close(in_image, expected, **case.tolerance)


@pytest.mark.parametrize("case", cases("downsample_masks"), ids=str)
def test_downsample_masks(case: GoldenCase) -> None:
    inputs, outputs = case.tensors("inputs"), case.tensors("outputs")
    masks = inputs["masks"].requires_grad_()
    first = tuple(case.info["config"]["targets"][0])
    for name, expected in outputs.items():
        if name.startswith("grad_"):
            result = downsample_masks(masks, first, name.removeprefix("grad_"))
            (result * inputs["cotangent"]).sum().backward()
            assert_close(masks.grad, expected, **case.tolerance)
            masks.grad = None
        else:
            method, size = name.split("/")
            height, width = map(int, size.split("x"))
            result = downsample_masks(masks, (height, width), method)
            assert_close(result, expected, **case.tolerance)


@pytest.mark.parametrize("case", cases("downsample_masks"), ids=str)
def test_direct_sampling_equals_resizing_the_padded_masks(case: GoldenCase) -> None:
    """The shortcut for bilinear shrinking reads the same 2 x 2 pixels."""
    masks = case.tensors("inputs")["masks"]
    height, width = masks.shape[-2:]
    image = torch.zeros(3, height, width)
    fmt = InputFormat([0.0] * 3, [1.0] * 3, size_divisibility=32)
    batch = pad_batch([image], soft([masks]), fmt, Resize(), CPU)
    for target in case.info["config"]["targets"]:
        direct = batch.downsampled_masks(tuple(target))
        assert_close(direct, resize_bilinear(batch.padded_masks(), tuple(target)))
