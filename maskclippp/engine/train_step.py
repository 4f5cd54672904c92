"""One optimizer step: batches in, weights and metrics out."""

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from maskclippp.devices import copied_to
from maskclippp.engine.interruption import request_stop, stop_requested
from maskclippp.errors import InputError
from maskclippp.seeding import seed_training_step

Samples = list[dict[str, Any]]


class NonFiniteError(InputError, FloatingPointError):
    """A loss or the norm of the gradients is infinite or NaN."""


class TrainStep:
    """Forward, backward and optimizer step over one or several accumulated batches.

    Args:
        model: batch -> dictionary of scalar losses (or one scalar); its mean over all
            accumulated batches and, under DistributedDataParallel, over ranks is minimized.
        accumulation_steps: batches per optimizer step.
        autocast_dtype: torch.float16 (with gradient scaling), torch.bfloat16, or None
            for full precision.
        seed: determines, with the iteration number, all randomness of a step.

    Raises:
        InputError: accumulation_steps < 1.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        seed: int,
        accumulation_steps: int = 1,
        autocast_dtype: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.seed = seed
        self.iter = 0
        self.interrupted = False  # whether some rank was asked to stop; the same on all ranks
        self.device = next(model.parameters()).device
        if accumulation_steps < 1:
            raise InputError(f"SOLVER.ACCUMULATION_STEPS={accumulation_steps} must be at least 1")
        self.accumulation_steps = accumulation_steps
        self._autocast_dtype = autocast_dtype
        scaled = autocast_dtype == torch.float16
        self._scaler = torch.amp.GradScaler(self.device.type) if scaled else None
        self._data_loader: Iterable[Samples] = ()
        self._batches: Iterator[Samples] | None = None

    @property
    def data_loader(self) -> Iterable[Samples]:
        """The endless source of batches; assigning it starts from its first batch."""
        return self._data_loader

    @data_loader.setter
    def data_loader(self, data_loader: Iterable[Samples]) -> None:
        self._data_loader = data_loader
        self.stop_loading()

    def stop_loading(self) -> None:
        """Stop the loader's worker processes; the next step would restart them."""
        self._batches = None

    def run(self, iteration: int) -> None:
        """Do the step of this iteration and put its metrics into the event storage.

        Raises:
            NonFiniteError: a loss is not finite on some rank, or the norm of the gradients is not
                while SOLVER.CLIP_GRADIENTS clips the full model. The weights are unchanged. All
                ranks raise it, naming iteration and images.
        """
        self.iter = iteration
        if self._batches is None:
            self._batches = iter(self._data_loader)
        self.model.train()
        seed_training_step(self.seed, iteration, comm.get_rank())
        self.optimizer.zero_grad(set_to_none=True)
        batches, losses, data_time = [], [], 0.0
        for index in range(self.accumulation_steps):
            start = time.perf_counter()
            batch = next(self._batches)
            data_time += time.perf_counter() - start
            last = index + 1 == self.accumulation_steps
            losses.append(self._accumulate_gradients(batch, synchronize=last))
            batches.append(_file_names(batch))
        self._check_and_log_losses(losses, batches, data_time)
        try:
            self._update_weights()
        except FloatingPointError as error:
            names = [name for batch in batches for name in batch]
            raise self._non_finite_error(f"{error}; no single batch is the cause", names) from error

    def state_dict(self) -> dict[str, Any]:
        """Iteration, optimizer and, with float16, gradient scaler."""
        state = {"iteration": self.iter, "optimizer": self.optimizer.state_dict()}
        if self._scaler is not None:
            state["grad_scaler"] = self._scaler.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned.

        Raises:
            InputError: the optimizer state belongs to other parameters.
        """
        self.iter = state["iteration"]
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except ValueError as error:
            raise InputError(
                f"the checkpoint's optimizer state does not fit this configuration ({error}): "
                "resume with the configuration of the run, or start a new run without --resume"
            ) from error
        if self._scaler is not None and "grad_scaler" in state:
            self._scaler.load_state_dict(state["grad_scaler"])

    def _accumulate_gradients(self, batch: Samples, *, synchronize: bool) -> dict[str, Tensor]:
        with self._gradient_exchange(synchronize):
            with self._autocast():
                output = self.model(batch)
            losses = {"total_loss": output} if isinstance(output, Tensor) else output
            total = sum(losses.values(), start=torch.zeros((), device=self.device))
            share = total / self.accumulation_steps
            (share if self._scaler is None else self._scaler.scale(share)).backward()
        return {name: loss.detach() for name, loss in losses.items()}

    def _gradient_exchange(self, synchronize: bool) -> AbstractContextManager[None]:
        if not synchronize and isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return nullcontext()

    def _autocast(self) -> AbstractContextManager[None]:
        if self._autocast_dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, self._autocast_dtype)

    def _update_weights(self) -> None:
        if self._scaler is None:
            self.optimizer.step()
        else:
            # Clipping must see unscaled gradients, also in an optimizer that unscales by itself.
            self._scaler.unscale_(self.optimizer)
            self._scaler.step(self.optimizer)
            self._scaler.update()

    def _check_and_log_losses(
        self, losses: list[dict[str, Tensor]], file_names: list[list[str]], data_time: float
    ) -> None:
        """Stop on a non-finite loss; else log the mean of each loss over batches and ranks."""
        names = list(losses[0])
        # A single transfer from the device and a single exchange between ranks.
        table = torch.stack([torch.stack([step[n] for n in names]).float() for step in losses])
        extra = copied_to(torch.tensor([data_time, stop_requested()]), table.device)
        gathered = _gather(torch.cat([table.flatten(), extra])).cpu()
        tables = gathered[:, :-2].unflatten(1, table.shape)  # rank, batch, loss
        if gathered[:, -1].any():  # all ranks stop after the same step
            request_stop()
            self.interrupted = True
        if not tables.isfinite().all():
            offending = [
                name
                for own_losses, batch in zip(tables[comm.get_rank()], file_names, strict=True)
                if not own_losses.isfinite().all()
                for name in batch
            ]
            means = dict(zip(names, tables.mean(dim=(0, 1)).tolist(), strict=True))
            raise self._non_finite_error(f"the loss is not finite: {means}", offending)
        means = dict(zip(names, tables.double().mean(dim=(0, 1)).tolist(), strict=True))
        storage = get_event_storage()
        storage.put_scalar("data_time", gathered[:, -2].max().item())
        storage.put_scalar("rank_data_time", data_time)
        storage.put_scalar("total_loss", sum(means.values()))
        if len(means) > 1:
            storage.put_scalars(**means)

    def _non_finite_error(self, reason: str, file_names: list[str]) -> NonFiniteError:
        """The error that stops all ranks; a collective call."""
        per_rank = comm.all_gather(file_names)
        broken = [
            name
            for name, value in [*self.model.named_parameters(), *self.model.named_buffers()]
            if value.is_floating_point() and not value.isfinite().all()
        ]
        if broken:  # so it is with every image
            return NonFiniteError(
                f"training stopped in iteration {self.iter}: {len(broken)} tensors of the model "
                f"are not finite, for example {broken[0]}. The images are not the cause: check the "
                "pretrained weights or the checkpoint, or continue from an earlier one"
            )
        images = "; ".join(
            f"rank {rank}: {', '.join(names)}" for rank, names in enumerate(per_rank) if names
        )
        return NonFiniteError(
            f"training stopped in iteration {self.iter}: {reason}. Images of the batch: {images}. "
            "Look at these images and annotations, lower SOLVER.BASE_LR, or clip gradients "
            "(SOLVER.CLIP_GRADIENTS)"
        )


def _gather(values: Tensor) -> Tensor:
    """The vectors of all ranks as rows: [world size, n]."""
    if comm.get_world_size() == 1:
        return values[None]
    rows = [torch.empty_like(values) for _ in range(comm.get_world_size())]
    torch.distributed.all_gather(rows, values)
    return torch.stack(rows)


def _file_names(batch: Samples) -> list[str]:
    return [str(record.get("file_name", "(no file_name)")) for record in batch]
