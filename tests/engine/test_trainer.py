"""A run leaves the published files and numbers behind, and stops where it must."""

import argparse
import json
import logging
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import default_setup
from torch import nn

from maskclippp.engine.evaluate import evaluate
from maskclippp.engine.trainer import Trainer
from maskclippp.meta_arch import MaskCLIPpp
from tests.engine.toy import FixedEvaluator, ToyTrainer, run_toy_training, toy_config, toy_mapper
from tests.golden_cases import cases
from tests.tiny_models import TEST_SET, labeled_record, tiny_config

TOY_RUN = cases("engine_toy_run")[0].info
ARGUMENTS = argparse.Namespace(config_file="", eval_only=False, opts=[])
GOLDEN_OPTIONS = (
    *("SOLVER.MAX_ITER", 45, "SOLVER.CHECKPOINT_PERIOD", 20, "TEST.EVAL_PERIOD", 20),
    *("DATASETS.TEST", ("toy_val",)),
)


@pytest.fixture(scope="module")
def golden_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a run like the golden one."""
    folder = tmp_path_factory.mktemp("run")
    cfg = toy_config(folder, *GOLDEN_OPTIONS)
    before = {name: logging.getLogger(name).handlers[:] for name in ("detectron2", "fvcore")}
    default_setup(cfg, ARGUMENTS)
    own_logger = logging.getLogger("maskclippp")
    own_handlers, own_level = own_logger.handlers[:], own_logger.level
    own_logger.handlers = logging.getLogger("detectron2").handlers[:]
    own_logger.setLevel(logging.DEBUG)
    run_toy_training(cfg)
    yield folder
    for name, handlers in before.items():
        logging.getLogger(name).handlers = handlers
    own_logger.handlers = own_handlers
    own_logger.setLevel(own_level)


def metric_lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def test_hooks_and_writers_come_in_golden_order(tmp_path: Path) -> None:
    trainer = ToyTrainer(toy_config(tmp_path))
    assert [type(hook).__name__ for hook in trainer._hooks] == TOY_RUN["hooks_in_order"]
    writers = [type(writer).__name__ for writer in trainer.build_writers()]
    assert writers == TOY_RUN["writers_in_order"]


@pytest.mark.parametrize("pattern", TOY_RUN["files"])
def test_run_directory_is_complete(golden_run: Path, pattern: str) -> None:
    assert len(list(golden_run.glob(pattern))) == 1


def test_run_directory_has_no_leftovers(golden_run: Path) -> None:
    extra = {path.name for path in golden_run.iterdir()} - {
        path.name for pattern in TOY_RUN["files"] for path in golden_run.glob(pattern)
    }
    assert extra == {"inference", "run_id"}


def test_checkpoint_layout_equals_golden(golden_run: Path) -> None:
    assert (golden_run / "last_checkpoint").read_text() == TOY_RUN["last_checkpoint_content"]
    for name, (iteration, trainer_iteration) in TOY_RUN["checkpoint_iteration_values"].items():
        content = torch.load(golden_run / name, weights_only=True)
        assert set(content) == set(TOY_RUN["checkpoint_keys"])
        assert content["iteration"] == iteration
        trainer = content["trainer"]
        assert trainer["iteration"] == trainer_iteration
        assert set(trainer) == {*TOY_RUN["checkpoint_trainer_keys"], "seed"}
        hooks = {key: sorted(state) for key, state in trainer["hooks"].items()}
        assert hooks == TOY_RUN["checkpoint_trainer_hooks"]
        assert sorted(trainer["_trainer"]) == TOY_RUN["checkpoint_trainer__trainer_keys"]


def test_metrics_file_equals_golden(golden_run: Path) -> None:
    lines = metric_lines(golden_run)
    assert [line["iteration"] for line in lines] == TOY_RUN["metrics_json_iterations"]
    assert [sorted(line) for line in lines] == TOY_RUN["metrics_json_keys_per_line"]
    for line, golden in zip(lines, TOY_RUN["metrics_json_eval_values"], strict=True):
        assert {key: line[key] for key in golden} == golden


def test_log_mentions_what_golden_log_mentions(golden_run: Path) -> None:
    log = (golden_run / "log.txt").read_text()
    assert {text: log.count(text) for text in TOY_RUN["log_mentions"]} == TOY_RUN["log_mentions"]
    for text in TOY_RUN["copypaste_lines"]:
        assert text in log


def test_evaluation_results_are_written_as_json(golden_run: Path) -> None:
    content = json.loads((golden_run / "inference" / "toy_val" / "results.json").read_text())
    weights = content.pop("weights")
    assert weights["checkpoint"] == str(golden_run / "model_final.pth")
    assert weights["sha256"] == sha256((golden_run / "model_final.pth").read_bytes()).hexdigest()
    assert content == {
        "dataset": "toy_val",
        "results": {"sem_seg": {"mIoU": 12.5, "IoU-a": 25.0}, "panoptic_seg": {"PQ": 40.0}},
    }


def test_finished_run_resumes_into_a_longer_one(golden_run: Path) -> None:
    trainer = ToyTrainer(toy_config(golden_run, *GOLDEN_OPTIONS, "SOLVER.MAX_ITER", 50))
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == TOY_RUN["resume_start_iter"]
    assert trainer.scheduler.last_epoch == TOY_RUN["resume_scheduler_last_epoch"]


class NanOnOneImage(ToyTrainer):
    @classmethod
    def build_train_loader(cls, cfg: CfgNode, start_batch: int = 0) -> object:
        loader = super().build_train_loader(cfg, start_batch)
        for number, batch in enumerate(loader):
            if number == 2:
                batch[1]["image"][0, 0, 0] = float("nan")
                cls.offending = [record["file_name"] for record in batch]
            yield batch


def test_non_finite_loss_stops_the_run_and_names_iteration_and_images(tmp_path: Path) -> None:
    trainer = NanOnOneImage(toy_config(tmp_path))
    with pytest.raises(FloatingPointError, match="iteration 2") as caught:
        trainer.train()
    images = str(caught.value).partition("Images of the batch: ")[2].partition(". Look at")[0]
    assert images == "rank 0: " + ", ".join(NanOnOneImage.offending)
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())


def test_weights_that_are_not_finite_are_named_instead_of_images(tmp_path: Path) -> None:
    trainer = ToyTrainer(toy_config(tmp_path))
    torch.nn.init.constant_(trainer.model.head.bias, float("nan"))
    with pytest.raises(
        FloatingPointError, match=r"example head\.bias\. The images are not"
    ) as caught:
        trainer.train()
    assert "image_" not in str(caught.value)


def test_only_the_offending_accumulated_batch_is_named(tmp_path: Path) -> None:
    trainer = NanOnOneImage(toy_config(tmp_path, "SOLVER.ACCUMULATION_STEPS", 2))
    with pytest.raises(FloatingPointError, match="iteration 1") as caught:
        trainer.train()
    images = str(caught.value).partition("Images of the batch: ")[2].partition(". Look at")[0]
    assert images == "rank 0: " + ", ".join(NanOnOneImage.offending)


def weights_after(folder: Path, *options: object) -> dict[str, torch.Tensor]:
    settings = ("SOLVER.MAX_ITER", 3, "DATALOADER.ASPECT_RATIO_GROUPING", False)
    cfg = toy_config(folder, *settings, *options, deterministic_model=True)
    return run_toy_training(cfg).model.state_dict()


def test_accumulated_batches_equal_one_big_batch(tmp_path: Path) -> None:
    """With SGD: a step of AdamW hardly depends on the scale of the gradients."""
    sgd = ("SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", 0.1)
    big = weights_after(tmp_path / "big", *sgd, "SOLVER.IMS_PER_BATCH", 4)
    accumulated = weights_after(
        tmp_path / "small", *sgd, "SOLVER.IMS_PER_BATCH", 2, "SOLVER.ACCUMULATION_STEPS", 2
    )
    for name, weight in big.items():
        torch.testing.assert_close(accumulated[name], weight, rtol=1e-5, atol=1e-6)


def test_bfloat16_autocast_trains_on_a_cpu_close_to_float32(tmp_path: Path) -> None:
    exact = weights_after(tmp_path / "float32")
    autocast = weights_after(
        tmp_path / "bfloat16", "SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "bfloat16"
    )
    difference = max((autocast[name] - exact[name]).abs().max().item() for name in exact)
    assert 0 < difference < 0.02
    assert all(weight.dtype == torch.float32 for weight in autocast.values())


def test_float16_on_a_cpu_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"float16 needs CUDA.*bfloat16"):
        ToyTrainer(toy_config(tmp_path, "SOLVER.AMP.ENABLED", True))


def test_unknown_autocast_type_is_refused(tmp_path: Path) -> None:
    options = ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "int8")
    with pytest.raises(ValueError, match=r"SOLVER.AMP.DTYPE: 'int8'"):
        ToyTrainer(toy_config(tmp_path, *options))


def test_unknown_architecture_is_refused_and_valid_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"MODEL.META_ARCHITECTURE: 'Toi'.*'ToyModel'"):
        ToyTrainer(toy_config(tmp_path, "MODEL.META_ARCHITECTURE", "Toi"))


def test_negative_seed_means_another_order_in_every_run(tmp_path: Path) -> None:
    first = ToyTrainer(toy_config(tmp_path, "SEED", -1))
    second = ToyTrainer(toy_config(tmp_path, "SEED", -1))
    assert first.cfg.SEED >= 0
    assert first.cfg.SEED != second.cfg.SEED


class VocabularyModel(nn.Module):
    """Notes which dataset it is told to name the classes of."""

    def __init__(self) -> None:
        super().__init__()
        self.datasets: list[str] = []

    def set_test_dataset(self, name: str) -> None:
        self.datasets.append(name)

    def forward(self, batch: list[dict]) -> list[dict]:
        self.datasets.append(f"image of {self.datasets[-1].removeprefix('image of ')}")
        return [{} for _ in batch]


def test_each_test_dataset_brings_its_own_vocabulary(tmp_path: Path) -> None:
    toy_config(tmp_path)
    model = VocabularyModel()
    cfg = toy_config(tmp_path, "DATASETS.TEST", ("toy_train", "toy_val"))
    results = ToyTrainer.test(cfg, model, [FixedEvaluator(), FixedEvaluator()])
    assert list(results) == ["toy_train", "toy_val"]
    images = ["image of toy_train"] * 12 + ["image of toy_val"] * 12
    assert model.datasets == ["toy_train", *images[:12], "toy_val", *images[12:]]


def test_number_of_evaluators_must_be_that_of_datasets(tmp_path: Path) -> None:
    cfg = toy_config(tmp_path, "DATASETS.TEST", ("toy_train", "toy_val"))
    with pytest.raises(ValueError, match="1 evaluators for the 2 datasets"):
        ToyTrainer.test(cfg, VocabularyModel(), [FixedEvaluator()])


def test_toy_samples_depend_on_the_generators() -> None:
    record = {"label": 0, "file_name": ""}
    assert not torch.equal(toy_mapper(record)["image"], toy_mapper(record)["image"])


@pytest.mark.parametrize(
    ("segmentor", "expected"), [("GTSegmentor", True), ("SuperpixelSegmentor", False)]
)
def test_ground_truth_is_read_for_the_segmentors_that_need_it(
    segmentor: str, expected: bool
) -> None:
    cfg = tiny_config(".SEGMENTOR.NAME", segmentor)
    cfg.DATALOADER.NUM_WORKERS = 0
    (record,) = next(iter(Trainer.build_test_loader(cfg, "shapes_val")))
    assert ("sem_seg" in record) == ("pan_seg" in record) == expected


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_evaluation_holds_weights_in_its_precision(tmp_path: Path, dtype: str) -> None:
    cfg = tiny_config(".TEST.DTYPE", dtype, ".TEXT_CACHE", False, ".SEGMENTOR.NAME", "GTSegmentor")
    model = MaskCLIPpp(cfg)
    layer = next(m for m in model.visual_encoder.modules() if isinstance(m, nn.Linear))
    seen = []
    model.visual_encoder.register_forward_hook(lambda *_: seen.append(layer.weight.dtype))
    loader = [[labeled_record((64, 64), 0, 1)]]
    evaluate(model, TEST_SET, loader, FixedEvaluator(), tmp_path)
    assert seen == [getattr(torch, dtype)]
    assert layer.weight.dtype == torch.float32


def test_the_second_evaluation_comes_before_the_last_report(tmp_path: Path) -> None:
    trainer = ToyTrainer(toy_config(tmp_path, "TEST.AUG.ENABLED", True))
    names = [type(hook).__name__ for hook in trainer._hooks]
    assert names[-3:] == ["EvalHook", "EvalHook", "PeriodicWriter"]
