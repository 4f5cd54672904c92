"""What the trainings from scratch share: CLIP and mask generators of the built-in world."""

import argparse
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

logger = logging.getLogger(__name__)


class Training:
    """Optimizers, schedule and checkpoint of a run.

    Args:
        modules: what is trained, by name; the first one's gradients are clipped.
        optimizers: of their parameters.
        arguments: of the command line; see `training_parser`.

    A stopped run goes on from `<output>.checkpoint`; `first` is the step to begin with.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        optimizers: list[torch.optim.Optimizer],
        arguments: argparse.Namespace,
    ) -> None:
        self.modules = modules
        self.optimizers = optimizers
        self.arguments = arguments
        self.checkpoint: Path = arguments.output.with_suffix(".checkpoint")
        self.first = self._resume()

    def _resume(self) -> int:
        if not self.checkpoint.is_file():
            return 0
        saved = torch.load(self.checkpoint)
        for name, module in self.modules.items():
            module.load_state_dict(saved["modules"][name])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        logger.info("going on from step %d", saved["step"])
        return int(saved["step"])

    def update(self, step: int, loss: Tensor) -> None:
        """One step of all optimizers."""
        rate = learning_rate(
            step, self.arguments.steps, self.arguments.learning_rate, self.arguments.warmup
        )
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        for module in self.modules.values():
            module.zero_grad()
        loss.backward()
        clipped = next(iter(self.modules.values()))
        nn.utils.clip_grad_norm_(clipped.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()

    def keep(self, done: int) -> None:
        """Write the checkpoint after so many steps."""
        state = {
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": done,
        }
        write_whole(self.checkpoint, lambda path: torch.save(state, path))


def write_weights(
    state: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file, whole or not at all."""
    write_whole(path, lambda partial: save_file(dict(state), partial, metadata))
    logger.info("wrote %s (%.1f MB)", path, path.stat().st_size / 1e6)


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Have a file written under another name and moved into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    write(partial)
    partial.replace(path)


def training_parser(description: str, **defaults: float) -> argparse.ArgumentParser:
    """Options of every training; the defaults are those of the shipped weights.

    Args:
        description: of the program.
        defaults: of steps, batch_size, learning_rate and log_period.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--warmup", type=int, default=50, help="steps of rising learning rate")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--log-period", type=int, help="steps between lines of the log")
    parser.set_defaults(**defaults)
    return parser


def start(arguments: argparse.Namespace) -> None:
    """Prepare the process for a training on the CPU."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)  # tiny activations would slow every step tenfold


def build_optimizers(
    parameters: Iterable[tuple[str, nn.Parameter]],
    is_hidden: Callable[[str], bool],
    weight_decay: float,
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between hidden layers, AdamW for everything else.

    A few directions, such as colors, dominate the gradients. Muon makes all directions of an
    update equally large, so that the others are learned too, in far fewer steps. Biases, norms
    and scales have no weight decay.

    Args:
        parameters: with their names.
        is_hidden: whether a parameter of that name and two dimensions is such a matrix.
        weight_decay: of all parameters with two or more dimensions.
    """
    hidden, decayed, free = [], [], []
    for name, parameter in parameters:
        if parameter.ndim == 2 and is_hidden(name):
            hidden.append(parameter)
        else:
            (decayed if parameter.ndim >= 2 else free).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0},
    ]
    return [
        torch.optim.Muon(hidden, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True),
    ]


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up, then a half cosine to zero."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
