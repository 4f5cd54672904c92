"""Jobs of submitit: a preempted training is queued again and continues."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from maskclippp.data.shapes import dataset as shapes
from maskclippp.errors import InputError
from maskclippp.files.lock import LOCK_NAME
from tests.engine.processes import run_in_processes  # noqa: F401  (marks the module)
from tests.engine.test_train_shapes import CONFIG
from tools.submit import main, submit

OPTIONS = ("SOLVER.MAX_ITER", "6", "SOLVER.CHECKPOINT_PERIOD", "1", "DATASETS.TEST", "()")


@pytest.mark.processes
def test_a_preempted_job_continues_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MASKCLIPPP_CACHE", str(tmp_path / "cache"))
    shapes.write_split("train", 4, shapes.shapes_folder() / "train")
    configs = ["whole.yaml", "preempted.yaml"]
    for config in configs:
        Path(config).write_text(CONFIG)
    settings = {"cluster": "local", "folder": tmp_path / "jobs", "gpus": 0}
    whole, preempted = submit(
        configs, arguments=("--tag", "run"), options=OPTIONS, minutes=60, **settings
    )
    runs = [Path("output", Path(config).stem, "run") for config in configs]
    while not (runs[1] / "last_checkpoint").exists():
        assert preempted.state == "RUNNING", preempted.stderr()
        time.sleep(0.01)
    trainer = (runs[1] / LOCK_NAME).read_text().split()[1]
    job = Path("/proc", trainer, "stat").read_text().split()[3]  # its parent
    os.kill(int(job), signal.SIGUSR1)  # as SLURM does; the local executor passes on SIGTERM only
    assert [job.result() for job in (whole, preempted)] == [0, 0]
    assert "Requeued job" in preempted.stdout()
    first, second = (torch.load(run / "model_final.pth")["model"] for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_is_wrong_is_said_before_anything_is_submitted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"no config absent\.yaml"):
        submit(["absent.yaml"], cluster="local", folder=tmp_path / "jobs")
    with pytest.raises(SystemExit):
        main([__file__, "--cluster", "local", "--slurm", "gpu"])
    assert "--slurm gpu: expected KEY=VALUE" in capsys.readouterr().err
    assert not (tmp_path / "jobs").exists()
