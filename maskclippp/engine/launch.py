"""From command-line arguments to the processes of a run, and what each of them does."""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch.distributed
import torch.multiprocessing
from detectron2.config import CfgNode
from detectron2.engine import DEFAULT_TIMEOUT
from detectron2.engine import launch as start_processes
from detectron2.evaluation import verify_results
from detectron2.utils import comm

from maskclippp.engine.checkpoint import Checkpointer
from maskclippp.engine.setup import build_config, run_folder, setup
from maskclippp.engine.trainer import Trainer
from maskclippp.errors import InputError, exit_on_bad_input


class Layout(NamedTuple):
    """The place of this process among those that an external launcher has started."""

    rank: int
    world_size: int
    local_rank: int  # the index of this process on its machine
    local_size: int  # number of processes on each machine
    init_method: str  # address at which the processes meet

    @property
    def variables(self) -> str:
        """The variables that give the numbers of processes."""
        if self.init_method == "env://":
            return "WORLD_SIZE and LOCAL_WORLD_SIZE"
        return "SLURM_STEP_NUM_TASKS and SLURM_STEP_NUM_NODES"


def main(args: argparse.Namespace) -> None:
    """Train or evaluate; the work of every process."""
    with exit_on_bad_input():
        cfg = build_config(args)
        folder = Path(cfg.OUTPUT_DIR)
        with run_folder(folder):
            setup(cfg, args)
            with exit_on_bad_input(folder, comm.get_rank()):
                if args.eval_only:
                    evaluate_checkpoint(cfg, resume=args.resume)
                else:
                    trainer = Trainer(cfg)
                    trainer.resume_or_load(resume=args.resume)
                    trainer.train()


def evaluate_checkpoint(cfg: CfgNode, *, resume: bool) -> None:
    """Evaluate MODEL.WEIGHTS, or the last checkpoint of OUTPUT_DIR, on DATASETS.TEST."""
    model = Trainer.build_model(cfg)
    checkpointer = Checkpointer(model, cfg.OUTPUT_DIR)
    checkpointer.allow_incomplete = cfg.MODEL.ALLOW_INCOMPLETE_WEIGHTS
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume, may_be_absent=not resume)
    results = Trainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results.update(Trainer.test_with_augmentation(cfg, model))
    if comm.is_main_process():
        verify_results(cfg, results)


def launch_run(args: argparse.Namespace) -> None:
    """Check the configuration, then start the processes, or join those that are started."""
    with exit_on_bad_input():
        layout = external_layout(os.environ)
        if layout is not None:
            check_arguments(args, layout)
            if one_launcher_per_machine(args, layout):
                layout = None
        device = build_config(args).MODEL.DEVICE
    if device == "cpu":
        # The launcher would use NCCL, which cannot train on CPUs, if it saw a CUDA device.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if layout is not None:
        _join_and_run(args, layout, with_gpus=device.startswith("cuda"))
        return
    try:
        start_processes(
            main,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except torch.multiprocessing.ProcessExitedException as error:
        if error.signal_name:
            raise
        sys.exit(error.exit_code)  # the process has printed the reason


def external_layout(environment: Mapping[str, str]) -> Layout | None:
    """The layout that the variables of torchrun, srun or a similar launcher describe.

    None if there are none, or only a single process; then detectron2's launcher starts processes.
    Only srun sets SLURM_STEP_NUM_TASKS. Batch scripts and the shell of salloc have SLURM_PROCID and
    the SLURM_NTASKS of their job, but nothing has started the other tasks.

    Raises:
        InputError: a variable is missing or invalid.
    """
    try:
        if {"RANK", "WORLD_SIZE"} <= environment.keys():
            layout = _layout_of_torchrun(environment)
        elif {"SLURM_PROCID", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS"} <= environment.keys():
            layout = _layout_of_slurm(environment)
        else:
            return None
    except InputError:
        raise
    except (KeyError, ValueError) as error:
        raise InputError(
            f"the launcher's environment variables are incomplete or invalid ({error!r}): expected "
            "those of torchrun (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, "
            "MASTER_PORT) or of srun (SLURM_PROCID, SLURM_LOCALID, SLURM_JOB_ID, SLURM_STEP_ID, "
            "SLURM_STEP_NUM_TASKS, SLURM_STEP_NUM_NODES, SLURM_STEP_NODELIST)"
        ) from error
    if layout.world_size % layout.local_size:
        raise InputError(
            f"{layout.world_size} processes cannot be spread evenly, {layout.local_size} per "
            "machine: start the same number of processes on each machine"
        )
    return layout if layout.world_size > 1 else None


def _layout_of_torchrun(environment: Mapping[str, str]) -> Layout:
    """Also that of accelerate, Kubeflow and Ray Train; a process without LOCAL_RANK is alone."""
    world_size = environment["WORLD_SIZE"]
    local_size = world_size if "LOCAL_RANK" in environment else "1"
    return Layout(
        rank=int(environment["RANK"]),
        world_size=int(world_size),
        local_rank=int(environment.get("LOCAL_RANK", "0")),
        local_size=int(environment.get("LOCAL_WORLD_SIZE", local_size)),
        init_method="env://",
    )


def _layout_of_slurm(environment: Mapping[str, str]) -> Layout:
    tasks = int(environment["SLURM_STEP_NUM_TASKS"])
    if tasks == 1:
        return Layout(0, 1, 0, 1, "")
    machines = int(environment["SLURM_STEP_NUM_NODES"])
    per_machine = environment.get("SLURM_STEP_TASKS_PER_NODE", "")  # 4(x2), or 3,1 if uneven
    if tasks % machines or "," in per_machine:
        raise InputError(
            f"srun did not spread its {tasks} tasks evenly over {machines} nodes "
            f"(SLURM_STEP_NUM_TASKS, SLURM_STEP_NUM_NODES): set --ntasks-per-node"
        )
    # One port per job step, so that the runs of a machine do not meet.
    port = environment.get("MASTER_PORT") or (
        20_000 + (int(environment["SLURM_JOB_ID"]) + int(environment["SLURM_STEP_ID"])) % 20_000
    )
    host = environment.get("MASTER_ADDR") or (
        "127.0.0.1" if machines == 1 else _first_host(environment["SLURM_STEP_NODELIST"])
    )
    return Layout(
        rank=int(environment["SLURM_PROCID"]),
        world_size=tasks,
        local_rank=int(environment["SLURM_LOCALID"]),
        local_size=tasks // machines,
        init_method=f"tcp://{host}:{port}",
    )


def _first_host(node_list: str) -> str:
    """The first host of SLURM's compressed list, which runs rank 0."""
    if shutil.which("scontrol") is None:
        raise InputError("scontrol is not installed here: set MASTER_ADDR to the host of rank 0")
    command = ["scontrol", "show", "hostnames", node_list]
    return subprocess.check_output(command, text=True).split()[0]


def check_arguments(args: argparse.Namespace, layout: Layout) -> None:
    """Raise an InputError if the arguments contradict an external launcher.

    1, the default of ``--num-gpus`` and ``--num-machines``, leaves the decision to the launcher;
    ``--num-gpus 0`` selects the CPU. Where the launcher started one process per machine, that
    process may start one per GPU.
    """
    wrong = None
    if layout.local_size > 1 and args.num_gpus not in (0, 1, layout.local_size):
        wrong = f"--num-gpus {args.num_gpus}"
    elif args.num_machines not in (1, layout.world_size // layout.local_size):
        wrong = f"--num-machines {args.num_machines}"
    if wrong is not None:
        raise InputError(
            f"{wrong} contradicts the launcher, which started {layout.world_size} processes, "
            f"{layout.local_size} per machine (from {layout.variables}): leave out "
            f"{wrong.split()[0]}, or start the command without torchrun or srun and unset "
            "these variables"
        )


def one_launcher_per_machine(args: argparse.Namespace, layout: Layout) -> bool:
    """Whether the external launcher only starts detectron2's launcher, once on each machine.

    So it is if there is one process per machine, and the arguments ask for more GPUs or describe
    the machines. What they leave out is filled in: the machines and where their processes meet.
    """
    asked = args.num_gpus > 1 or args.num_machines > 1 or args.machine_rank > 0
    if layout.local_size > 1 or not asked or args.num_gpus == 0:
        return False
    args.num_machines = layout.world_size
    args.machine_rank = args.machine_rank or layout.rank
    if args.dist_url == "auto" or "//127.0.0.1:" in args.dist_url:  # detectron2's default
        args.dist_url = layout.init_method
    return True


def _join_and_run(args: argparse.Namespace, layout: Layout, *, with_gpus: bool) -> None:
    """Join the process group that the layout describes, then run :func:`main`."""
    if with_gpus:
        visible = torch.cuda.device_count()
        # Launchers may show each process all GPUs of its machine, or only its own.
        torch.cuda.set_device(layout.local_rank if visible > 1 else 0)
    torch.distributed.init_process_group(
        "nccl" if with_gpus else "gloo",
        init_method=layout.init_method,
        rank=layout.rank,
        world_size=layout.world_size,
        timeout=DEFAULT_TIMEOUT,
    )
    comm.create_local_process_group(layout.local_size)
    comm.synchronize()
    args.tag = comm.all_gather(args.tag)[0]  # each process has derived it from its own clock
    main(args)
    torch.distributed.destroy_process_group()
