"""Reports and checks evaluation results."""

import logging
import pprint
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from detectron2.config import CfgNode

__all__ = ["flatten_results_dict", "print_csv_format", "verify_results"]


def print_csv_format(results: Mapping[str, Any]) -> None:
    """Log results in a form that can be copied into a table.

    Metrics of {task: {metric: value}} with ``-`` in their names, those of single classes, are
    omitted.
    """
    logger = logging.getLogger(__name__)
    for task, metrics in results.items():
        if not isinstance(metrics, Mapping):
            logger.info("copypaste: %s=%s", task, metrics)
            continue
        shown = {name: value for name, value in metrics.items() if "-" not in name}
        logger.info("copypaste: Task: %s", task)
        logger.info("copypaste: %s", ",".join(shown))
        logger.info("copypaste: %s", ",".join(f"{value:.4f}" for value in shown.values()))


def verify_results(cfg: CfgNode, results: Mapping[str, Any]) -> bool:
    """Compare results with TEST.EXPECTED_RESULTS, a list of [task, metric, value, tolerance].

    Returns:
        True; if a result is missing, not finite or out of tolerance, the program exits with 1.
    """
    expected = cfg.TEST.EXPECTED_RESULTS
    if not expected:
        return True
    logger = logging.getLogger(__name__)
    for task, metric, value, tolerance in expected:
        actual = results.get(task, {}).get(metric)
        if actual is None or not np.isfinite(actual) or abs(actual - value) > tolerance:
            logger.error("Result verification failed!")
            logger.error("Expected Results: %s", expected)
            logger.error("Actual Results: %s", pprint.pformat(results))
            sys.exit(1)
    logger.info("Results verification passed.")
    return True


def flatten_results_dict(results: Mapping[str, Any]) -> dict[str, Any]:
    """Nested results with joined keys: {"task": {"metric": 1}} becomes {"task/metric": 1}."""
    flat: dict[str, Any] = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}/{k}": v for k, v in flatten_results_dict(value).items()})
        else:
            flat[key] = value
    return flat
