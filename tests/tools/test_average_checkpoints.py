"""Averages and interpolations are checkpoints that a model loads."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from maskclippp.engine.checkpoint import Checkpointer
from maskclippp.errors import InputError
from maskclippp.files.weights import read_weights
from tests.golden_cases import REPOSITORY
from tools import average_checkpoints
from tools.average_checkpoints import plain_clip

CONFIG = REPOSITORY / "configs/shapes/linear_psm.yaml"
TRAINED = ("visual_encoder.", "psm.")


def save(path: Path, state: dict[str, Tensor]) -> str:
    torch.save({"model": state}, path)
    return str(path)


def run(*arguments: str | Path) -> None:
    average_checkpoints.main([str(argument) for argument in arguments])


def test_the_mean_of_weights_keeps_types_and_rounds_counts(tmp_path: Path) -> None:
    files = [
        save(
            tmp_path / f"{number}.pth",
            {
                "psm.weight": torch.tensor([number, 2.0 * number]),
                "psm.half": torch.tensor([number], dtype=torch.float16),
                "psm.count": torch.tensor(number),
            },
        )
        for number in (1, 2, 6)
    ]
    run(*files, "--output", tmp_path / "mean.pth")
    mean = read_weights(tmp_path / "mean.pth")
    assert mean["psm.weight"].tolist() == [3.0, 6.0]
    assert (mean["psm.half"].dtype, mean["psm.half"].item()) == (torch.float16, 3)
    assert (mean["psm.count"].dtype, mean["psm.count"].item()) == (torch.int64, 3)


@pytest.mark.parametrize("factor", [0.0, 0.25, 1.0])
def test_between_plain_and_tuned_clip(factor: float, tmp_path: Path) -> None:
    plain = plain_clip(CONFIG, [])
    tuned = {k: v + 0.5 for k, v in plain.items() if k.startswith(TRAINED)}
    file = save(tmp_path / "tuned.pth", tuned)
    output = tmp_path / "between.pth"
    run(file, "--config-file", CONFIG, "--factor", str(factor), "--output", output)
    found = read_weights(output)
    assert found.keys() == tuned.keys()
    for key, value in found.items():
        expected = plain[key] + 0.5 * factor if key.startswith("visual_encoder.") else tuned[key]
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)


def test_a_model_loads_the_average(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    for name in ("a", "b"):
        Checkpointer(model, str(tmp_path)).save(name)
    run(tmp_path / "a.pth", tmp_path / "b.pth", "--output", tmp_path / "new" / "mean.pth")
    other = nn.Linear(2, 2)
    Checkpointer(other).load(tmp_path / "new" / "mean.pth")
    assert torch.equal(other.weight, model.weight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.pth"], "an average is one of several"),
        (["a.pth", "b.pth"], "not of one model.*psm"),
        (["a.pth", "nan.pth"], r"nan\.pth has NaN"),
        (["a.pth", "absent.pth"], r"absent\.pth does not exist"),
        (["a.pth", "out.pth"], "is one of the checkpoints"),
        (["a.pth", "--factor", "0.5"], "--factor takes one fine-tuned checkpoint"),
    ],
)
def test_unusable_input_is_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("a.pth"), {"psm.weight": torch.ones(2)})
    save(Path("b.pth"), {"psm.weight": torch.ones(3)})
    save(Path("nan.pth"), {"psm.weight": torch.tensor([1.0, float("nan")])})
    with pytest.raises(InputError, match=message) as caught:
        run(*arguments, "--output", "out.pth")
    assert "\n" not in str(caught.value)
