"""Config files and options: inheritance, and one clear error for every mistake."""

from pathlib import Path
from typing import Any

import pytest
from detectron2.config import CfgNode

from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import load_config_file, merge_config_file, merge_options
from maskclippp.errors import InputError


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)


def merged(path: Path) -> CfgNode:
    cfg = get_cfg()
    merge_config_file(cfg, path)
    return cfg


def error_of(folder: Path, text: str, error: type[Exception]) -> str:
    """The message of the error that a file of this text gives."""
    write(folder, broken=text)
    with pytest.raises(error) as caught:
        merged(folder / "broken.yaml")
    return str(caught.value)


def test_the_file_wins_over_its_base_and_the_base_over_the_defaults(tmp_path: Path) -> None:
    write(
        tmp_path,
        base="SOLVER:\n  MAX_ITER: 5\n  BASE_LR: 0.5\n",
        child="_BASE_: base.yaml\nSOLVER:\n  MAX_ITER: 7\n",
    )
    cfg = merged(tmp_path / "child.yaml")
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR) == (7, 0.5)
    assert cfg.SOLVER.GAMMA == get_cfg().SOLVER.GAMMA


def test_of_several_bases_the_later_one_wins(tmp_path: Path) -> None:
    write(
        tmp_path,
        one="SOLVER: {MAX_ITER: 1, GAMMA: 0.5}\n",
        two="SOLVER: {MAX_ITER: 2}\n",
        child="_BASE_: [one.yaml, two.yaml]\n",
    )
    cfg = merged(tmp_path / "child.yaml")
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.GAMMA) == (2, 0.5)


def test_a_base_may_be_reached_in_two_ways(tmp_path: Path) -> None:
    write(
        tmp_path,
        root="SOLVER: {MAX_ITER: 1}\n",
        one="_BASE_: root.yaml\n",
        two="_BASE_: root.yaml\n",
        child="_BASE_: [one.yaml, two.yaml]\n",
    )
    assert merged(tmp_path / "child.yaml").SOLVER.MAX_ITER == 1


def test_bases_are_relative_to_their_file_absolute_or_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    inner = tmp_path / "inner"
    home.mkdir()
    inner.mkdir()
    monkeypatch.setenv("HOME", str(home))
    write(home, base="SOLVER: {MAX_ITER: 1}\n")
    write(
        inner,
        relative="_BASE_: ../home/base.yaml\n",
        absolute=f"_BASE_: {home / 'base.yaml'}\n",
        tilde="_BASE_: ~/base.yaml\n",
    )
    for name in ("relative", "absolute", "tilde"):
        assert merged(inner / f"{name}.yaml").SOLVER.MAX_ITER == 1


def test_text_that_looks_like_a_literal_is_one(tmp_path: Path) -> None:
    write(tmp_path, file="SOLVER:\n  STEPS: (10, 20)\nDATASETS:\n  TEST: ['a']\n")
    cfg = merged(tmp_path / "file.yaml")
    assert cfg.SOLVER.STEPS == (10, 20)
    assert cfg.DATASETS.TEST == ("a",)


def test_the_published_computed_list_becomes_a_tuple(tmp_path: Path) -> None:
    tag = "!!python/object/apply:eval"
    write(
        tmp_path,
        file=f'INPUT:\n  MIN_SIZE_TRAIN: {tag} ["[int(x * 0.1 * 640) for x in range(3, 20)]"]',
    )
    sizes = merged(tmp_path / "file.yaml").INPUT.MIN_SIZE_TRAIN
    assert sizes == tuple(int(x * 0.1 * 640) for x in range(3, 20))


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, empty="")
    assert merged(tmp_path / "empty.yaml") == get_cfg()


def test_every_value_knows_its_file(tmp_path: Path) -> None:
    write(
        tmp_path,
        base="SOLVER: {MAX_ITER: 1, GAMMA: 1.0}",
        child="_BASE_: base.yaml\nSOLVER: {GAMMA: 2.0}",
    )
    settings = load_config_file(tmp_path / "child.yaml")
    assert {key: setting.origin.name for key, setting in settings.items()} == {
        "SOLVER.MAX_ITER": "base.yaml",
        "SOLVER.GAMMA": "child.yaml",
    }


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("SOLVR: {BASE_LR: 0.1}", "SOLVER.BASE_LR"),
        ("MODEL: {WEIGHT: a.pth}", "MODEL.WEIGHTS"),
        ("SOLVER: {MAXITER: 3}", "SOLVER.MAX_ITER"),
        ("BASE_LR: 0.1", "SOLVER.BASE_LR"),
    ],
)
def test_an_unknown_key_names_the_nearest_one_and_the_file(
    tmp_path: Path, text: str, nearest: str
) -> None:
    message = error_of(tmp_path, text, KeyError)
    assert f"Did you mean {nearest}?" in message
    assert str(tmp_path / "broken.yaml") in message


def test_an_unknown_key_in_a_base_names_the_base(tmp_path: Path) -> None:
    write(tmp_path, base="SOLVR: 1\n")
    message = error_of(tmp_path, "_BASE_: base.yaml\n", KeyError)
    assert "base.yaml" in message
    assert "broken.yaml" not in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("SOLVER: {BASE_LR: 1}", ["SOLVER.BASE_LR", "expected float", "found int 1", "Write 1.0"]),
        ("SOLVER: {MAX_ITER: '3.5'}", ["SOLVER.MAX_ITER", "expected int", "found float 3.5"]),
        ("MODEL: {DEVICE: 3}", ["MODEL.DEVICE", "expected str (such as 'cuda')", "found int 3"]),
        ("DATASETS: {TEST: a}", ["DATASETS.TEST", "expected tuple", "Write ('a',)."]),
        ("INPUT: {CROP: {ENABLED: 1}}", ["INPUT.CROP.ENABLED", "Write True or False."]),
        ("SOLVER: 1", ["SOLVER", "expected a section"]),
        ("SOLVER: {BASE_LR: {X: 1}}", ["SOLVER.BASE_LR is a value (0.001)"]),
    ],
)
def test_a_wrong_type_says_key_file_expected_and_found(
    tmp_path: Path, text: str, parts: list[str]
) -> None:
    message = error_of(tmp_path, text, ValueError)
    for part in [*parts, "broken.yaml"]:
        assert part in message


def test_none_goes_with_every_type(tmp_path: Path) -> None:
    write(tmp_path, file="MODEL: {WEIGHTS: null}\nSOLVER: {WEIGHT_DECAY_BIAS: 0.1}\n")
    cfg = merged(tmp_path / "file.yaml")
    assert cfg.MODEL.WEIGHTS is None
    assert cfg.SOLVER.WEIGHT_DECAY_BIAS == 0.1


def test_after_an_error_the_configuration_is_what_it_was(tmp_path: Path) -> None:
    write(tmp_path, file="SOLVER: {MAX_ITER: 3, BASE_LR: wrong}\n")
    cfg = get_cfg()
    with pytest.raises(ValueError, match="BASE_LR"):
        merge_config_file(cfg, tmp_path / "file.yaml")
    with pytest.raises(ValueError, match="BASE_LR"):
        merge_options(cfg, ["SOLVER.MAX_ITER", "3", "SOLVER.BASE_LR", "wrong"])
    assert cfg == get_cfg()


@pytest.mark.parametrize("error", [FileNotFoundError, AssertionError])
def test_a_missing_file_is_named(tmp_path: Path, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"nowhere\.yaml' does not exist"):
        merged(tmp_path / "nowhere.yaml")


def test_a_missing_base_names_the_file_that_asks_for_it(tmp_path: Path) -> None:
    message = error_of(tmp_path, "_BASE_: nowhere.yaml\n", FileNotFoundError)
    assert "nowhere.yaml' does not exist" in message
    assert "broken.yaml" in message


@pytest.mark.parametrize("way", ["broken.yaml", "../{folder}/broken.yaml"])
def test_a_circle_of_bases_is_shown(way: str, tmp_path: Path) -> None:
    write(tmp_path, other=f"_BASE_: {way.format(folder=tmp_path.name)}\n")
    message = error_of(tmp_path, "_BASE_: other.yaml\n", ValueError)
    assert "circular _BASE_" in message
    assert message.count("broken.yaml") == 2


@pytest.mark.parametrize("base", ["https://example.org/a.yaml", "s3://bucket/a.yaml"])
def test_remote_bases_are_refused(tmp_path: Path, base: str) -> None:
    message = error_of(tmp_path, f"_BASE_: {base}\n", ValueError)
    assert base in message
    assert "remote files are refused" in message


def test_a_base_must_be_a_path(tmp_path: Path) -> None:
    assert "must be a path or a list of paths, found 3" in error_of(
        tmp_path, "_BASE_: 3", ValueError
    )


def test_a_section_over_a_value_of_the_base_is_refused(tmp_path: Path) -> None:
    write(tmp_path, base="SOLVER: {STEPS: [1]}\n")
    message = error_of(tmp_path, "_BASE_: base.yaml\nSOLVER: {STEPS: {A: 1}}\n", ValueError)
    assert "SOLVER.STEPS" in message


@pytest.mark.parametrize("version", [1, 3])
def test_another_version_is_refused(tmp_path: Path, version: int) -> None:
    message = error_of(tmp_path, f"VERSION: {version}\nNEW_KEY: 1\n", AssertionError)
    assert f"expected VERSION: 2, found {version}" in message


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "just text\n"])
def test_a_file_must_hold_keys(tmp_path: Path, text: str) -> None:
    assert "KEY: VALUE" in error_of(tmp_path, text, ValueError)


@pytest.mark.parametrize("key", ["1", "SOLVER.MAX_ITER"])
def test_keys_must_be_text_without_dots(tmp_path: Path, key: str) -> None:
    assert "keys are text" in error_of(tmp_path, f"{key}: 2\n", ValueError)


def test_python_tags_are_refused(tmp_path: Path) -> None:
    target = tmp_path / "made_by_yaml"
    text = f"OUTPUT_DIR: !!python/object/apply:os.mkdir ['{target}']\n"
    assert "never execute code" in error_of(tmp_path, text, ValueError)
    assert not target.exists()


def test_new_keys_go_where_they_are_allowed(tmp_path: Path) -> None:
    write(tmp_path, file="FREE:\n  NEW: 1\n")
    cfg = CfgNode()
    cfg.FREE = CfgNode({"OLD": 0}, new_allowed=True)
    merge_config_file(cfg, tmp_path / "file.yaml")
    assert cfg.FREE.NEW == 1


def test_deprecated_and_renamed_keys_are_those_of_the_node(tmp_path: Path) -> None:
    cfg = CfgNode({"A": 1})
    cfg.register_deprecated_key("OLD")
    cfg.register_renamed_key("B", "A")
    write(tmp_path, deprecated="OLD: 3\n", renamed="B: 3\n")
    merge_config_file(cfg, tmp_path / "deprecated.yaml")
    assert cfg == CfgNode({"A": 1})
    with pytest.raises(KeyError, match="renamed to A"):
        merge_config_file(cfg, tmp_path / "renamed.yaml")


@pytest.mark.parametrize(
    ("options", "error", "part"),
    [
        (["SOLVR.BASE_LR", "1.0"], AssertionError, "Did you mean SOLVER.BASE_LR?"),
        (["SOLVR.BASE_LR", "1.0"], KeyError, "on the command line"),
        (["SOLVER.BASE_LR", "1"], ValueError, "Write 1.0."),
        (["SOLVER.BASE_LR=1.0"], AssertionError, "without '='"),
        (["--eval-only", "SOLVER.BASE_LR"], AssertionError, "flags come before"),
        (["INPUT.CROP.ENABLED", "true"], ValueError, "Write True or False."),
        (["_BASE_", "a.yaml"], AssertionError, "Non-existent key: _BASE_"),
    ],
)
def test_wrong_options_get_one_clear_error(
    options: list[Any], error: type[Exception], part: str
) -> None:
    with pytest.raises(error) as caught:
        merge_options(get_cfg(), options)
    assert part in str(caught.value)


def test_no_options_change_nothing() -> None:
    cfg = get_cfg()
    merge_options(cfg, [])
    assert cfg == get_cfg()


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1e999", "'nan,'", "[0.1, .nan]"])
def test_numbers_are_finite(value: str, tmp_path: Path) -> None:
    path = tmp_path / "numbers.yaml"
    path.write_text(f"SOLVER: {{BASE_LR: {value}}}")
    with pytest.raises(InputError, match=r"SOLVER\.BASE_LR in .*numbers\.yaml: expected|mismatch"):
        merge_config_file(get_cfg(), path)
    with pytest.raises(InputError, match=r"SOLVER\.BASE_LR on the command line: expected finite"):
        merge_options(get_cfg(), ["SOLVER.BASE_LR", "1e999"])


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("INPUT.MIN_SIZE_TRAIN", "(64, 'a')", "'a'"),
        ("INPUT.MIN_SIZE_TRAIN", "(64.5,)", r"64\.5"),
        ("SOLVER.STEPS", "(True,)", "True"),
        ("MODEL.PIXEL_MEAN", "['a', 1.0, 2.0]", "'a'"),
    ],
)
def test_lists_hold_what_their_defaults_hold(key: str, value: str, found: str) -> None:
    with pytest.raises(InputError, match=rf"{key} on the command line: expected .* found {found}"):
        merge_options(get_cfg(), [key, value])


@pytest.mark.parametrize("text", ["1:30", "190:20:30.15", "010"])
def test_numbers_are_decimal(text: str, tmp_path: Path) -> None:
    path = tmp_path / "numbers.yaml"
    path.write_text(f"SOLVER: {{MAX_ITER: {text}}}")
    with pytest.raises(InputError, match=rf"{text} would be read as a number to base \d+"):
        merge_config_file(get_cfg(), path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SOLVER.BASE_LR: 0.1", r"without dots, .*; write SOLVER: \{BASE_LR: \.\.\.\}"),
        ("VERSION: {}", r"expected VERSION: 2, found \{\}"),
        ("SOLVER: {MAX_ITER: 2020-13-45}", "cannot be read as a config: month"),
        (f"SOLVER: {{MAX_ITER: {'9' * 5000}}}", "cannot be read as a config: .*digits"),
    ],
)
def test_odd_yaml_is_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        merge_config_file(get_cfg(), path)


def test_a_value_that_python_cannot_parse_is_refused() -> None:
    with pytest.raises(InputError, match=r"SOLVER\.BASE_LR .*expected float"):
        merge_options(get_cfg(), ["SOLVER.BASE_LR", "-" * 100_000 + "1"])
