"""The command for a GPU works where there is none."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from benchmarks.measure import FlopCounter
from maskclippp.generators.mask2former.deformable_attention import sample_multi_scale


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``python -m benchmarks.gpu``."""
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    folder = Path(__file__).parents[2]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("device", ["cuda" if torch.cuda.is_available() else "cpu"])
def test_the_quick_command_checks_measures_and_reports(device: str, tmp_path: Path) -> None:
    done = run_command("--quick", "--device", device, "--output", str(tmp_path))
    logs = "".join(file.read_text()[-2000:] for file in sorted(tmp_path.glob("*.log")))
    assert done.returncode == 0, done.stderr + logs
    report = json.loads((tmp_path / "report.json").read_text())
    checks, measured = report["steps"]
    assert set(checks["report"]) == {
        *("goldens", "parity", "training", "process_group", "compiled", "memory"),
        *("resizing", "pinned", "waits", "sampling"),
    }
    assert measured["report"]["results"]
    table = (tmp_path / "report.md").read_text()
    assert report["machine"]["card"] in table
    assert "images/s" in table


def test_steps_that_no_longer_fit_are_named(tmp_path: Path) -> None:
    done = run_command("--minutes", "0", "--device", "cpu", "--output", str(tmp_path))
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("not run: the time was over") == 19


def test_operations_are_counted() -> None:
    with FlopCounter() as counter:
        torch.randn(3, 5) @ torch.randn(5, 7)
    assert counter.total == 2 * 3 * 5 * 7


@pytest.mark.skipif(torch.cuda.is_available(), reason="the command checks the compiled kernel")
def test_the_kernel_of_deformable_sampling_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # on the CPU, when the module is imported
    from benchmarks.triton_sampling import by_triton

    sizes = [(2, 3), (4, 5)]
    value = torch.randn(2, 26, 2, 4)
    weights, locations = torch.rand(2, 3, 2, 2, 2), torch.rand(2, 3, 2, 2, 2, 2) * 1.4 - 0.2
    found = by_triton(value, sizes, locations, weights)
    assert_close(found, sample_multi_scale(value, sizes, locations, weights))
