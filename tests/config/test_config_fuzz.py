"""Mutated configs work or are refused as the user's mistake: never another error."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file, merge_options
from maskclippp.errors import InputError


def keys_of(node: dict[str, Any], prefix: str = "") -> list[str]:
    """All keys, dotted; sections as well."""
    found = []
    for name, value in node.items():
        found.append(f"{prefix}{name}")
        if isinstance(value, dict):
            found += keys_of(value, f"{prefix}{name}.")
    return found


KEYS = st.sampled_from(keys_of(get_cfg())) | st.sampled_from(
    ["", ".", "SOLVER.", "_BASE_", "VERSION", "SOLVER.BASE_LRR", "A.B", "MODEL.MASKCLIPPP.X.Y"]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.dates()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4) | st.integers(0, 3), inner, max_size=2)
    ),
    max_leaves=5,
)
TEXTS = st.text(max_size=8) | st.sampled_from(
    ["(1,", "[1, 2", "{a: 1", "1e400", "nan", ".inf", "1:30", "!!python/name:os.system", "&a [*a]"]
)
BOUNDED = settings(
    max_examples=70,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def refusal(merge: Callable[[CfgNode, Any], None], what: Any) -> str | None:
    """The sentence with which it is refused; None if it is taken."""
    try:
        merge(get_cfg(), what)
    except InputError as error:
        return str(error)
    return None


@BOUNDED
@given(key=KEYS, value=VALUES)
def test_any_value_of_any_key_is_taken_or_refused(key: str, value: Any, tmp_path: Path) -> None:
    entry: Any = value
    for name in reversed(key.split(".")):
        entry = {name: entry}
    (tmp_path / "mutated.yaml").write_text(yaml.dump(entry, allow_unicode=True))
    message = refusal(merge_config_file, tmp_path / "mutated.yaml")
    assert message is None or "\n" not in message.strip()


@BOUNDED
@given(place=st.integers(0, 2000), inserted=st.binary(max_size=4), removed=st.integers(0, 4))
def test_damaged_files_are_taken_or_refused(
    place: int, inserted: bytes, removed: int, tmp_path: Path
) -> None:
    content = GOOD[: place % len(GOOD)] + inserted + GOOD[place % len(GOOD) + removed :]
    (tmp_path / "mutated.yaml").write_bytes(content)
    message = refusal(merge_config_file, tmp_path / "mutated.yaml")
    assert message is None or "mutated.yaml" in message or "_BASE_" in message


@BOUNDED
@given(options=st.lists(KEYS | TEXTS, max_size=4))
def test_any_options_are_taken_or_refused(options: list[str]) -> None:
    assert refusal(merge_options, options) != ""


GOOD = yaml.dump(
    {
        "MODEL": {"META_ARCHITECTURE": "MaskCLIPpp", "DEVICE": "cpu"},
        "SOLVER": {"BASE_LR": 0.1, "STEPS": [10, 20], "CLIP_GRADIENTS": {"ENABLED": True}},
        "DATASETS": {"TRAIN": ["a", "b"], "TEST": ["c"]},
        "INPUT": {"MIN_SIZE_TRAIN": [320, 640], "FORMAT": "RGB"},
        "OUTPUT_DIR": "output",
    }
).encode()
