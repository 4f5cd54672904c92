"""The compact copy of the golden cases: exact where it holds something, and small."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from tests.golden.compact_golden import RULES, compact, read_rules, size_of
from tests.golden_cases import COMPACT_COPY, GoldenCase, cases_in

VOCABULARY, WIDTH, IDS = 100, 4, [3, 98, 3]


def numbers(*shape: int) -> Tensor:
    return torch.linspace(-1, 1, torch.Size(shape).numel()).sin().reshape(shape)


def made_up_case(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Write a case that holds every kind of value; its tensors, by file."""
    table = torch.zeros(VOCABULARY, WIDTH)
    table[IDS] = numbers(3, WIDTH)
    files = {
        "weights": {
            "token_embedding.weight": table,
            "half": numbers(3, 3).half(),
            "generator.weight": numbers(2, 2),
        },
        "inputs": {
            "tokens": torch.tensor(IDS),
            "image": torch.arange(2 * 3 * 256.0).reshape(2, 3, 256) % 256,
            "masks": torch.tensor([[True, False]]),
            "none": torch.zeros(0, 4),
            "soft": torch.tensor([0.5, -0.0, 1e-9]),
            "special": torch.tensor([float("nan"), float("inf"), 256.0]),
        },
        "outputs": {
            "first/map": numbers(2, 5),
            "first/input": numbers(2, 7),
            "second/map": numbers(2, 5),
        },
    }
    folder.mkdir(parents=True)
    for name, tensors in files.items():
        save_file(tensors, folder / f"{name}.safetensors")
    info = {
        "config": {"B": 2},
        "variants": {"first": "one", "second": "two"},
        "outputs": {
            name: {"shape": list(tensor.shape)} for name, tensor in files["outputs"].items()
        },
    }
    (folder / "case.json").write_text(json.dumps(info))
    labels = np.arange(600, dtype=np.uint16).reshape(20, 30)
    Image.fromarray(labels).save(folder / "labels.tif")
    return files


def write_rules(path: Path, **reduced: Any) -> Path:
    left_out = {"photos": "holds photos"}
    content = {"left_out": left_out, "beside_the_cases": ["defaults.yaml"], "reduced": reduced}
    path.write_text(yaml.safe_dump(content))
    return path


def compact_case(folder: Path, **rule: Any) -> tuple[GoldenCase, dict[str, dict[str, Tensor]]]:
    """The compact form of a made-up case by a rule, and the tensors it was made from."""
    source = folder / "source"
    files = made_up_case(source / "thing")
    reduced = {"thing": {"why": "to be small", **rule}} if rule else {}
    compact(source, folder / "copy", write_rules(folder / "rules.yaml", **reduced))
    (case,) = cases_in(folder / "copy", ("thing",))
    return case, files


def same(first: Tensor, second: Tensor) -> bool:
    """Equal to the last bit, as tests read tensors: half precision becomes float32."""
    second = second.float() if second.is_floating_point() else second
    return first.dtype == second.dtype and first.numpy().tobytes() == second.numpy().tobytes()


def test_what_is_copied_is_read_back_exactly(tmp_path: Path) -> None:
    case, files = compact_case(tmp_path, rows={"token_embedding.weight": "tokens"})
    for name, tensors in files.items():
        read = case.tensors(name)
        assert sorted(read) == sorted(tensors)
        for key, value in tensors.items():
            assert read[key].shape == value.shape, key
            assert same(read[key], value), key


def test_rows_that_are_never_read_are_zero(tmp_path: Path) -> None:
    source = tmp_path / "source"
    files = made_up_case(source / "thing")
    files["weights"]["token_embedding.weight"][7] = 1.0
    save_file(files["weights"], source / "thing" / "weights.safetensors")
    rule = {"why": "to be small", "rows": {"token_embedding.weight": "tokens"}}
    compact(source, tmp_path / "copy", write_rules(tmp_path / "rules.yaml", thing=rule))
    (case,) = cases_in(tmp_path / "copy", ("thing",))
    assert not case.tensors("weights")["token_embedding.weight"][7].any()


def test_dropped_tensors_are_no_longer_described(tmp_path: Path) -> None:
    case, files = compact_case(tmp_path, drop=["outputs/*/input", "inputs/soft"])
    left = {"first/map", "second/map"}
    assert set(case.tensors("outputs")) == left == set(case.info["outputs"])
    assert set(case.tensors("inputs")) == set(files["inputs"]) - {"soft"}


def test_a_variant_goes_with_its_tensors(tmp_path: Path) -> None:
    case, _ = compact_case(tmp_path, keep={"variants": ["second"]})
    assert set(case.info["variants"]) == {"second"}
    assert set(case.tensors("outputs")) == {"second/map"}


def test_the_first_image_of_a_batch(tmp_path: Path) -> None:
    case, files = compact_case(
        tmp_path, first={"inputs/image": 1, "outputs/*/map": 1}, replace={"config/B": 1}
    )
    assert case.info["config"]["B"] == 1
    assert same(case.tensors("inputs")["image"], files["inputs"]["image"][:1])
    assert case.info["outputs"]["first/map"]["shape"] == [1, 5]


def test_weights_without_effect_keep_their_shape(tmp_path: Path) -> None:
    case, _ = compact_case(tmp_path, zero=["weights/generator.*"])
    assert torch.equal(case.tensors("weights")["generator.weight"], torch.zeros(2, 2))


def test_a_case_tells_by_which_rule_it_was_reduced(tmp_path: Path) -> None:
    case, _ = compact_case(tmp_path, drop=["inputs/soft"])
    assert case.info["reduced"]["why"] == "to be small"
    assert case.info["reduced"]["left_out"] == ["inputs/soft"]


def test_images_of_labels_keep_their_values(tmp_path: Path) -> None:
    compact_case(tmp_path)
    with Image.open(tmp_path / "copy" / "thing" / "labels.tif") as image:
        assert np.array_equal(np.asarray(image), np.arange(600).reshape(20, 30))


def test_files_beside_the_cases_are_copied_and_forbidden_cases_are_not(tmp_path: Path) -> None:
    source = tmp_path / "source"
    made_up_case(source / "photos")
    (source / "defaults.yaml").write_text("A: 1\n")
    (source / "NOTES.md").write_text("notes")
    compact(source, tmp_path / "copy", write_rules(tmp_path / "rules.yaml"))
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["defaults.yaml"]


@pytest.mark.parametrize(
    "rule",
    [{"drop": ["outputs/third/*"]}, {"zero": ["weights/absent"]}, {"rows": {"absent": "tokens"}}],
    ids=str,
)
def test_a_rule_that_fits_nothing_is_an_error(rule: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"thing.*do not exist"):
        compact_case(tmp_path, **rule)


def test_an_unknown_variant_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="third"):
        compact_case(tmp_path, keep={"variants": ["third"]})


def test_an_existing_destination_is_not_overwritten(tmp_path: Path) -> None:
    made_up_case(tmp_path / "source" / "thing")
    with pytest.raises(FileExistsError, match="remove it"):
        compact(tmp_path / "source", tmp_path, write_rules(tmp_path / "rules.yaml"))


def test_a_source_without_cases_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no golden cases"):
        compact(tmp_path, tmp_path / "copy", RULES)


def test_the_committed_copy_is_small() -> None:
    assert size_of(COMPACT_COPY) < 5_000_000


def test_the_committed_copy_follows_the_rules() -> None:
    rules, left_out, _ = read_rules(RULES)
    committed = {case.path.name: case for case in cases_in(COMPACT_COPY, ("",))}
    assert not committed.keys() & left_out.keys()
    assert committed.keys() >= rules.keys()
    reasons = {name: committed[name].info["reduced"]["why"] for name in rules}
    assert reasons == {name: rule.why for name, rule in rules.items()}
