"""The Swin backbone of Mask2Former takes any images, and only weights that fit."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from torch.testing import assert_close

from maskclippp.clip.swin import D2SwinTransformer
from maskclippp.config.keys import get_cfg
from tests.tiny_models import random_image, soft

STRIDES = {"res2_f": 4, "res3_f": 8, "res4_f": 16, "res5_f": 32}


def tiny_nodes(**node_keys: Any) -> tuple[CfgNode, CfgNode]:
    """VISUAL_ENCODER_F and MODEL.SWIN of a backbone of a few thousand random parameters."""
    cfg = get_cfg()
    node, swin = cfg.MODEL.MASKCLIPPP.VISUAL_ENCODER_F, cfg.MODEL.SWIN
    node.NAME, node.PRETRAINED, node.SIZE_DIVISIBILITY = "D2SwinTransformer", "random", 32
    node.OUT_FEATURES = list(STRIDES)
    for key, value in node_keys.items():
        node[key] = value
    swin.EMBED_DIM, swin.DEPTHS, swin.NUM_HEADS, swin.WINDOW_SIZE = 8, [2, 1, 2, 1], [1, 1, 2, 2], 4
    return node, swin


def tiny_swin(**node_keys: Any) -> D2SwinTransformer:
    node, swin = tiny_nodes(**node_keys)
    return D2SwinTransformer(node, swin=swin)


def save(encoder: D2SwinTransformer, path: Path) -> Path:
    """As the published files: a state dict under ``model``, beside keys of the head."""
    backbone = {f"backbone.{name}": value for name, value in encoder.proxy.state_dict().items()}
    state = {**backbone, "sem_seg_head.some": torch.ones(1)}
    if path.suffix == ".pkl":
        arrays = {name: value.numpy() for name, value in state.items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "third_party"}))
    else:
        torch.save({"model": state}, path)
    return path


@pytest.mark.parametrize("divisibility", [0, 32])
@pytest.mark.parametrize("size", [(64, 96), (33, 61), (5, 7), (1, 1)], ids=str)
def test_every_size_gives_maps_of_the_four_strides(
    size: tuple[int, int], divisibility: int
) -> None:
    encoder = tiny_swin(SIZE_DIVISIBILITY=divisibility).eval()
    maps = encoder([random_image(*size)]).maps
    sides = [-(-side // max(divisibility, 1)) * max(divisibility, 1) for side in size]
    for name, stride in STRIDES.items():
        assert list(maps[name].shape[-2:]) == [-(-side // stride) for side in sides]
        assert maps[name].isfinite().all()


def test_images_of_a_batch_are_independent() -> None:
    encoder = tiny_swin().eval()
    images = [random_image(41, 50) for _ in range(3)]
    together = encoder(images).maps
    for index, image in enumerate(images):
        for name, alone in encoder([image]).maps.items():
            assert_close(together[name][index : index + 1], alone)


def test_only_the_maps_asked_for_are_given() -> None:
    encoder = tiny_swin(OUT_FEATURES=["res4_f", "res2_f"])
    assert set(encoder([random_image(32, 32)]).maps) == {"res2_f", "res4_f"}


def test_a_frozen_backbone_drops_no_paths_in_training() -> None:
    encoder = tiny_swin().train()
    image = random_image(64, 64)
    assert torch.equal(encoder([image]).maps["res5_f"], encoder([image]).maps["res5_f"])
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_paths_are_dropped_when_it_is_trained_and_only_then() -> None:
    encoder = tiny_swin(FINETUNE_TYPE="all").train()
    images = [random_image(64, 64)] * 2
    results = [encoder(images).maps["res5_f"] for _ in range(4)]
    assert any(not torch.equal(result, results[0]) for result in results)
    encoder.eval()
    assert torch.equal(encoder(images).maps["res5_f"], encoder(images).maps["res5_f"])


def test_gradient_checkpointing_changes_no_gradient() -> None:
    node, swin = tiny_nodes(FINETUNE_TYPE="all")
    swin.DROP_PATH_RATE = 0.0
    plain = D2SwinTransformer(node, swin=swin).train()
    swin.USE_CHECKPOINT = True
    lean = D2SwinTransformer(node, swin=swin).train()
    lean.load_state_dict(plain.state_dict())
    image = random_image(64, 64)
    for encoder in (plain, lean):
        sum(feature_map.square().sum() for feature_map in encoder([image]).maps.values()).backward()
    for first, second in zip(plain.parameters(), lean.parameters(), strict=True):
        assert_close(first.grad, second.grad)


@pytest.mark.parametrize("file", ["mask2former.pkl", "mask2former.pth"])
def test_pretrained_weights_are_the_backbone_of_a_checkpoint(file: str, tmp_path: Path) -> None:
    original = tiny_swin()
    loaded = tiny_swin(PRETRAINED=str(save(original, tmp_path / file)))
    for name, value in original.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_load_from_takes_the_keys_with_its_prefix(tmp_path: Path) -> None:
    original = tiny_swin()
    torch.save({"x." + k: v for k, v in original.proxy.state_dict().items()}, tmp_path / "a.pth")
    loaded = tiny_swin(LOAD_FROM=str(tmp_path / "a.pth"), LOAD_BEG_KEY="x.")
    assert torch.equal(loaded.proxy.norm0.weight, original.proxy.norm0.weight)
    weight = loaded.proxy.get_parameter("patch_embed.proj.weight")
    assert torch.equal(weight, original.proxy.get_parameter("patch_embed.proj.weight"))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    file = save(tiny_swin(), tmp_path / "mask2former.pth")
    node, swin = tiny_nodes(PRETRAINED=str(file))
    swin.EMBED_DIM = 16
    message = r"mask2former\.pth, keys backbone\.\*' do not fit .* of MODEL\.SWIN' .*disagreements"
    with pytest.raises(ValueError, match=message):
        D2SwinTransformer(node, swin=swin)


def test_weights_of_a_deeper_network_are_refused(tmp_path: Path) -> None:
    node, swin = tiny_nodes(PRETRAINED=str(save(tiny_swin(), tmp_path / "mask2former.pth")))
    swin.DEPTHS = [2, 1, 1, 1]
    with pytest.raises(ValueError, match=r"\n  unexpected layers\.2\.blocks\.1\."):
        D2SwinTransformer(node, swin=swin)


def test_a_file_without_backbone_is_refused(tmp_path: Path) -> None:
    torch.save({"sem_seg_head.weight": torch.ones(1)}, tmp_path / "head.pth")
    with pytest.raises(ValueError, match=r"head\.pth, keys backbone\.\*' do not fit"):
        tiny_swin(PRETRAINED=str(tmp_path / "head.pth"))


def test_it_embeds_no_masks() -> None:
    with pytest.raises(ValueError, match=r"VISUAL_ENCODER_F\.NAME\), not the mask classifier"):
        tiny_swin()([random_image(32, 32)], soft([torch.ones(1, 32, 32)]))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("APE", True, r"SWIN\.APE: .* not available"),
        ("QK_SCALE", 0.5, r"SWIN\.QK_SCALE: .* found 0\.5"),
        ("DEPTHS", [2, 2], r"SWIN\.DEPTHS: expected 4 numbers, one per stage, found \[2, 2\]"),
        ("NUM_HEADS", [1] * 5, r"SWIN\.NUM_HEADS: expected 4 numbers"),
    ],
)
def test_settings_that_no_published_model_has_are_refused(
    key: str, value: Any, message: str
) -> None:
    node, swin = tiny_nodes()
    with pytest.raises(ValueError, match=message):
        D2SwinTransformer(node, swin=CfgNode({**swin, key: value}))
