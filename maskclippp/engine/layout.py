"""The place of a process among those of its run, from a launcher's variables and the arguments."""

import argparse
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from maskclippp.engine.arguments import default_address
from maskclippp.errors import InputError


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
    _check_layout(layout)
    return layout if layout.world_size > 1 else None


def _check_layout(layout: Layout) -> None:
    """Raise an InputError if there is no such place among the processes."""
    places = [("RANK", layout.rank, layout.world_size)]
    if layout.init_method == "env://":
        places.append(("LOCAL_RANK", layout.local_rank, layout.local_size))
    for name, value, size in places:
        if not 0 <= value < size:
            raise InputError(
                f"the launcher's variables ({name} and {layout.variables}, or SLURM's) give this "
                f"process the number {value} of {size}: expected 0 to {size - 1}; start all "
                "processes with the same launcher, or unset its variables"
            )
    if layout.world_size % layout.local_size:
        raise InputError(
            f"{layout.world_size} processes cannot be spread evenly, {layout.local_size} per "
            "machine: start the same number of processes on each machine"
        )


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
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode or not found.stdout.split():
        raise InputError(
            f"{' '.join(command)} failed ({found.stderr.strip() or 'it names no host'}): set "
            "MASTER_ADDR to the host of rank 0"
        )
    return found.stdout.split()[0]


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


def check_own_launch(args: argparse.Namespace) -> None:
    """Check and complete the arguments with which detectron2's launcher starts the processes.

    Raises:
        InputError: numbers that do not fit together, or an address where processes cannot meet.
    """
    machines, rank = args.num_machines, args.machine_rank
    if args.num_gpus < 0:
        raise InputError(f"--num-gpus {args.num_gpus}: expected 0 (CPU) or a number of processes")
    if machines < 1 or not 0 <= rank < machines:
        raise InputError(
            f"--num-machines {machines} and --machine-rank {rank}: expected at least one machine, "
            "and ranks from 0 to their number - 1"
        )
    if args.num_gpus == 0 and machines > 1:
        raise InputError(
            f"--num-gpus 0 with --num-machines {machines}: --num-gpus is also the number of "
            "processes per machine; several machines without GPUs take --num-gpus 1 MODEL.DEVICE "
            "cpu"
        )
    if machines == 1 and args.dist_url == default_address():
        args.dist_url = "auto"  # a free port
    if args.dist_url == "auto" and machines == 1:
        return
    address = re.fullmatch(r"tcp://(\[[^]/]+\]|[^:/\s]+):(\d{1,5})|(file|env)://.*", args.dist_url)
    if address is None or (address[2] and not 0 < int(address[2]) < 2**16):
        raise InputError(
            f"--dist-url {args.dist_url}: expected the address at which the processes meet, "
            "tcp://HOST:PORT of the machine with rank 0"
            + ("" if machines > 1 else ", or auto for a free port of this machine")
        )
    if address[2] and rank == 0 and args.num_gpus * machines > 1:
        _check_port(int(address[2]), f"--dist-url {args.dist_url}")


def _check_port(port: int, source: str) -> None:
    """Raise an InputError if the processes cannot meet at this port of this machine."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("", port))
        except OSError as error:
            raise InputError(
                f"{source}: port {port} of this machine cannot be used ({error.strerror}); choose "
                "another one; auto is a free one"
            ) from error


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
