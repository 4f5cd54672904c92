"""Models hold exactly the keys and shapes of the published fine-tuned checkpoints."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from maskclippp.config import get_cfg
from maskclippp.config_files import merge_config_file
from maskclippp.meta_arch import MaskCLIPpp
from tests.golden_cases import COMPACT_COPY, REPOSITORY, golden_root

CONFIGS = sorted((REPOSITORY / "configs").glob("coco-pan/clip-convnext-*/*.yaml"))


def inventory(config: Path) -> dict[str, list[int]]:
    """Shapes by key of the checkpoint that was published for a config."""
    name = f"checkpoint_keys/finetuned__{config.stem}.json.gz"
    path = golden_root() / name
    path = path if path.exists() else COMPACT_COPY / name
    keys: dict[str, list[int]] = json.loads(gzip.decompress(path.read_bytes()))["keys"]
    return keys


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_every_key_of_the_checkpoint_is_the_models_own(config: Path) -> None:
    cfg = get_cfg()
    merge_config_file(cfg, str(config))
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    node = cfg.MODEL.MASKCLIPPP
    node.VISUAL_ENCODER.PRETRAINED = node.TEXT_ENCODER.PRETRAINED = "random"
    with torch.device("meta"):
        model = MaskCLIPpp(cfg)
    prefixes = model.checkpoint_prefixes
    own = {
        key: list(value.shape)
        for key, value in model.state_dict().items()
        if key.split(".")[0] in prefixes
    }
    assert own == inventory(config)
