"""Evaluation of a model on one dataset, with its results as a file."""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset, print_csv_format
from detectron2.utils import comm
from torch import nn

from maskclippp.files.atomic import write_json

logger = logging.getLogger(__name__)


# Of results and of their folder, when they come from test-time augmentation; as in detectron2.
AUGMENTED_SUFFIX = "_TTA"


def inference_folder(cfg: CfgNode, dataset_name: str, suffix: str = "") -> Path:
    """Where the evaluation files of a dataset go."""
    return Path(cfg.OUTPUT_DIR) / f"inference{suffix}" / dataset_name


def evaluate(
    model: nn.Module,
    dataset_name: str,
    data_loader: Any,
    evaluator: DatasetEvaluator,
    folder: Path,
) -> dict[str, Any]:
    """Evaluate on one dataset and write ``results.json`` into ``folder``.

    A model with ``set_test_dataset(name)`` is told whose classes it has to name. This file and
    those of the evaluators (``<task>_evaluation.json``) record the words that were asked for and
    those trained on, which decide what counts as seen.

    Returns:
        Metrics per task on the main process, else {}.
    """
    set_test_dataset: Callable[[str], None] | None = getattr(model, "set_test_dataset", None)
    if set_test_dataset is not None:
        set_test_dataset(dataset_name)
    results: dict[str, Any] = inference_on_dataset(model, data_loader, evaluator)
    if comm.is_main_process():
        logger.info("Evaluation results for %s:", dataset_name)
        print_csv_format(results)
        folder.mkdir(parents=True, exist_ok=True)
        words = _words_of(model)
        write_json(folder / "results.json", {"dataset": dataset_name, **words, "results": results})
        for task in results:
            _add_words(folder / f"{task}_evaluation.json", words)
    return results


def _words_of(model: nn.Module) -> dict[str, Any]:
    """Provenance of a model's words, under the names of its attributes; nothing if it has none."""
    vocabularies = {
        key: getattr(model, key, None) for key in ("test_vocabulary", "train_vocabulary")
    }
    return {key: words.provenance() for key, words in vocabularies.items() if words is not None}


def _add_words(path: Path, words: Mapping[str, Any]) -> None:
    """Write ``words`` into the results of an evaluator, which knows the annotation alone."""
    if words and path.is_file():
        write_json(path, {**json.loads(path.read_text()), **words})
