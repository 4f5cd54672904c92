"""The standard trainer; its parts are class methods, which subclasses replace one by one."""

import logging
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.engine import hooks
from detectron2.engine.setup import (
    create_ddp_model,
    default_argument_parser,
    default_setup,
    default_writers,
)
from detectron2.engine.train_loop import AMPTrainer, HookBase, SimpleTrainer, TrainerBase
from detectron2.evaluation import (
    DatasetEvaluator,
    inference_on_dataset,
    print_csv_format,
    verify_results,
)
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from detectron2.utils.logger import setup_logger

__all__ = [
    "DefaultTrainer",
    "create_ddp_model",
    "default_argument_parser",
    "default_setup",
    "default_writers",
]


class DefaultTrainer(TrainerBase):
    """Builds model, optimizer, data, schedule, checkpoints, evaluation and writers from a config.

    Attributes:
        cfg: the config, scaled to the number of processes.
        scheduler: the learning-rate schedule.
        checkpointer: saves the model and this trainer.
    """

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        cfg = type(self).auto_scale_workers(cfg, comm.get_world_size())
        self.cfg = cfg
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        model = create_ddp_model(model, broadcast_buffers=False)
        step_trainer = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        self._trainer: SimpleTrainer = step_trainer(model, data_loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        # A proxy, so that the checkpointer does not keep this trainer alive.
        self.checkpointer = DetectionCheckpointer(
            model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self._last_eval_results: dict[str, Any] | None = None
        self.register_hooks(self.build_hooks())

    @property
    def model(self) -> nn.Module:
        """The model, in its DDP wrapper if there are several processes."""
        return self._trainer.model

    @property
    def data_loader(self) -> Iterable[Any]:
        return self._trainer.data_loader

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self._trainer.optimizer

    def resume_or_load(self, resume: bool = True) -> None:
        """With ``resume``, continue from the output directory's last checkpoint if there is one.

        Otherwise only the model is loaded, from MODEL.WEIGHTS.
        """
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if resume and self.checkpointer.has_checkpoint():
            # The checkpoint was written after this iteration.
            self.start_iter = self.iter + 1

    def build_hooks(self) -> list[HookBase]:
        """The hooks, in order: timer, schedule, checkpoints, evaluation, writers."""
        cfg = self.cfg
        if cfg.TEST.PRECISE_BN.ENABLED:
            raise ValueError(
                "TEST.PRECISE_BN is not available in this engine; set ENABLED to False"
            )

        def test_and_save_results() -> dict[str, Any]:
            self._last_eval_results = self.test(self.cfg, self.model)
            return self._last_eval_results

        # Checkpoints precede evaluation, so that nothing is lost if it fails. Writers come last, so
        # that they include its results.
        chosen: list[HookBase] = [hooks.IterationTimer(), hooks.LRScheduler()]
        if comm.is_main_process():
            chosen.append(
                hooks.PeriodicCheckpointer(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD)
            )
        chosen.append(hooks.EvalHook(cfg.TEST.EVAL_PERIOD, test_and_save_results))
        if comm.is_main_process():
            chosen.append(hooks.PeriodicWriter(self.build_writers(), period=20))
        return chosen

    def build_writers(self) -> list[EventWriter]:
        """The writers that report scalars."""
        return default_writers(self.cfg.OUTPUT_DIR, self.max_iter)

    def train(self) -> dict[str, Any] | None:  # type: ignore[override]
        """Run the training.

        Returns:
            On the main process, if TEST.EXPECTED_RESULTS is set: the verified results of the last
            evaluation; else None.
        """
        super().train(self.start_iter, self.max_iter)
        if not self.cfg.TEST.EXPECTED_RESULTS or not comm.is_main_process():
            return None
        assert self._last_eval_results is not None, (
            "No evaluation results obtained during training!"
        )
        verify_results(self.cfg, self._last_eval_results)
        return self._last_eval_results

    def run_step(self) -> None:
        self._trainer.iter = self.iter
        self._trainer.run_step()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        model = build_model(cfg)
        logging.getLogger(__name__).info("Model:\n%s", model)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable[Any]:
        return build_detection_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[Any]:
        return build_detection_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """Subclasses that evaluate override this."""
        raise NotImplementedError(
            "a trainer that evaluates must implement build_evaluator, or get evaluators in test()"
        )

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: DatasetEvaluator | Sequence[DatasetEvaluator] | None = None,
    ) -> dict[str, Any]:
        """Evaluate on every dataset of DATASETS.TEST.

        Args:
            evaluators: one per dataset; default: those of :meth:`build_evaluator`.

        Returns:
            {dataset: {task: {metric: value}}}, without the outer level for a single dataset; empty
            except on the main process.
        """
        logger = logging.getLogger(__name__)
        names = cfg.DATASETS.TEST
        if isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        if evaluators is not None:
            assert len(names) == len(evaluators), (
                f"{len(names)} datasets in DATASETS.TEST, but {len(evaluators)} evaluators"
            )
        results: dict[str, Any] = OrderedDict()
        for index, name in enumerate(names):
            data_loader = cls.build_test_loader(cfg, name)
            if evaluators is not None:
                evaluator = evaluators[index]
            else:
                try:
                    evaluator = cls.build_evaluator(cfg, name)
                except NotImplementedError:
                    logger.warning(
                        "No evaluator found. Use `DefaultTrainer.test(evaluators=)`, or implement "
                        "its `build_evaluator` method."
                    )
                    results[name] = {}
                    continue
            results[name] = inference_on_dataset(model, data_loader, evaluator)
            if comm.is_main_process():
                logger.info("Evaluation results for %s in csv format:", name)
                print_csv_format(results[name])
        return next(iter(results.values())) if len(results) == 1 else results

    @staticmethod
    def auto_scale_workers(cfg: CfgNode, num_workers: int) -> CfgNode:
        """Scale a config for SOLVER.REFERENCE_WORLD_SIZE processes to another number of them.

        Batch size and learning rate grow, and lengths and periods shrink, in proportion. Nothing
        changes if the numbers are equal, or the reference is 0 (the default).

        Returns:
            The same object, or a scaled copy, frozen if the original is.
        """
        reference = cfg.SOLVER.REFERENCE_WORLD_SIZE
        if reference in (0, num_workers):
            return cfg
        was_frozen = cfg.is_frozen()
        cfg = cfg.clone()
        cfg.defrost()
        solver, test = cfg.SOLVER, cfg.TEST
        assert solver.IMS_PER_BATCH % reference == 0, (
            f"SOLVER.IMS_PER_BATCH ({solver.IMS_PER_BATCH}) is not a multiple of "
            f"SOLVER.REFERENCE_WORLD_SIZE ({reference})"
        )
        scale = num_workers / reference
        solver.IMS_PER_BATCH = round(solver.IMS_PER_BATCH * scale)
        solver.BASE_LR = solver.BASE_LR * scale
        solver.MAX_ITER = round(solver.MAX_ITER / scale)
        solver.WARMUP_ITERS = round(solver.WARMUP_ITERS / scale)
        solver.STEPS = tuple(round(step / scale) for step in solver.STEPS)
        solver.CHECKPOINT_PERIOD = round(solver.CHECKPOINT_PERIOD / scale)
        test.EVAL_PERIOD = round(test.EVAL_PERIOD / scale)
        solver.REFERENCE_WORLD_SIZE = num_workers
        logging.getLogger(__name__).info(
            "Auto-scaling the config from %d to %d processes: batch size %d, learning rate %g, "
            "max_iter %d, warmup %d",
            reference,
            num_workers,
            solver.IMS_PER_BATCH,
            solver.BASE_LR,
            solver.MAX_ITER,
            solver.WARMUP_ITERS,
        )
        if was_frozen:
            cfg.freeze()
        return cfg
