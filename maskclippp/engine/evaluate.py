"""Evaluation of a model on one dataset, with its results as a file."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset, print_csv_format
from detectron2.utils import comm
from tabulate import tabulate
from torch import nn

from maskclippp.clip.half_weights import converted_weights
from maskclippp.engine.interruption import interruptible
from maskclippp.engine.progress import Progress
from maskclippp.engine.run_folder import RESULTS_NAME
from maskclippp.files.atomic import write_json
from maskclippp.meta_arch import MaskCLIPpp
from maskclippp.words.requested import RequestedWords

logger = logging.getLogger(__name__)


# Suffix of results of test-time augmentation and of their folder; as in detectron2.
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
    weights: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate on one dataset and write ``results.json`` into ``folder``.

    If the model defines ``set_test_dataset``, it is called first, to select the vocabulary. The
    file records ``weights`` and the test and training vocabularies, which decide what counts as
    seen.

    Args:
        progress: keeps the finished images in ``folder`` until :meth:`Progress.finish`.

    Returns:
        Metrics per task on the main process, else {}.
    """
    set_test_dataset: Callable[[str], None] | None = getattr(model, "set_test_dataset", None)
    if set_test_dataset is not None:
        set_test_dataset(dataset_name)
    words: RequestedWords | None = getattr(model, "requested_words", None)
    provenance = {} if words is None else words.provenance()
    if progress is not None:
        data_loader, evaluator = progress.keep(
            dataset_name, data_loader, evaluator, folder, provenance
        )
    with interruptible(at_once=True), weights_in_test_precision(model):
        results: dict[str, Any] = inference_on_dataset(model, data_loader, evaluator)
    if comm.is_main_process():
        logger.info("Evaluation results for %s:", dataset_name)
        print_csv_format(results)
        folder.mkdir(parents=True, exist_ok=True)
        said = {} if weights is None else {"weights": weights}
        content = {"dataset": dataset_name, **said, **provenance, "results": results}
        write_json(folder / RESULTS_NAME, content)
        origin = dict(weights or {})
        logger.info(
            "%s\nweights: %s\nfiles: %s",
            results_table(dataset_name, results),
            origin.get("checkpoint") or origin.get("origin", "those of this moment"),
            folder,
        )
    return results


@contextmanager
def weights_in_test_precision(model: nn.Module) -> Iterator[None]:
    """TEST.DTYPE for the weights of image towers, so that they are not converted in every call.

    See :func:`converted_weights` for what does not change.
    """
    with ExitStack() as stack:
        for part in model.modules():  # perhaps in a wrapper
            if isinstance(part, MaskCLIPpp) and part.inference.number_type != torch.float32:
                towers = [part, part.mask_generator]
                stack.enter_context(converted_weights(towers, part.inference.number_type))
        yield


def results_table(dataset_name: str, results: Mapping[str, Any]) -> str:
    """The metrics over all, seen and unseen classes as a text table; classes are left out."""
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for task, metrics in results.items():
        for key, value in metrics.items() if isinstance(metrics, Mapping) else ():
            metric, _, group = key.partition("(")
            if "-" not in key:
                rows.setdefault((task, metric), {})[group.rstrip(")") or "all"] = value
    groups = [name for name in ("all", "S", "U") if any(name in row for row in rows.values())]
    titles = {"all": "all", "S": "seen", "U": "unseen"}
    return tabulate(
        [(*names, *(row.get(group) for group in groups)) for names, row in rows.items()],
        headers=[dataset_name, "percent", *(titles[group] for group in groups)],
        floatfmt=".2f",
    )
