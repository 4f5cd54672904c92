"""Failures of processes, memory and network, said in one sentence each."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch.multiprocessing
from detectron2.utils import comm

from maskclippp.errors import InputError

_LOST = (
    "process {rank} of the run lost another one, which was killed or has failed: its own message, "
    "or the kernel's log if the memory ran out, says why"
)
# What torch says (a regular expression), and what we say.
_EXPLANATIONS = {
    r"killed by signal: Bus error|unable to (write to file|allocate shared memory|resize file)"
    r"|shared memory.*No space left": (
        "the shared memory of the data loading processes (/dev/shm) is full: enlarge it (for "
        "example docker run --shm-size 8g), or lower DATALOADER.NUM_WORKERS (0: no such processes)"
    ),
    r"DataLoader worker .*(killed by signal|exited unexpectedly)": (
        "a data loading process was killed ({first_line}), probably because the memory of the "
        "machine ran out: lower DATALOADER.NUM_WORKERS or free some memory"
    ),
    r"Connection (closed|reset) by peer|Broken pipe|failed to recv, got 0 bytes"
    r"|Connection was likely closed|remote process exited|Application timeout caused pair": _LOST,
    r"EADDRINUSE|address already in use": (
        "the port at which the processes would meet is in use ({first_line}): choose another one "
        "with --dist-url tcp://HOST:PORT, or MASTER_PORT for torchrun and SLURM"
    ),
    r"(?i)CUDA out of memory": (
        "the memory of the GPU ran out ({first_line}): lower SOLVER.IMS_PER_BATCH (with "
        "SOLVER.ACCUMULATION_STEPS for the same step), or the image size"
    ),
}


def explained(message: str, *, processes: int = 2) -> InputError | None:
    """The failure that torch describes with ``message``, if a user can do something about it.

    Args:
        processes: of the run; a single one has none to lose.
    """
    for pattern, explanation in _EXPLANATIONS.items():
        if processes == 1 and explanation is _LOST:
            continue
        if found := re.search(pattern, message):
            line = next(line for line in message.splitlines() if found[0].splitlines()[0] in line)
            text = explanation.format(rank=comm.get_rank(), first_line=line.strip()[:200])
            return InputError(f"{text}. --resume continues a training")
    return None


@contextmanager
def explaining_failures() -> Iterator[None]:
    """Raise the failures that :func:`explained` knows as InputErrors."""
    try:
        yield
    except InputError:
        raise
    except (RuntimeError, OSError, torch.multiprocessing.ProcessRaisedException) as error:
        of_child = isinstance(error, torch.multiprocessing.ProcessRaisedException)
        known = explained(str(error), processes=2 if of_child else comm.get_world_size())
        if known is None and isinstance(error, OSError) and error.errno == errno.ENOSPC:
            known = InputError(f"a disk, or /dev/shm, is full ({error}): free some space")
        if known is None:
            raise
        raise known from error


def died(process: int, signal_name: str) -> InputError:
    """The failure of a process of the run that a signal has ended."""
    return InputError(
        f"process {process} of the run was ended by {signal_name}"
        + (", as when the memory of the machine runs out" if signal_name == "SIGKILL" else "")
        + ": start fewer processes (--num-gpus) or loader workers (DATALOADER.NUM_WORKERS) if the "
        "kernel's log names the memory, and continue a training with --resume"
    )
