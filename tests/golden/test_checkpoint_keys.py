"""Published files and our models have the same keys and shapes: each tensor finds its place."""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maskclippp.clip.eva_keys import to_published_keys
from maskclippp.clip.open_clip_models import load_text_tower, load_visual_tower
from maskclippp.clip.weight_layouts import split_clip_state
from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file
from maskclippp.files.state_dicts import load_exactly
from maskclippp.meta_arch import MaskCLIPpp
from tests.clip.weight_files import node
from tests.golden_cases import COMPACT_COPY, REPOSITORY, golden_root

Shapes = dict[str, list[int]]


pytestmark = pytest.mark.processes  # whole models of gigabytes


def inventories(kind: str) -> dict[str, Path]:
    """Inventories of a kind by the name of what they list; the compact copy completes them.

    There is always one: tests over none would be skipped in silence.
    """
    found: dict[str, Path] = {}
    for root in (COMPACT_COPY, golden_root()):
        for path in sorted(root.glob(f"checkpoint_keys/{kind}__*.json.gz")):
            found[path.name.removesuffix(".json.gz").removeprefix(f"{kind}__")] = path
    assert found, f"no inventory {kind}__* in {golden_root()} or {COMPACT_COPY}"
    return found


def read_inventory(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    return content


def shapes(state: dict[str, Tensor]) -> Shapes:
    return {key: list(value.shape) for key, value in state.items()}


def configs_with_inventory() -> list[tuple[Path, Path]]:
    """Configs without a generator, and the inventory of the checkpoint published for each.

    Some inventories are named after a config with a generator, whose checkpoint is the same.
    """
    published = inventories("finetuned")
    pairs = []
    for config in sorted((REPOSITORY / "configs").glob("coco-*/*/*.yaml")):
        named = [n for n in published if n == config.stem or n.startswith(f"{config.stem}_")]
        # An exact name goes before longer ones.
        pairs += [(config, published[name]) for name in sorted(named)[:1]]
    return pairs


PAIRS = configs_with_inventory()
PAIR_NAMES = [config.stem for config, _ in PAIRS]
TRAINED = "trainable_parameters_as_frozen_by_the_reference"


@cache
def build(config: Path) -> MaskCLIPpp:
    """The model of a config without memory for its tensors."""
    cfg = get_cfg()
    merge_config_file(cfg, str(config))
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    towers = cfg.MODEL.MASKCLIPPP
    towers.VISUAL_ENCODER.PRETRAINED = towers.TEXT_ENCODER.PRETRAINED = "random"
    with torch.device("meta"):
        return MaskCLIPpp(cfg)


def saved_parts(model: MaskCLIPpp) -> dict[str, Tensor]:
    """What a checkpoint of ours holds, but the logit scale, which the published ones lose."""
    return {
        key: value
        for key, value in model.state_dict(keep_vars=True).items()
        if key.split(".")[0] in model.checkpoint_prefixes and key != "logit_scale"
    }


@pytest.mark.parametrize(("config", "inventory"), PAIRS, ids=PAIR_NAMES)
def test_every_key_of_a_published_checkpoint_is_the_models_own(
    config: Path, inventory: Path
) -> None:
    assert shapes(saved_parts(build(config))) == read_inventory(inventory)["keys"]


@pytest.mark.parametrize(("config", "inventory"), PAIRS, ids=PAIR_NAMES)
def test_the_parameters_that_were_trained_are_trained(config: Path, inventory: Path) -> None:
    trained = {key for key, value in saved_parts(build(config)).items() if value.requires_grad}
    assert trained == set(read_inventory(inventory)[TRAINED])


@pytest.mark.parametrize("model_name", inventories("pretrained"))
def test_original_eva_files_fill_both_towers_and_can_be_written_back(model_name: str) -> None:
    inventory = read_inventory(inventories("pretrained")[model_name])
    keys: Shapes = inventory["keys"]
    with torch.device("meta"):
        listed = {**keys, **inventory["extra_keys_to_ignore"]}
        state = {key: torch.empty(shape) for key, shape in listed.items()}
        visual = load_visual_tower(node("random", model_name))
        text, logit_scale = load_text_tower(node("random", model_name))
    weights = split_clip_state(state, source="the original file")
    load_exactly(visual, weights.visual, source=weights.source, model_name=model_name)
    load_exactly(text, weights.text, source=weights.source, model_name=model_name)
    assert weights.logit_scale is not None
    assert weights.logit_scale.shape == logit_scale.shape
    assert len(weights.visual) + len(weights.text) + 1 == len(keys)
    assert isinstance(visual.trunk, nn.Module)
    written = {
        **{f"visual.{k}": v for k, v in to_published_keys(visual.trunk.state_dict()).items()},
        **{f"text.{key}": value for key, value in text.state_dict().items()},
        "logit_scale": logit_scale,
    }
    assert shapes(written) == keys
