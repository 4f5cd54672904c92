"""Defaults and configs hold the published values."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file
from tests.golden_cases import COMPACT_COPY, REPOSITORY, golden_root

# Keys of our own; everything else must be a published key.
OWN_KEYS = {
    "DATALOADER.RANDOM_SUBSET_RATIO",
    "DATASETS.CUSTOM",
    "DATASETS.VOCABULARY",
    "INPUT.MAX_IMAGE_PIXELS",
    "INPUT.RESIZE_ON_DEVICE",
    "MODEL.ALLOW_INCOMPLETE_WEIGHTS",
    "MODEL.MASKCLIPPP.SEGMENTOR.REVISION",
    *(
        f"MODEL.MASKCLIPPP.SEGMENTOR.SAM.{key}"
        for key in ("MAX_OVERLAP", "MIN_IOU", "MIN_STABILITY", "STABILITY_OFFSET")
    ),
    "MODEL.MASKCLIPPP.SEGMENTOR.SAM.POINTS_PER_BATCH",
    "MODEL.MASKCLIPPP.SEGMENTOR.SAM.POINTS_PER_SIDE",
    "MODEL.MASKCLIPPP.SEGMENTOR.SAM3.MAX_OVERLAP",
    "MODEL.MASKCLIPPP.SEGMENTOR.SAM3.MIN_SCORE",
    "MODEL.MASKCLIPPP.SEGMENTOR.SAM3.WORDS_PER_BATCH",
    "MODEL.MASKCLIPPP.SEGMENTOR.SUPERPIXELS.COMPACTNESS",
    "MODEL.MASKCLIPPP.SEGMENTOR.SUPERPIXELS.MERGE_THRESHOLD",
    "MODEL.MASKCLIPPP.SEGMENTOR.SUPERPIXELS.MIN_AREA",
    "MODEL.MASKCLIPPP.SEGMENTOR.SUPERPIXELS.NUM_SEGMENTS",
    "MODEL.MASKCLIPPP.TEST.CLIP_TRUST_WEIGHT",
    "MODEL.MASKCLIPPP.TEST.DTYPE",
    "MODEL.MASKCLIPPP.TEST.PAD_ALONE",
    "MODEL.MASKCLIPPP.TEST.SEMANTIC_OUTPUT",
    "MODEL.MASKCLIPPP.TEXT_CACHE",
    "MODEL.MASKCLIPPP.TEXT_ENCODER.GRADIENT_CHECKPOINTING",
    "MODEL.MASKCLIPPP.TEXT_ENCODER_F.GRADIENT_CHECKPOINTING",
    "MODEL.MASKCLIPPP.TRAIN_MASKS",
    *(
        f"MODEL.MASKCLIPPP.{encoder}.{key}"
        for encoder in ("VISUAL_ENCODER", "VISUAL_ENCODER_F")
        for key in ("CHANNELS_LAST", "COMPILE", "GRADIENT_CHECKPOINTING")
    ),
    "SOLVER.ACCUMULATION_STEPS",
    "SOLVER.AMP.DTYPE",
    "TEST.BATCH_SIZE",
    "TEST.LOGGED_PICTURES",
}


def published_file(name: str) -> Path:
    path = golden_root() / name
    return path if path.exists() else COMPACT_COPY / name


def flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = value
    return result


def published_defaults() -> dict[str, Any]:
    return flat(yaml.safe_load(published_file("maskclippp_defaults.yaml").read_text()))


def test_defaults() -> None:
    own = flat(yaml.safe_load(get_cfg().dump()))
    published = published_defaults()
    assert set(own) - set(published) == OWN_KEYS
    assert {key: own.get(key, "absent") for key in published} == published


def published_configs() -> list[str]:
    """Paths of the published configs, below configs/."""
    resolved = published_file("configs_resolved")
    return sorted(str(path.relative_to(resolved)) for path in resolved.rglob("*.yaml"))


@pytest.mark.parametrize("name", published_configs())
def test_config(name: str) -> None:
    cfg = get_cfg()
    merge_config_file(cfg, str(REPOSITORY / "configs" / name))
    own = flat(yaml.safe_load(cfg.dump()))
    difference = yaml.safe_load((published_file("configs_resolved") / name).read_text())
    expected = published_defaults() | flat(difference)
    assert {key: own[key] for key in expected} == expected


def own_configs() -> list[str]:
    """Configs that are ours alone."""
    folder = REPOSITORY / "configs"
    names = {str(path.relative_to(folder)) for path in folder.rglob("*.yaml")}
    return sorted(names - set(published_configs()))


@pytest.mark.parametrize("name", own_configs())
def test_own_config_is_valid(name: str) -> None:
    merge_config_file(get_cfg(), str(REPOSITORY / "configs" / name))
