"""The list of config keys in the manual, and that no declared key is without effect."""

import sys

import pytest

from maskclippp.config.keys import get_cfg, inert_keys
from tests.golden_cases import REPOSITORY

sys.path.append(str(REPOSITORY / "docs" / "extensions"))

import config_keys
from config_readers import Readers


@pytest.fixture(scope="module")
def readers() -> Readers:
    return Readers(config_keys.PACKAGE)


def declared() -> list[str]:
    """Full names of all keys of keys.yaml, those of repeated sections included."""
    own = [entry.name for entry in config_keys.entries() if entry.twin or not entry.is_section]
    names = [name for name, _ in config_keys.leaves(get_cfg())]
    return [name for name in names if any(f"{name}.".startswith(f"{key}.") for key in own)]


def test_every_key_is_read_by_a_module(readers: Readers) -> None:
    inert = {name for keys in inert_keys().values() for name in keys}
    unread = {name for name in declared() if not readers.of(name)}
    assert unread == inert & set(declared())


@pytest.mark.parametrize(
    ("key", "module"),
    [
        ("SOLVER.AMP.DTYPE", "maskclippp/engine/trainer.py"),  # cfg.SOLVER.AMP.DTYPE
        ("MODEL.MASKCLIPPP.PSM.NUM_HEADS", "maskclippp/alignment/psm.py"),  # by a variable
        ("MODEL.MASKCLIPPP.TEXT_ENCODER.SKIP_LN_FINAL", "maskclippp/clip/text_tower.py"),  # handed
        ("MODEL.MASKCLIPPP.SEGMENTOR.SAM.MIN_IOU", "maskclippp/generators/sam.py"),  # a section
        ("MODEL.SWIN.DEPTHS", "maskclippp/clip/swin.py"),  # by a list of names
    ],
)
def test_the_reader_of_a_key_is_found(readers: Readers, key: str, module: str) -> None:
    assert readers.of(key) == [module]


def test_a_text_tower_reads_no_keys_of_the_visual_encoder(readers: Readers) -> None:
    for name in declared():
        if ".VISUAL_ENCODER." in name:
            assert "maskclippp/clip/text_tower.py" not in readers.of(name)


def test_the_manual_lists_every_key_with_its_default_and_meaning() -> None:
    text = config_keys.key_list()
    keys = [entry for entry in config_keys.entries() if not entry.is_section]
    assert len(keys) > 100
    for entry in keys:
        anchor = entry.name.lower().replace(".", "-").replace("_", "-")
        assert f"{{#{anchor}}} = `" in text
    assert "[`POLY_LR_POWER`]{#solver-poly-lr-power} = `0.9`\n: The exponent of the" in text
