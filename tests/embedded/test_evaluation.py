"""The evaluation loop and its reports."""

import logging
from typing import Any

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.evaluation import (
    DatasetEvaluator,
    DatasetEvaluators,
    inference_on_dataset,
    print_csv_format,
    verify_results,
)
from detectron2.evaluation.testing import flatten_results_dict

from tests.embedded.toy import RESULTS, FixedEvaluator, ToyModel

LOADER = [[{"x": torch.ones(3)}]] * 7


class Counting(DatasetEvaluator):
    """Counts batches since the last reset."""

    def reset(self) -> None:
        self.count = 0

    def process(self, inputs: Any, outputs: Any) -> None:
        assert len(inputs) == len(outputs)
        self.count += 1

    def evaluate(self) -> dict[str, Any]:
        return {"counting": {"batches": self.count}}


@pytest.mark.parametrize("batches", [1, 7])
def test_every_batch_is_processed_once(batches: int) -> None:
    results = inference_on_dataset(ToyModel(), LOADER[:batches], Counting())
    assert results == {"counting": {"batches": batches}}


def test_several_evaluators_give_one_result() -> None:
    results = inference_on_dataset(ToyModel(), LOADER, [Counting(), FixedEvaluator()])
    assert results == {"counting": {"batches": 7}, **RESULTS}


def test_without_evaluators_there_are_no_results() -> None:
    assert inference_on_dataset(ToyModel(), LOADER, None) == {}


def test_an_evaluator_without_results_gives_an_empty_dictionary() -> None:
    assert inference_on_dataset(ToyModel(), LOADER, DatasetEvaluator()) == {}


def test_tasks_of_several_evaluators_must_differ() -> None:
    evaluators = DatasetEvaluators([FixedEvaluator(), FixedEvaluator()])
    with pytest.raises(AssertionError, match="sem_seg"):
        evaluators.evaluate()


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_evaluated_without_gradients_and_keeps_its_mode(training: bool) -> None:
    modes = []

    class Watching(ToyModel):
        def forward(self, batch: Any) -> Any:
            modes.append((self.training, torch.is_grad_enabled()))
            return super().forward(batch)

    model = Watching().train(training)
    inference_on_dataset(model, LOADER, Counting())
    assert set(modes) == {(False, False)}
    assert model.training == training


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_results_are_logged_for_copying(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("detectron2").propagate = True
    with caplog.at_level(logging.INFO, "detectron2"):
        print_csv_format({"sem_seg": {"mIoU": 12.5, "IoU-a": 1.0, "fwIoU": 3.0}})
    assert messages(caplog) == [
        "copypaste: Task: sem_seg",
        "copypaste: mIoU,fwIoU",
        "copypaste: 12.5000,3.0000",
    ]


def test_nested_results_are_flattened() -> None:
    nested = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert flatten_results_dict(nested) == {"a/b": 1, "a/c/d": 2, "e": 3}


def test_expected_results_within_tolerance_pass() -> None:
    cfg = get_cfg()
    cfg.TEST.EXPECTED_RESULTS = [["sem_seg", "mIoU", 12.4, 0.2]]
    assert verify_results(cfg, RESULTS)


@pytest.mark.parametrize(
    "expected",
    [["sem_seg", "mIoU", 12.4, 0.01], ["sem_seg", "no_such_metric", 12.4, 0.2]],
)
def test_other_results_end_the_program(expected: list[Any]) -> None:
    cfg = get_cfg()
    cfg.TEST.EXPECTED_RESULTS = [expected]
    with pytest.raises(SystemExit) as caught:
        verify_results(cfg, RESULTS)
    assert caught.value.code == 1


def test_results_that_are_not_finite_do_not_pass() -> None:
    cfg = get_cfg()
    cfg.TEST.EXPECTED_RESULTS = [["sem_seg", "mIoU", 12.4, 0.2]]
    with pytest.raises(SystemExit):
        verify_results(cfg, {"sem_seg": {"mIoU": float("nan")}})
