"""Time and peak memory of functions, interleaved so that all of them meet the same machine load."""

import ctypes
import gc
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from maskclippp.errors import UnreadableFileError

_PROCESS = Path("/proc/self")


@dataclass(frozen=True)
class Measurement:
    """What one function took.

    Attributes:
        seconds: of every timed run.
        peak_memory: bytes by which memory grew at most while the function ran once, its result
            included; None where it cannot be told.
        result: what that run returned.
    """

    seconds: tuple[float, ...]
    peak_memory: int | None
    result: Any

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds)


def measure(
    functions: Mapping[str, Callable[[], Any]],
    repeats: int,
    device: torch.device,
    check: Callable[[dict[str, Any]], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Measurement]:
    """Run every function once for its memory and as warm-up, then take turns ``repeats`` times.

    Args:
        functions: by name.
        repeats: timed runs of every function.
        device: where the memory is counted.
        check: is given the results of the first runs, before anything is timed.
        clock: seconds; ``time.process_time`` counts those of all threads of this process.
    """
    first = {name: _peak_memory(function, device) for name, function in functions.items()}
    if check is not None:
        check({name: result for name, (_, result) in first.items()})
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            seconds[name].append(_seconds(function, device, clock))
    return {
        name: Measurement(tuple(seconds[name]), peak, result)
        for name, (peak, result) in first.items()
    }


class FlopCounter(TorchDispatchMode):
    """Counts the operations of matrix products, convolutions and attention: 2 per multiply-add."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, function: Any, _: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if count := flop_registry.get(function.overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


def _seconds(
    function: Callable[[], Any], device: torch.device, clock: Callable[[], float]
) -> float:
    wait(device)
    start = clock()
    function()
    wait(device)
    return clock() - start


def wait(device: torch.device) -> None:
    """Until everything that was started on a device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_memory(function: Callable[[], Any], device: torch.device) -> tuple[int | None, Any]:
    """CUDA: memory of tensors. CPU: resident memory as Linux counts it (None elsewhere)."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = function()
        return torch.cuda.max_memory_allocated(device) - before, result
    if not sys.platform.startswith("linux"):
        return None, function()
    # Freed memory that the allocator keeps would hide what the function needs.
    ctypes.CDLL(None).malloc_trim(0)
    (_PROCESS / "clear_refs").write_text("5")  # the peak starts at the present size
    before = _status("VmRSS")
    result = function()
    return max(0, _status("VmHWM") - before), result


def _status(name: str) -> int:
    """Bytes that /proc/self/status gives for a quantity."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", (_PROCESS / "status").read_text(), re.MULTILINE)
    if found is None:
        raise UnreadableFileError(f"{_PROCESS / 'status'} does not tell {name}")
    return int(found[1]) * 1024
