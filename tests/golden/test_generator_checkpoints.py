"""Every published checkpoint of a mask generator fills the generator of its config, key by key.

The files are made: each tensor has the published name and shape, and holds one number, repeated.
Small generators are loaded whole, and every number is looked up again; large ones only without
memory for their weights: the reading, and the comparison of names and shapes, are the real ones.
"""

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from torch import Tensor

from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file
from maskclippp.generators import FCCLIPSegmentor, build_generator
from maskclippp.generators.mask2former.segmentor import MaskTransformerSegmentor
from tests.golden.test_checkpoint_keys import Shapes, inventories, read_inventory, shapes
from tests.golden_cases import REPOSITORY

pytestmark = pytest.mark.processes  # whole models of gigabytes

INVENTORIES = inventories("maskgenerator")
PARTS = ("segmentor", "visual_encoder_f", "text_encoder_f")
# Larger encoders, by the channels of their last map, take seconds and gigabytes.
MOST_CHANNELS = 1024


def listed_keys(inventory: dict[str, Any]) -> Shapes:
    """All keys of a checkpoint, whichever part of the generator they are for."""
    keys = [keys_of_part(inventory, part) for part in PARTS]
    union = {key: shape for part in keys for key, shape in part.items()}
    assert len(union) == sum(map(len, keys))
    return union


def keys_of_part(inventory: dict[str, Any], part: str) -> Shapes:
    keys: Shapes = inventory.get(f"consumed_by_{part}", {})
    return keys


def small_generators() -> list[str]:
    key = "sem_seg_head.pixel_decoder.input_proj.0.0.weight"
    channels = {
        name: listed_keys(read_inventory(INVENTORIES[name]))[key][1] for name in INVENTORIES
    }
    return [name for name, number in channels.items() if number <= MOST_CHANNELS]


def parts_with_keys() -> list[tuple[str, str]]:
    return [
        (name, part)
        for name in INVENTORIES
        for part in PARTS
        if keys_of_part(read_inventory(INVENTORIES[name]), part)
    ]


def write_checkpoint(path: Path, keys: Shapes) -> None:
    """A checkpoint whose n-th tensor holds n everywhere."""
    if path.suffix == ".pkl":
        # Half the size of the published ones; as exact, for numbers below 2048.
        arrays = {k: np.full(shape, n, np.float16) for n, (k, shape) in enumerate(keys.items())}
        content = {"model": arrays, "__author__": "somebody", "matching_heuristics": True}
        path.write_bytes(pickle.dumps(content))
        return
    # An expanded tensor is stored as the one number that it repeats.
    numbers = {k: torch.tensor(float(n)).expand(shape) for n, (k, shape) in enumerate(keys.items())}
    torch.save({"model": numbers, "iteration": 100}, path)


def config_of(inventory: dict[str, Any], checkpoint: Path | str) -> CfgNode:
    """The published config of a checkpoint; other weights than its own are random."""
    cfg = get_cfg()
    merge_config_file(cfg, str(REPOSITORY / inventory["config"]))
    cfg.MODEL.DEVICE = "cpu"
    node = cfg.MODEL.MASKCLIPPP
    published = node.SEGMENTOR.PRETRAINED
    assert Path(published).name == inventory["file"]
    for part in (node.SEGMENTOR, node.VISUAL_ENCODER_F, node.TEXT_ENCODER_F):
        is_own = published == part.PRETRAINED
        part.PRETRAINED = str(checkpoint) if is_own else "random"
        if "LOAD_FROM" in part and published == part.LOAD_FROM:
            part.LOAD_FROM = str(checkpoint)
    return cfg


def published_state(
    generator: MaskTransformerSegmentor, inventory: dict[str, Any]
) -> dict[str, Tensor]:
    """What a generator holds, by the names in its checkpoint; without what it has from CLIP."""
    state = {
        key if key.startswith("void_embedding") else f"sem_seg_head.{key}": value
        for key, value in generator.head.state_dict().items()
    }
    towers: dict[str, torch.nn.Module] = {"visual_encoder_f": generator.encoder}
    prefixes = {"visual_encoder_f": "backbone.", "text_encoder_f": ""}
    if isinstance(generator, FCCLIPSegmentor):
        assert generator.text_classifier is not None
        towers["text_encoder_f"] = generator.text_classifier.tower
        prefixes = {
            "visual_encoder_f": "backbone.clip_model.visual.",
            "text_encoder_f": "backbone.clip_model.",
        }
    for name, tower in towers.items():
        if keys_of_part(inventory, name):
            state |= {
                prefixes[name] + key.removeprefix("proxy."): value
                for key, value in tower.state_dict().items()
            }
    return state


def build(cfg: CfgNode) -> MaskTransformerSegmentor:
    generator = build_generator(cfg)
    assert isinstance(generator, MaskTransformerSegmentor)
    return generator


def build_without_memory(cfg: CfgNode) -> MaskTransformerSegmentor:
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        return build(cfg)


@pytest.mark.parametrize("name", INVENTORIES)
def test_every_key_of_a_checkpoint_is_the_generators_own(name: str) -> None:
    inventory = read_inventory(INVENTORIES[name])
    cfg = config_of(inventory, "random")
    node = cfg.MODEL.MASKCLIPPP
    node.VISUAL_ENCODER_F.LOAD_FROM = node.TEXT_ENCODER_F.LOAD_FROM = ""
    generator = build_without_memory(cfg)
    assert shapes(published_state(generator, inventory)) == listed_keys(inventory)
    assert inventory["num_object_queries"] == cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter:UserWarning")
@pytest.mark.parametrize("name", INVENTORIES)
def test_reading_a_checkpoint_leaves_no_key_over(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inventory = read_inventory(INVENTORIES[name])
    file = tmp_path / "checkpoint.pth"
    write_checkpoint(file, listed_keys(inventory))
    with caplog.at_level(logging.WARNING):
        build_without_memory(config_of(inventory, file))
    assert caplog.messages == []


@pytest.mark.parametrize("name", small_generators())
def test_every_tensor_of_a_checkpoint_arrives(name: str, tmp_path: Path) -> None:
    inventory = read_inventory(INVENTORIES[name])
    keys = listed_keys(inventory)
    file = tmp_path / inventory["file"]
    write_checkpoint(file, keys)
    generator = build(config_of(inventory, file))
    file.unlink()
    state = published_state(generator, inventory)
    for number, key in enumerate(keys):
        assert state[key].min().item() == state[key].max().item() == number, key


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter:UserWarning")
@pytest.mark.parametrize(("name", "part"), parts_with_keys())
def test_a_tensor_that_is_not_there_is_an_error(name: str, part: str, tmp_path: Path) -> None:
    inventory = read_inventory(INVENTORIES[name])
    missing = next(iter(keys_of_part(inventory, part)))
    file = tmp_path / "checkpoint.pth"
    keys = {key: shape for key, shape in listed_keys(inventory).items() if key != missing}
    write_checkpoint(file, keys)
    with pytest.raises(ValueError, match=r"1 disagreements\):\s+missing"):
        build_without_memory(config_of(inventory, file))
