"""Submit one training per config to SLURM, as an array of jobs that survive preemption.

    python tools/submit.py configs/shapes/linear_psm.yaml configs/shapes/no_psm.yaml \\
        --gpus 8 --hours 24 --slurm partition=gpu qos=normal --options SOLVER.IMS_PER_BATCH 32

Each job runs train_maskclippp.py with --resume auto. Ninety seconds before the end of its time, and
when it is preempted, it saves a checkpoint and is queued again; there it continues. --cluster local
runs the same jobs on this machine, to try them.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import maskclippp  # noqa: F401  (makes detectron2 importable)

# isort: split
from maskclippp.engine.interruption import INTERRUPTED_STATUS
from maskclippp.errors import InputError, MissingPackageError, exit_on_bad_input

PROGRAM = Path(__file__).resolve().parents[1] / "train_maskclippp.py"
_SIGNAL = "USR1"  # training knows it, and submitit's default would end training at once


class Training:
    """The work of a job: a training in a process of its own, and its state for the next start."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Train; the status of the process.

        Raises:
            RuntimeError: the training failed, or was interrupted and not queued again.
        """
        self._process = subprocess.Popen([sys.executable, str(PROGRAM), *self.arguments])
        status = self._process.wait()
        waiting = status == INTERRUPTED_STATUS and os.environ.get("SLURM_PROCID", "0") != "0"
        if status and not waiting:  # the first task of an interrupted job queues it again
            raise RuntimeError(f"train_maskclippp.py ended with status {status}; see the job's log")
        return status

    def checkpoint(self) -> Any:
        """What submitit queues when the job must end: the same training, which resumes."""
        import submitit

        if self._process is not None:
            self._process.terminate()
            # Not its wait(): a signal has interrupted that, while it held its lock.
            with suppress(ChildProcessError):
                os.waitpid(self._process.pid, 0)
        return submitit.helpers.DelayedSubmission(Training(self.arguments))


def submit(
    configs: Sequence[str],
    *,
    cluster: str | None,
    folder: Path,
    arguments: Sequence[str] = (),
    options: Sequence[str] = (),
    gpus: int = 1,
    nodes: int = 1,
    minutes: int = 24 * 60,
    slurm: dict[str, Any] | None = None,
) -> list[Any]:
    """Submit one job per config.

    Args:
        cluster: "slurm", "local", or None: slurm where it is installed.
        folder: scripts and logs of the jobs.
        arguments: of train_maskclippp.py, for all jobs.
        options: KEY VALUE pairs, for all jobs.
        slurm: further options of sbatch.

    Raises:
        MissingPackageError: submitit is not installed.
        InputError: a config does not exist.
    """
    os.environ.setdefault("SUBMITIT_PREEMPT_SIGNAL", _SIGNAL)
    try:
        import submitit
    except ImportError as error:
        raise MissingPackageError(
            "tools/submit.py needs the package submitit: pip install 'maskclippp[slurm]'"
        ) from error
    for config in configs:
        if not Path(config).is_file():
            raise InputError(f"there is no config {config}")
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    executor.update_parameters(
        timeout_min=minutes,
        nodes=nodes,
        tasks_per_node=1,  # it starts one process per GPU
        gpus_per_node=gpus,
        slurm_setup=[f"export SUBMITIT_PREEMPT_SIGNAL={_SIGNAL}"],
        **{f"slurm_{key}": value for key, value in (slurm or {}).items()},
    )
    common = ["--num-gpus", str(gpus), "--resume", "auto", *arguments]
    with executor.batch():
        return [
            executor.submit(Training(["--config-file", config, *common, *options]))
            for config in configs
        ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Submit what the arguments describe, and say where the logs are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", nargs="+", help="YAML files; each becomes one job")
    parser.add_argument("--cluster", choices=("slurm", "local"), help="default: slurm, if present")
    parser.add_argument("--gpus", type=int, default=1, help="per node; 0: CPU (default: 1)")
    parser.add_argument("--nodes", type=int, default=1, help="per job (default: 1)")
    parser.add_argument("--hours", type=float, default=24, help="time of a job (default: 24)")
    parser.add_argument("--tag", default="submitted", help="of all runs (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("output/jobs"), help="for job logs")
    parser.add_argument("--slurm", nargs="*", default=[], metavar="KEY=VALUE", help="for sbatch")
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY VALUE", help="of configs")
    args = parser.parse_args(arguments)
    with exit_on_bad_input():
        wrong = [pair for pair in args.slurm if "=" not in pair]
        if wrong:
            raise InputError(f"--slurm {wrong[0]}: expected KEY=VALUE, such as partition=gpu")
        jobs = submit(
            args.configs,
            cluster=args.cluster,
            folder=args.folder,
            arguments=["--tag", args.tag],
            options=args.options,
            gpus=args.gpus,
            nodes=args.nodes,
            minutes=max(1, round(args.hours * 60)),
            slurm=dict(pair.split("=", 1) for pair in args.slurm),
        )
    for config, job in zip(args.configs, jobs, strict=True):
        sys.stdout.write(f"{config}: job {job.job_id}, log {job.paths.stdout}\n")
    if args.cluster == "local":
        for job in jobs:
            job.result()


if __name__ == "__main__":
    main()
