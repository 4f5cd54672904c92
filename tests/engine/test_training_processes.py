"""Several gloo processes train what one process trains, and stop together."""

import shutil
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from maskclippp.engine.evaluate import evaluate
from maskclippp.files.weights import CheckpointError
from tests.engine import toy
from tests.engine.processes import run_in_processes, train_in_processes
from tests.engine.test_train_step import step_on_ones
from tests.tiny_models import TEST_SET, labeled_record, tiny_model


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "model_final.pth")["model"]


def test_two_processes_with_accumulated_batches_train_like_one(tmp_path: Path) -> None:
    """With SGD: a step of AdamW hardly depends on the scale of the gradients."""
    one, two = tmp_path / "one", tmp_path / "two"
    options = (
        *("DATALOADER.ASPECT_RATIO_GROUPING", False, "TEST.AUG.FLIP", True),
        *("SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", 0.1),
    )
    parts = ("SOLVER.IMS_PER_BATCH", 4, "SOLVER.ACCUMULATION_STEPS", 2)
    assert train_in_processes(one, *options, "SOLVER.IMS_PER_BATCH", 8) == [0]
    assert train_in_processes(two, *options, *parts, world_size=2) == [0, 0]
    weights = final_weights(two)
    for name, weight in final_weights(one).items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-4, atol=1e-5)


class NanOnRankOne(toy.ToyTrainer):
    """Rank 1 gets one bad image in its third batch."""

    @classmethod
    def build_train_loader(cls, cfg: Any, start_batch: int = 0) -> Any:
        for number, batch in enumerate(super().build_train_loader(cfg, start_batch)):
            if number == 2 and torch.distributed.get_rank() == 1:
                batch[0]["image"][:] = float("nan")
                batch[0]["file_name"] = "bad.png"
            yield batch


def _train_with_nan(folder: Path, *, rank: int, world_size: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
    )
    try:
        NanOnRankOne(toy.toy_config(folder)).train()
    except FloatingPointError:
        (folder / f"error_{rank}").write_text(traceback.format_exc())


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What each of two ranks says when rank 1 meets a non-finite loss."""
    folder = tmp_path_factory.mktemp("nan")
    assert run_in_processes(_train_with_nan, folder, world_size=2) == [0, 0]
    return [(folder / f"error_{rank}").read_text() for rank in range(2)]


def test_non_finite_loss_on_one_rank_stops_all_ranks_with_its_images(errors: list[str]) -> None:
    for text in errors:
        assert "iteration 2" in text
        assert "rank 1: bad.png" in text
        assert "rank 0: " not in text


def _train_in_own_folder(folder: Path, copied: str | None, *, rank: int, world_size: int) -> None:
    """Train as on machines that share no folder; with ``copied``, continue what rank 0 did.

    Args:
        copied: the name of the only checkpoint that rank 1 gets; "": none.
    """
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting {copied}", rank=rank, world_size=world_size
    )
    own = folder / (str(rank) if copied is None or rank == 0 else f"{rank} with {copied}")
    trainer = toy.ToyTrainer(toy.toy_config(own))
    if copied is None and rank == 1:
        (own / "metrics.json").write_text("of another run")
    if copied and rank == 1:
        shutil.copy(folder / "0" / copied, own)
    try:
        trainer.resume_or_load(resume=copied is not None)
        trainer.train()
        trainer.checkpointer.save("by_hand")
    except CheckpointError as error:
        (folder / f"{rank} with {copied}.txt").write_text(str(error))


def test_only_the_main_process_writes_and_ranks_resume_alike_or_not_at_all(tmp_path: Path) -> None:
    assert run_in_processes(_train_in_own_folder, tmp_path, None, world_size=2) == [0, 0]
    assert (tmp_path / "0" / "model_final.pth").is_file()
    assert [file.read_text() for file in (tmp_path / "1").iterdir()] == ["of another run"]
    for copied in ("", "model_0000003.pth"):
        assert run_in_processes(_train_in_own_folder, tmp_path, copied, world_size=2) == [0, 0]
        for rank in range(2):
            said = (tmp_path / f"{rank} with {copied}.txt").read_text()
            assert "from different checkpoints" in said
            assert repr(copied or "none") in said


class CountImages(DatasetEvaluator):
    """Gathers the number of images over ranks."""

    def reset(self) -> None:
        self.count = 0

    def process(self, inputs: list[Any], outputs: list[Any]) -> None:
        self.count += len(outputs)

    def evaluate(self) -> dict[str, Any]:
        return {"count": {"images": sum(comm.gather(self.count))}}


def _evaluate_tuned_words(folder: Path, *, rank: int, world_size: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
    )
    model = tiny_model(".TEXT_ENCODER.FINETUNE_TYPE", "all").train()
    loader = [[labeled_record((64, 64), 0, 1)]] if rank == 0 else []
    results = evaluate(model, TEST_SET, loader, CountImages(), folder)
    if rank == 0:
        assert results == {"count": {"images": 1}}


def test_a_rank_without_images_does_not_stop_the_others(tmp_path: Path) -> None:
    """Embedding the words of a tuned text tower takes all ranks, also those without images."""
    assert run_in_processes(_evaluate_tuned_words, tmp_path, world_size=2) == [0, 0]


def _one_step(folder: Path, *, rank: int, world_size: int) -> None:
    """Note what a step draws, and how long it says that loading takes; rank 1 loads slowly."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
    )
    step = step_on_ones()
    batches = step.data_loader
    step.data_loader = (time.sleep(0.3 * rank) or batch for batch in batches)
    with EventStorage() as storage:
        step.run(5)
    metrics = {name: value for name, (value, _) in storage.latest().items()}
    torch.save((*step.model.drawn[0], metrics), folder / f"{rank}.pt")


def test_ranks_share_the_choice_of_words_and_wait_for_the_slowest(tmp_path: Path) -> None:
    """Python's generator chooses synonyms; PyTorch's is for dropout, of other images."""
    assert run_in_processes(_one_step, tmp_path, world_size=2) == [0, 0]
    (dropout, choice, metrics), (other_dropout, same_choice, same_metrics) = (
        torch.load(tmp_path / f"{rank}.pt") for rank in range(2)
    )
    assert dropout != other_dropout
    assert choice == same_choice
    assert metrics["data_time"] == same_metrics["data_time"] >= 0.3
    assert metrics["rank_data_time"] < 0.3 <= same_metrics["rank_data_time"]
