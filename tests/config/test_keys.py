"""The default configuration and the file that explains its keys."""

import functools
import itertools
import re

from maskclippp.config.keys import get_cfg, inert_keys
from tests.golden_cases import REPOSITORY


def test_inert_keys_have_their_defaults_and_a_reason() -> None:
    cfg = get_cfg()
    for reason, keys in inert_keys().items():
        assert reason
        for full_key, default in keys.items():
            assert functools.reduce(getattr, full_key.split("."), cfg) == default


def test_configurations_do_not_share_lists() -> None:
    cfg = get_cfg()
    cfg.MODEL.RESNETS.RES5_MULTI_GRID.append(8)
    cfg.DATASETS.CUSTOM.append({})
    cfg.MODEL.MASKCLIPPP.VISUAL_ENCODER.OUT_FEATURES.append("m_embs")
    assert cfg.MODEL.MASKCLIPPP.VISUAL_ENCODER_F.OUT_FEATURES == []
    assert get_cfg().MODEL.RESNETS.RES5_MULTI_GRID == [1, 2, 4]
    assert get_cfg().DATASETS.CUSTOM == []
    assert get_cfg().MODEL.MASKCLIPPP.VISUAL_ENCODER.OUT_FEATURES == []


def test_every_key_is_explained() -> None:
    lines = (REPOSITORY / "maskclippp" / "config" / "keys.yaml").read_text().splitlines()
    active = lines[: lines.index("INERT_KEYS:")]
    for above, line in itertools.pairwise(active):
        key, _, value = line.strip().partition(": ")
        if value and not line.strip().startswith(("#", "<<")):
            is_suffix = (key, value) == ("FEATURE_SUFFIX", "_f")
            assert above.strip().startswith("# ") or is_suffix, key


def test_nothing_reads_an_inert_key() -> None:
    package = REPOSITORY / "maskclippp"
    sources = "".join(
        path.read_text()
        for path in package.rglob("*.py")
        if not path.is_relative_to(package / "embedded")
    )
    ambiguous = {"OUT_FEATURES", "SIZE_DIVISIBILITY"}  # also keys of the encoders
    names = {key.rpartition(".")[2] for keys in inert_keys().values() for key in keys}
    for name in names - ambiguous:
        assert not re.search(rf"\.{name}\b", sources), name
