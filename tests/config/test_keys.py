"""Keys that nothing reads are listed with their reasons."""

import functools
import re

from maskclippp.config.keys import INERT_KEYS, get_cfg
from tests.golden_cases import REPOSITORY


def test_inert_keys_have_their_defaults_and_a_reason() -> None:
    cfg = get_cfg()
    for reason, keys in INERT_KEYS.items():
        assert reason
        for full_key, default in keys.items():
            assert functools.reduce(getattr, full_key.split("."), cfg) == default


def test_configurations_do_not_share_lists() -> None:
    get_cfg().MODEL.RESNETS.RES5_MULTI_GRID.append(8)
    assert get_cfg().MODEL.RESNETS.RES5_MULTI_GRID == [1, 2, 4]


def test_nothing_reads_an_inert_key() -> None:
    package = REPOSITORY / "maskclippp"
    sources = "".join(
        path.read_text()
        for path in package.rglob("*.py")
        if not path.is_relative_to(package / "embedded") and path.name != "keys.py"
    )
    ambiguous = {"OUT_FEATURES", "SIZE_DIVISIBILITY"}  # also keys of the encoders
    names = {key.rpartition(".")[2] for keys in INERT_KEYS.values() for key in keys}
    for name in names - ambiguous:
        assert not re.search(rf"\.{name}\b", sources), name
