"""The Swin backbone computes what Mask2Former's does, and holds the keys of its checkpoints."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from detectron2.config import CfgNode
from torch import Tensor
from torch.testing import assert_close

from maskclippp.clip.swin import D2SwinTransformer, SwinBackbone
from maskclippp.config.keys import get_cfg
from maskclippp.masks.batching import InputFormat
from tests.golden_cases import COMPACT_COPY, GoldenCase, cases, golden_root

PREFIX = "backbone."  # of the checkpoints
SUFFIX = "_f"


def published_file(name: str) -> Path:
    path = golden_root() / name
    return path if path.exists() else COMPACT_COPY / name


def inventories() -> list[Path]:
    """What is known of the checkpoints; an own golden directory may hold none of them."""
    pattern = "checkpoint_keys/maskgenerator__mask2former-swin-*.json.gz"
    return sorted(golden_root().glob(pattern)) or sorted(COMPACT_COPY.glob(pattern))


def build_swin(case: GoldenCase) -> D2SwinTransformer:
    config = case.info["config"]
    assert not config.get("ape"), "no published model has absolute position embeddings"
    names = [name.removesuffix(SUFFIX) for name in case.info["outputs"] if name.startswith("res")]
    encoder = D2SwinTransformer(
        proxy=SwinBackbone(
            embed_dim=config["embed"],
            depths=config["depths"],
            num_heads=config["heads"],
            window_size=config["window"],
            mlp_ratio=config["mlp_ratio"],
            qkv_bias=config["qkv_bias"],
            patch_norm=config["patch_norm"],
        ),
        input_format=InputFormat(config["pixel_mean"], config["pixel_std"]),
        out_features=names,
        feature_suffix=SUFFIX,
    )
    weights = case.tensors("weights")
    encoder.proxy.load_state_dict({k.removeprefix(PREFIX): v for k, v in weights.items()})
    return encoder.eval()


def published_state(encoder: D2SwinTransformer) -> dict[str, Tensor]:
    """The backbone's tensors by their names in Mask2Former's checkpoints."""
    return {PREFIX + key: value for key, value in encoder.proxy.state_dict().items()}


@pytest.mark.parametrize("case", cases("swin_backbone"), ids=str)
def test_swin_backbone(case: GoldenCase) -> None:
    outputs = case.tensors("outputs")
    with torch.no_grad():
        encoded = build_swin(case)(list(case.tensors("inputs")["image"]))
    check = case.tolerance
    if "normalised_image" in outputs:  # too large for the compact copy
        assert_close(encoded.batch.images, outputs.pop("normalised_image"), **check)
    assert set(encoded.maps) == set(outputs)
    for name, expected in outputs.items():
        assert_close(encoded.maps[name], expected, **check)


@pytest.mark.parametrize("case", cases("swin_backbone"), ids=str)
def test_swin_is_saved_as_it_was_published(case: GoldenCase) -> None:
    saved, published = published_state(build_swin(case)), case.tensors("weights")
    assert set(saved) == set(published)
    for name, value in published.items():
        assert torch.equal(saved[name], value), name


def swin_node(inventory: dict[str, Any]) -> CfgNode:
    """MODEL.SWIN of the published config that a checkpoint belongs to."""
    name = str(Path(inventory["config"]).relative_to("configs"))
    resolved = yaml.safe_load(published_file(f"configs_resolved/{name}").read_text())
    node: CfgNode = get_cfg().MODEL.SWIN
    node.merge_from_other_cfg(CfgNode(resolved["MODEL"].get("SWIN", {})))
    return node


@pytest.mark.parametrize("file", inventories(), ids=lambda file: file.name.split(".")[0])
def test_every_key_of_the_checkpoint_is_the_backbones_own(file: Path) -> None:
    inventory = json.loads(gzip.decompress(file.read_bytes()))
    node = get_cfg().MODEL.MASKCLIPPP.VISUAL_ENCODER_F
    node.PRETRAINED = "random"
    with torch.device("meta"):
        encoder = D2SwinTransformer(node, swin=swin_node(inventory))
    own = {name: list(value.shape) for name, value in published_state(encoder).items()}
    assert own == inventory["consumed_by_visual_encoder_f"]
