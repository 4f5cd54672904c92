"""The training loop: iterations, hooks, and single steps."""

import logging
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detectron2.utils import comm
from detectron2.utils.events import EventStorage, get_event_storage

__all__ = ["AMPTrainer", "HookBase", "SimpleTrainer", "TrainerBase"]


class HookBase:
    """Methods that a trainer, ``self.trainer``, calls around its steps."""

    trainer: "TrainerBase"

    def before_train(self) -> None:
        """Before the first step."""

    def after_train(self) -> None:
        """After the last step, also when an exception ends the training."""

    def before_step(self) -> None:
        """Before every step."""

    def after_backward(self) -> None:
        """Between the backward pass and the update of a step."""

    def after_step(self) -> None:
        """After every step."""

    def state_dict(self) -> dict[str, Any]:
        """The state for checkpoints; a hook with state also has ``load_state_dict``."""
        return {}


class TrainerBase:
    """A loop over iterations that calls hooks; subclasses define a step.

    Attributes:
        iter: the current iteration.
        start_iter: the first iteration.
        max_iter: one past the last iteration.
        storage: the EventStorage while training.
    """

    def __init__(self) -> None:
        self._hooks: list[HookBase] = []
        self.iter = 0
        self.start_iter = 0
        self.max_iter: int
        self.storage: EventStorage

    def register_hooks(self, hooks: Iterable[HookBase | None]) -> None:
        """Add hooks, which are called in order of registration; None is skipped."""
        for hook in hooks:
            if hook is None:
                continue
            # A proxy, so that trainer and hooks do not keep each other (and GPU memory) alive.
            hook.trainer = weakref.proxy(self)
            self._hooks.append(hook)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run the iterations ``start_iter`` .. ``max_iter - 1``."""
        logger = logging.getLogger(__name__)
        logger.info("Starting training from iteration %d", start_iter)
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                while self.iter < max_iter:
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    self.iter += 1
            except Exception:
                logger.exception("Exception during training:")
                raise
            finally:
                self.after_train()

    def before_train(self) -> None:
        for hook in self._hooks:
            hook.before_train()

    def after_train(self) -> None:
        # Results of the final evaluation belong to the iteration after the last one.
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.after_train()

    def before_step(self) -> None:
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.before_step()

    def after_backward(self) -> None:
        for hook in self._hooks:
            hook.after_backward()

    def after_step(self) -> None:
        for hook in self._hooks:
            hook.after_step()

    def run_step(self) -> None:
        """One iteration."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """The iteration, and the non-empty states of hooks by class name."""
        states = {type(hook).__qualname__: hook.state_dict() for hook in self._hooks}
        states = {name: state for name, state in states.items() if state}
        return {"iteration": self.iter, **({"hooks": states} if states else {})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned; states of unknown hooks are ignored."""
        self.iter = state_dict["iteration"]
        hooks = {type(hook).__qualname__: hook for hook in self._hooks}
        for name, state in state_dict.get("hooks", {}).items():
            hook = hooks.get(name)
            if hook is None or not hasattr(hook, "load_state_dict"):
                logging.getLogger(__name__).warning(
                    "the checkpoint's state of hook '%s' is ignored: no such hook in this trainer",
                    name,
                )
            else:
                hook.load_state_dict(state)


class SimpleTrainer(TrainerBase):
    """One step of gradient descent: data, losses, backward, update.

    Args:
        model: from a batch to a dictionary of scalar losses, or to one loss.
        data_loader: endless batches.
        optimizer: over the model's parameters.
        gather_metric_period: losses are averaged over the processes every this many steps.
        zero_grad_before_forward: clear gradients before the forward pass, not after it.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
    ) -> None:
        super().__init__()
        model.train()
        self.model = model
        self.data_loader = data_loader
        self.optimizer = optimizer
        self.gather_metric_period = gather_metric_period
        self.zero_grad_before_forward = zero_grad_before_forward
        self._iterator: Iterator[Any] | None = None

    @property
    def _data_loader_iter(self) -> Iterator[Any]:
        # Created at the first step, so that building a trainer starts no worker processes.
        if self._iterator is None:
            self._iterator = iter(self.data_loader)
        return self._iterator

    def run_step(self) -> None:
        """One step.

        Raises:
            FloatingPointError: the loss is infinite or NaN; the parameters are unchanged.
        """
        assert self.model.training, "[SimpleTrainer] model was changed to eval mode!"
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        if self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        losses, loss_dict = self._forward(data)
        if not self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        self._backward(losses)
        self.after_backward()
        self._write_metrics(loss_dict, data_time)
        self._update()

    def _forward(self, data: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss_dict = self.model(data)
        if isinstance(loss_dict, Tensor):
            return loss_dict, {"total_loss": loss_dict}
        return torch.stack([loss.reshape(()) for loss in loss_dict.values()]).sum(), loss_dict

    def _backward(self, losses: Tensor) -> None:
        losses.backward()

    def _update(self) -> None:
        self.optimizer.step()

    def _write_metrics(self, loss_dict: Mapping[str, Tensor], data_time: float) -> None:
        if (self.iter + 1) % self.gather_metric_period == 0:
            self.write_metrics(loss_dict, data_time, self.iter)

    @staticmethod
    def write_metrics(loss_dict: Mapping[str, Tensor], data_time: float, cur_iter: int) -> None:
        """Record the losses, averaged over the processes, and the loading times.

        Raises:
            FloatingPointError: the sum of the losses is infinite or NaN.
        """
        metrics = {name: loss.detach().cpu().item() for name, loss in loss_dict.items()}
        gathered = comm.gather({**metrics, "data_time": data_time})
        storage = get_event_storage()
        # The local value shows which rank waits for data.
        storage.put_scalar("rank_data_time", data_time, cur_iter=cur_iter)
        averages = metrics
        if comm.is_main_process():
            # All ranks wait for the slowest one.
            slowest = max(of_rank["data_time"] for of_rank in gathered)
            storage.put_scalar("data_time", slowest, cur_iter=cur_iter)
            averages = {
                name: float(np.mean([of_rank[name] for of_rank in gathered])) for name in metrics
            }
        total = sum(averages.values())
        if not np.isfinite(total):
            raise FloatingPointError(
                f"Loss became infinite or NaN at iteration={cur_iter}!\nloss_dict = {averages}"
            )
        if comm.is_main_process():
            storage.put_scalar("total_loss", total, cur_iter=cur_iter)
            if len(averages) > 1:
                for name, average in averages.items():
                    storage.put_scalar(name, average, cur_iter=cur_iter)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])


class AMPTrainer(SimpleTrainer):
    """A :class:`SimpleTrainer` with automatic mixed precision on CUDA.

    Args:
        grad_scaler: scales the loss, so that half-precision gradients do not underflow.
        precision: the autocast type.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
        grad_scaler: torch.amp.GradScaler | None = None,
        precision: torch.dtype = torch.float16,
    ) -> None:
        super().__init__(
            model, data_loader, optimizer, gather_metric_period, zero_grad_before_forward
        )
        self.grad_scaler = torch.amp.GradScaler("cuda") if grad_scaler is None else grad_scaler
        self.precision = precision

    def run_step(self) -> None:
        assert torch.cuda.is_available(), "[AMPTrainer] CUDA is required for AMP training!"
        super().run_step()

    def _forward(self, data: Any) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast("cuda", dtype=self.precision):
            return super()._forward(data)

    def _backward(self, losses: Tensor) -> None:
        self.grad_scaler.scale(losses).backward()

    def _update(self) -> None:
        # Unscales the gradients, and skips the step if one is not finite.
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
