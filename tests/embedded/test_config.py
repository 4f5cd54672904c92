"""CfgNode: the golden behaviors, on the engine's own methods and on ours."""

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from detectron2.config import CfgNode
from detectron2.config import get_cfg as get_detectron2_cfg

from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file, merge_options
from tests.golden_cases import COMPACT_COPY, GoldenCase, cases, golden_root

CASES = [(case, item) for case in cases("engine_cfgnode") for item in case.info["cases"]]
FILE_CASES = [(case, item) for case, item in CASES if item["case"].startswith("merge_from_file")]
LIST_CASES = [item for _, item in CASES if item["case"].startswith("merge_from_list [")]
NODE_CASES = [
    item
    for _, item in CASES
    if not item["case"].startswith(("merge_from_file", "merge_from_list ["))
]
ERRORS = {error.__name__: error for error in (AssertionError, AttributeError, KeyError, ValueError)}


def name_of(item: Any) -> str | None:
    return item["case"] if isinstance(item, dict) else None


def write_files(case: GoldenCase, folder: Path) -> None:
    for name, text in case.info["files"].items():
        (folder / name).write_text(text)


def as_plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("merge", [CfgNode.merge_from_file, merge_config_file])
@pytest.mark.parametrize(("case", "item"), FILE_CASES, ids=name_of)
def test_merging_files_gives_the_golden_values_or_error_class(
    case: GoldenCase, item: dict[str, Any], merge: Callable[..., None], tmp_path: Path
) -> None:
    write_files(case, tmp_path)
    cfg = get_detectron2_cfg()
    path = str(tmp_path / item["files"])
    if "error" in item:
        with pytest.raises(ERRORS[item["error"]]):
            merge(cfg, path)
        return
    merge(cfg, path)
    sections = {
        "DEVICE": cfg.MODEL,
        "WEIGHTS": cfg.MODEL,
        "BASE_LR": cfg.SOLVER,
        "STEPS": cfg.SOLVER,
        "MAX_ITER": cfg.SOLVER,
    }
    for key, expected in item["ok"].items():
        name = key.removesuffix("_type")
        value = sections[name][name]
        assert (type(value).__name__ if key.endswith("_type") else as_plain(value)) == expected


@pytest.mark.parametrize("merge", [CfgNode.merge_from_list, merge_options])
@pytest.mark.parametrize("item", LIST_CASES, ids=name_of)
def test_merging_options_gives_the_golden_value_or_error_class(
    item: dict[str, Any], merge: Callable[..., None]
) -> None:
    options = ast.literal_eval(re.sub(r"^merge_from_list ", "", item["case"]))
    cfg = get_cfg()
    if "error" in item:
        with pytest.raises(ERRORS[item["error"]]):
            merge(cfg, options)
        return
    merge(cfg, options)
    value: Any = cfg
    for key in options[0].split("."):
        value = value[key]
    assert as_plain(value) == item["ok"]["value"]
    assert type(value).__name__ == item["ok"]["type"]


def write_to_frozen() -> None:
    cfg = get_detectron2_cfg()
    cfg.freeze()
    cfg.MODEL.DEVICE = "cpu"


def merge_list_into_frozen() -> None:
    cfg = get_detectron2_cfg()
    cfg.freeze()
    cfg.merge_from_list(["MODEL.DEVICE", "cpu"])


def defrost_and_write() -> list[Any]:
    cfg = get_detectron2_cfg()
    cfg.freeze()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    return [cfg.is_frozen(), cfg.MODEL.DEVICE]


def clone_frozen() -> list[Any]:
    cfg = get_detectron2_cfg()
    cfg.freeze()
    clone = cfg.clone()
    was_frozen = clone.is_frozen()
    clone.defrost()
    clone.MODEL.DEVICE = "x"
    return [was_frozen, cfg.MODEL.DEVICE, clone.MODEL.DEVICE]


def write_new_key() -> Any:
    cfg = get_detectron2_cfg()
    cfg.MODEL.SOMETHING_NEW = 3
    return cfg.MODEL.SOMETHING_NEW


def merge_new_key_where_allowed() -> dict[str, Any]:
    node = CfgNode({"A": {"B": 1}}, new_allowed=True)
    node.merge_from_other_cfg(CfgNode({"Z": 1, "A": {"B": 5}}))
    return {"Z": node.Z, "B": node.A.B}


def merge_new_key_below_child() -> None:
    node = CfgNode({"A": {"B": 1}}, new_allowed=True)
    node.merge_from_other_cfg(CfgNode({"A": {"C": 1}}))


def merge_new_key() -> None:
    CfgNode({"A": {"B": 1}}).merge_from_other_cfg(CfgNode({"A": {"C": 1}}))


def read_missing() -> Any:
    return get_detectron2_cfg().NOPE


def set_computed_twice() -> None:
    cfg = get_detectron2_cfg()
    cfg.COMPUTED_X = 1
    cfg.COMPUTED_X = 1
    cfg.COMPUTED_X = 2


def write_other_type() -> Any:
    cfg = get_detectron2_cfg()
    cfg.MODEL.DEVICE = 5
    return cfg.MODEL.DEVICE


def dump_and_load() -> dict[str, Any]:
    cfg = get_detectron2_cfg()
    cfg.SOLVER.STEPS = (1, 2)
    loaded = yaml.safe_load(cfg.dump())
    return {
        "STEPS_after_dump_and_safe_load": loaded["SOLVER"]["STEPS"],
        "top_level_sorted": list(loaded) == sorted(loaded),
    }


NODE_BEHAVIORS: dict[str, Callable[[], Any]] = {
    "attribute write on a frozen node": write_to_frozen,
    "merge_from_list on a frozen node": merge_list_into_frozen,
    "defrost, then write": defrost_and_write,
    "clone of a frozen node: [clone frozen?, original value, clone value]": clone_frozen,
    "attribute write of a key that did not exist (not frozen)": write_new_key,
    "merge of a new key into a node made with new_allowed=True": merge_new_key_where_allowed,
    "merge of a new key below a CHILD of a node made with new_allowed=True": (
        merge_new_key_below_child
    ),
    "merge of a new key, new_allowed not given": merge_new_key,
    "read of a missing key": read_missing,
    "fvcore extra: keys starting with COMPUTED_ may be set again only to the same value": (
        set_computed_twice
    ),
    "attribute write with another type": write_other_type,
    "dump() then safe YAML load": dump_and_load,
}


@pytest.mark.parametrize("item", NODE_CASES, ids=name_of)
def test_nodes_behave_as_the_golden_case_says(item: dict[str, Any]) -> None:
    behavior = NODE_BEHAVIORS[item["case"]]
    if "error" in item:
        with pytest.raises(ERRORS[item["error"]]) as caught:
            behavior()
        assert str(caught.value).startswith(item["message_start"])
    else:
        assert behavior() == item["ok"]


def defaults_file() -> tuple[dict[str, Any], list[str]]:
    folders = (golden_root(), COMPACT_COPY)
    name = "detectron2_defaults.yaml"
    text = next(folder / name for folder in folders if (folder / name).is_file()).read_text()
    tuple_keys = re.search(r"tuple keys: (.*)", text)
    assert tuple_keys
    return yaml.safe_load(text), tuple_keys.group(1).split(", ")


def test_defaults_equal_those_of_detectron2() -> None:
    expected, _ = defaults_file()
    assert yaml.safe_load(get_detectron2_cfg().dump()) == expected


@pytest.mark.parametrize("key", defaults_file()[1])
def test_defaults_that_are_tuples_are_tuples(key: str) -> None:
    value: Any = get_detectron2_cfg()
    for part in key.split("."):
        value = value[part]
    assert isinstance(value, tuple)
