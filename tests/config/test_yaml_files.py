"""YAML is data: the one published expression is computed, nothing is ever executed."""

from pathlib import Path

import pytest

from maskclippp.config.yaml_files import read_yaml
from maskclippp.errors import InputError

TAG = "!!python/object/apply:eval"


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(("size", "start", "stop"), [(640, 3, 20), (512, 5, 21), (1024, 5, 5)])
def test_the_published_expression_is_computed(
    tmp_path: Path, size: int, start: int, stop: int
) -> None:
    expression = f"[int(x * 0.1 * {size}) for x in range({start}, {stop})]"
    path = write(tmp_path, f'SIZES: {TAG} ["{expression}"]\n')
    assert read_yaml(path) == {"SIZES": eval(expression)}


@pytest.mark.parametrize(
    "expression",
    [
        "1 + 2",
        "open",
        "(1).__class__",
        "lambda: 1",
        "'text' * 1000000000",
        "[1] * 1000000000",
        "9 ** 9 ** 9",
        "range(1000000000)",
        "[i for i in range(1000000000)]",
        "[int(x * 0.1 * 640) for x in range(3, 1000000000)]",
        "[int(x * 0.1 * 640) for x in range(3, 20)] + [open]",
        "[int(x * 0.1 * 640) for x in range(3, 20) if open]",
        "",
    ],
)
def test_every_other_expression_is_refused(tmp_path: Path, expression: str) -> None:
    path = write(tmp_path, f'SIZES: {TAG} ["{expression}"]\n')
    with pytest.raises(ValueError, match=r"(?s)config\.yaml.*not executed.*line 1"):
        read_yaml(path)


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.mkdir ['{target}']",
        "!!python/object/apply:eval [\"__import__('os').mkdir('{target}')\"]",
        "!!python/object/new:os.mkdir ['{target}']",
        "!!python/name:os.mkdir",
        "!!python/tuple [1, 2]",
        "!custom 1",
        "!!python/object/apply:eval ['1', '2']",
        "!!python/object/apply:eval '1'",
    ],
)
def test_tags_are_refused_with_file_and_line(tmp_path: Path, value: str) -> None:
    target = tmp_path / "made_by_yaml"
    path = write(tmp_path, "A: 1\nB: " + value.format(target=target) + "\n")
    with pytest.raises(ValueError, match=r"(?s)config\.yaml.*line 2"):
        read_yaml(path)
    assert not target.exists()


def test_broken_yaml_names_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"(?s)config\.yaml.*line 2"):
        read_yaml(write(tmp_path, "A: 1\nB: [1, 2\n"))


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ValueError, match=r"config\.yaml"):
        read_yaml(path)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("A: 1\nB: 2\nA: 3\n", (1, 3)),
        ("B:\n  A: 1\n  A: 1\n", (2, 3)),
        ("B: {C: 0,\n A: 1, A: 2}\n", (2, 2)),
        ('"A": 1\nA: 2\n', (1, 2)),
    ],
)
def test_a_key_that_stands_twice_is_refused(
    tmp_path: Path, text: str, lines: tuple[int, int]
) -> None:
    first, second = lines
    places = rf"(?s)config\.yaml.*key 'A'.*line {first}, .*line {second}, "
    with pytest.raises(ValueError, match=places):
        read_yaml(write(tmp_path, text))


def test_keys_may_stand_in_several_mappings_and_override_merged_ones(tmp_path: Path) -> None:
    path = write(tmp_path, "X: &x {A: 1, B: 2}\nY:\n  <<: *x\n  A: 3\nZ: *x\n")
    plain = {"A": 1, "B": 2}
    assert read_yaml(path) == {"X": plain, "Y": {"A": 3, "B": 2}, "Z": plain}


@pytest.mark.parametrize("text", ["A: 1\nB: &b [1, *b]\n", "A: 1\nB: &b {C: {D: *b}}\n"])
def test_an_alias_within_its_own_anchor_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"(?s)config\.yaml.*\*b refers to itself.*line 2"):
        read_yaml(write(tmp_path, text))


def test_aliases_that_stand_for_too_many_values_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 2]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))]
    (tmp_path / "a.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"(?s)a\.yaml.*aliases stand for more than 100,000"):
        read_yaml(tmp_path / "a.yaml")


def test_merged_aliases_count_too(tmp_path: Path) -> None:
    lines = ["a0: &a0 {k: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 60)]
    (tmp_path / "a.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"(?s)a\.yaml.*aliases stand for"):
        read_yaml(tmp_path / "a.yaml")


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, "- " * 5000, "? " * 5000])
def test_deep_nesting_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=r"(?s)a\.yaml.*nested too deeply"):
        read_yaml(tmp_path / "a.yaml")
