"""The trainer: a detectron2 DefaultTrainer that also trains on CPUs and resumes exactly."""

import logging
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, TrainerBase, hooks
from detectron2.evaluation import DatasetEvaluator, verify_results
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling import build_model as build_detectron2_model
from detectron2.solver import LRMultiplier
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler

import maskclippp.meta_arch  # noqa: F401  (registers the model)
from maskclippp.data.loader import build_train_loader
from maskclippp.data.mappers import EvaluationMapper
from maskclippp.data.test_loader import build_test_loader
from maskclippp.engine.checkpoint import Checkpointer, unwrapped
from maskclippp.engine.evaluate import AUGMENTED_SUFFIX, evaluate, inference_folder
from maskclippp.engine.interruption import Interrupted, interruptible
from maskclippp.engine.lr_schedule import build_lr_scheduler
from maskclippp.engine.optimizer import build_optimizer
from maskclippp.engine.progress import Progress
from maskclippp.engine.run_folder import forget_later_metrics, weights_of_file
from maskclippp.engine.sample_pictures import Picture, TensorBoardPictures, draw_predictions
from maskclippp.engine.summary import ExpectedTime
from maskclippp.engine.train_step import TrainStep
from maskclippp.engine.wandb_writer import WandbWriter
from maskclippp.errors import InputError, check_choice
from maskclippp.generators import check_generator
from maskclippp.registry import get_part
from maskclippp.seeding import seed_training_step
from maskclippp.view_averaging import SemanticTestTimeAugmentation, augmentation_config
from maskclippp.words.requested import RequestedWords

logger = logging.getLogger(__name__)

AUTOCAST_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class Trainer(DefaultTrainer):
    """Trains, evaluates and checkpoints what a config describes.

    A run of 2N iterations equals, bit for bit on a CPU, one of N iterations, a kill and
    ``--resume``: the randomness of every step and sample is seeded by its position, and the loader
    skips the batches that are done.
    """

    # True for models in which some batches leave parameters unused; it costs time.
    find_unused_parameters = False

    def __init__(self, cfg: CfgNode) -> None:
        # DefaultTrainer's constructor starts the loader before the iteration to resume from is
        # known, and wraps the model such that only CUDA models can be trained.
        TrainerBase.__init__(self)
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        self.cfg = _with_seed(cfg, seed)
        autocast_dtype = _autocast_dtype(cfg)
        model = self.build_model(self.cfg)
        optimizer = self.build_optimizer(self.cfg, model)
        self.train_step = TrainStep(
            self._distributed(model),
            optimizer,
            seed=seed,
            accumulation_steps=cfg.SOLVER.ACCUMULATION_STEPS,
            autocast_dtype=autocast_dtype,
        )
        self.scheduler = self.build_lr_scheduler(self.cfg, optimizer)
        self.checkpointer: Checkpointer = Checkpointer(
            model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        self.checkpointer.allow_incomplete = cfg.MODEL.ALLOW_INCOMPLETE_WEIGHTS
        self._pictures: list[Picture] = []  # to be logged
        self._expected_time = ExpectedTime()
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.register_hooks(self.build_hooks())

    @property
    def model(self) -> nn.Module:
        """The trained model, in its data-parallel wrapper if there is one."""
        return self.train_step.model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer."""
        return self.train_step.optimizer

    @property
    def data_loader(self) -> Any:
        """The training loader; empty before training starts."""
        return self.train_step.data_loader

    def resume_or_load(self, resume: bool | str = True) -> None:
        """Continue the run in OUTPUT_DIR if possible (``resume``), else load MODEL.WEIGHTS.

        With ``resume="auto"``, it is expected that there may be nothing to continue.
        """
        if resume == "auto":
            resume = self.checkpointer.has_checkpoint()
        extra = self.checkpointer.resume_or_load(
            self.cfg.MODEL.WEIGHTS, resume=bool(resume), starts_run=True
        )
        if resume and self.checkpointer.has_checkpoint():
            self.start_iter = extra["iteration"] + 1
            if self.start_iter >= self.max_iter:
                self.checkpointer.write_final()
                logger.warning(
                    "Nothing is left to train: the checkpoint has done %d iterations, and "
                    "SOLVER.MAX_ITER is %d; increase it to train longer",
                    self.start_iter,
                    self.max_iter,
                )

    def train(self) -> dict[str, Any] | None:  # type: ignore[override]
        """Train from ``start_iter`` to MAX_ITER; the results of the last evaluation, if any."""
        self.train_step.data_loader = self.build_train_loader(
            self.cfg, start_batch=self.start_iter * self.train_step.accumulation_steps
        )
        logger.info("Starting training from iteration %d", self.start_iter)
        if comm.is_main_process():
            forget_later_metrics(Path(self.cfg.OUTPUT_DIR), self.start_iter, self.max_iter)
        self.iter = self.start_iter
        with EventStorage(self.start_iter) as self.storage, interruptible(at_once=False):
            try:
                self.before_train()
                for iteration in range(self.start_iter, self.max_iter):
                    self.iter = iteration
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    if self.train_step.interrupted:
                        raise Interrupted
                # Evaluation results after the last iteration are logged under MAX_ITER.
                self.iter = self.max_iter
            except Interrupted:
                self._save_interrupted()
                raise
            finally:
                self.train_step.stop_loading()
                self.after_train()
        results: dict[str, Any] | None = getattr(self, "_last_eval_results", None)
        if self.cfg.TEST.EXPECTED_RESULTS and results and comm.is_main_process():
            verify_results(self.cfg, results)
        return results

    def _save_interrupted(self) -> None:
        """Save after the current step, or the evaluation that follows it, was interrupted."""
        self.checkpointer.save(f"model_{self.iter:07d}", iteration=self.iter)
        logger.warning(
            "Interrupted after iteration %d: the same command with --resume continues", self.iter
        )
        if self.train_step.interrupted:  # else this rank may be the only one to be interrupted
            comm.synchronize()  # the others must not end the run before the file is written

    def run_step(self) -> None:
        """One optimizer step."""
        with self._expected_time.step(self.max_iter - self.iter - 1):
            self.train_step.run(self.iter)

    def state_dict(self) -> dict[str, Any]:
        """Everything except the model that a resumed run needs."""
        state = TrainerBase.state_dict(self)
        state["_trainer"] = self.train_step.state_dict()
        state["seed"] = self.train_step.seed
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned.

        The run keeps the seed it started with. Learning rate, weight decay and the like are those
        of the config, which may have changed since.
        """
        groups = [{**group, "params": None} for group in self.optimizer.param_groups]
        base_lrs = list(self.scheduler.base_lrs)
        TrainerBase.load_state_dict(self, state_dict)
        self.train_step.load_state_dict(state_dict["_trainer"])
        if isinstance(self.scheduler, LRMultiplier):
            self.scheduler.base_lrs = base_lrs
            for group, configured, rate in zip(
                self.optimizer.param_groups, groups, self.scheduler.get_lr(), strict=True
            ):
                group |= {**configured, "params": group["params"], "lr": rate}
        seed = state_dict.get("seed", self.train_step.seed)
        if seed != self.train_step.seed:
            logger.info("The run continues with its own seed %d", seed)
        self.train_step.seed = seed
        self.cfg = _with_seed(self.cfg, seed)

    def build_hooks(self) -> list[HookBase]:
        """Those of DefaultTrainer; with TEST.AUG.ENABLED a second evaluation after training."""
        built: list[HookBase] = [
            hooks.EvalHook(self.cfg.TEST.EVAL_PERIOD, self._test)
            if isinstance(hook, hooks.EvalHook)
            else hook
            for hook in super().build_hooks()
        ]
        if self.cfg.TEST.AUG.ENABLED:
            evaluation = hooks.EvalHook(0, self._test_with_augmentation)
            # The main process reports last, so that the reports include the evaluations.
            built.insert(len(built) - comm.is_main_process(), evaluation)
        return built

    def _test(self) -> dict[str, Any]:
        self._last_eval_results = self.test(self.cfg, self.model, weights=self._weights())
        if self.cfg.TEST.LOGGED_PICTURES > 0 and self.cfg.DATASETS.TEST and comm.is_main_process():
            self._draw_predictions(self.cfg.DATASETS.TEST[-1])
        return self._last_eval_results

    def _draw_predictions(self, dataset_name: str) -> None:
        """Draw test images of the dataset that was evaluated last, whose words are still set."""
        model = unwrapped(self.model)
        words: RequestedWords | None = getattr(model, "requested_words", None)
        if words is None:
            return
        records = self.build_test_loader(self.cfg, dataset_name).dataset
        first = min(self.cfg.TEST.LOGGED_PICTURES, len(records))
        names = [", ".join(synonyms) for synonyms in words.vocabulary.classes]
        self._pictures += [
            Picture(self.iter, f"{dataset_name}/picture_{number}", image)
            for number, image in enumerate(
                draw_predictions(model, (records[index] for index in range(first)), names)
            )
        ]

    def _weights(self) -> dict[str, Any]:
        """What result files say about the weights of this moment."""
        if not comm.is_main_process():
            return {}
        name = "final" if self.iter == self.max_iter else f"{self.iter:07d}"
        file = Path(self.cfg.OUTPUT_DIR) / f"model_{name}.pth"
        if file.is_file():
            return weights_of_file(file)
        return {"checkpoint": None, "iteration": self.iter}

    def _test_with_augmentation(self) -> dict[str, Any]:
        results = self.test_with_augmentation(self.cfg, self.model, weights=self._weights())
        self._last_eval_results = {**(self._last_eval_results or {}), **results}
        return results

    def build_writers(self) -> list[EventWriter]:
        """Terminal, metrics.json, and TensorBoard or W&B."""
        writers: list[EventWriter] = super().build_writers()
        if self.cfg.WANDB.ENABLED:
            writers[-1] = WandbWriter.from_config(self.cfg, self._pictures)
        elif self.cfg.TEST.LOGGED_PICTURES > 0:
            writers.append(TensorBoardPictures(self.cfg.OUTPUT_DIR, self._pictures))
        return writers

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """The model MODEL.META_ARCHITECTURE on MODEL.DEVICE, initialized with SEED."""
        get_part(META_ARCH_REGISTRY, cfg.MODEL.META_ARCHITECTURE, "MODEL.META_ARCHITECTURE")
        if cfg.SEED >= 0:
            seed_training_step(cfg.SEED, 0, rank=0)
        model: nn.Module = build_detectron2_model(cfg)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """See :func:`maskclippp.engine.optimizer.build_optimizer`."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRScheduler:
        """See :func:`maskclippp.engine.lr_schedule.build_lr_scheduler`."""
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode, start_batch: int = 0) -> Any:
        """See :func:`maskclippp.data.loader.build_train_loader`."""
        return build_train_loader(cfg, start_batch=start_batch)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """See :func:`maskclippp.data.test_loader.build_test_loader`."""
        generator = check_generator(cfg)
        mapper = EvaluationMapper(cfg, dataset_name, with_ground_truth=generator.needs_ground_truth)
        return build_test_loader(cfg, dataset_name, mapper)

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_folder: str | Path | None = None
    ) -> DatasetEvaluator:
        """The evaluators for the dataset; their files go to inference/<dataset> by default."""
        from maskclippp.evaluation import build_evaluator

        folder = output_folder or inference_folder(cfg, dataset_name)
        return build_evaluator(cfg, dataset_name, str(folder))

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: DatasetEvaluator | Sequence[DatasetEvaluator] | None = None,
        weights: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Evaluate on DATASETS.TEST.

        Args:
            evaluators: one per dataset; default: those of :meth:`build_evaluator`.
            weights: what the result files say about the origin of the weights.
            progress: keeps finished images, for a later command.

        Returns:
            Metrics per task on the main process (else {}): of the only dataset, or per dataset.
        """
        if isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        names = list(cfg.DATASETS.TEST)
        if evaluators is not None and len(evaluators) != len(names):
            raise InputError(f"{len(evaluators)} evaluators for the {len(names)} datasets {names}")
        results = {
            name: evaluate(
                unwrapped(model),
                name,
                cls.build_test_loader(cfg, name),
                evaluators[index] if evaluators else cls.build_evaluator(cfg, name),
                inference_folder(cfg, name),
                weights,
                progress,
            )
            for index, name in enumerate(names)
        }
        return results[names[0]] if len(names) == 1 else results

    @classmethod
    def test_with_augmentation(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        weights: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Evaluate semantic segmentation on DATASETS.TEST with the augmentations of TEST.AUG.

        Returns:
            As :meth:`test`, with ``_TTA`` appended to the name of the task, or of the dataset if
            there are several; files go to inference_TTA/<dataset>.
        """
        cfg = augmentation_config(cfg)
        augmented = SemanticTestTimeAugmentation.from_config(cfg, unwrapped(model))
        results = {}
        for name in cfg.DATASETS.TEST:
            folder = inference_folder(cfg, name, AUGMENTED_SUFFIX)
            evaluator = cls.build_evaluator(cfg, name, folder)
            loader = cls.build_test_loader(cfg, name)
            results[name] = evaluate(augmented, name, loader, evaluator, folder, weights, progress)
        if len(results) == 1:
            (results,) = results.values()
        return {name + AUGMENTED_SUFFIX: value for name, value in results.items()}

    def _distributed(self, model: nn.Module) -> nn.Module:
        """The model, in DistributedDataParallel if there are several processes."""
        if comm.get_world_size() == 1:
            return model
        device = next(model.parameters()).device
        return DistributedDataParallel(
            model,
            device_ids=[device] if device.type == "cuda" else None,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            find_unused_parameters=self.find_unused_parameters,
        )


def _with_seed(cfg: CfgNode, seed: int) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SEED = seed
    cfg.freeze()
    return cfg


def _autocast_dtype(cfg: CfgNode) -> torch.dtype | None:
    """The type that SOLVER.AMP sets; an InputError if the device cannot train with it."""
    if not cfg.SOLVER.AMP.ENABLED:
        return None
    name = cfg.SOLVER.AMP.DTYPE
    check_choice("SOLVER.AMP.DTYPE:", name, AUTOCAST_DTYPES)
    if name == "float16" and not cfg.MODEL.DEVICE.startswith("cuda"):
        raise InputError(
            f"SOLVER.AMP.DTYPE float16 needs CUDA, but MODEL.DEVICE is {cfg.MODEL.DEVICE}: "
            "set SOLVER.AMP.DTYPE bfloat16 or SOLVER.AMP.ENABLED False"
        )
    return AUTOCAST_DTYPES[name]
