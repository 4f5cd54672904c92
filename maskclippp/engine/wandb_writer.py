"""Metrics for Weights & Biases."""

from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.utils.events import EventWriter, get_event_storage

from maskclippp.errors import MissingPackageError


class WandbWriter(EventWriter):
    """Logs new scalars of the event storage to a W&B run, which ``close`` finishes.

    Its files go to ``output_dir``; with WANDB_MODE=offline, no network is needed.

    Raises:
        MissingPackageError: ``wandb`` is not installed.
    """

    def __init__(
        self, *, project: str, name: str, output_dir: str, config: dict[str, Any], window: int = 20
    ) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingPackageError(
                "WANDB.ENABLED needs the package wandb: pip install 'maskclippp[wandb]'"
            ) from error
        self._window = window
        self._last_iteration = -1
        self._run = wandb.init(project=project, name=name, dir=output_dir, config=config)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "WandbWriter":
        """A run named WANDB.NAME, by default <config name>/<tag> as in the output folder."""
        folder = Path(cfg.OUTPUT_DIR)
        return cls(
            project=cfg.WANDB.PROJECT,
            name=cfg.WANDB.NAME or "/".join(folder.absolute().parts[-2:]),
            output_dir=cfg.OUTPUT_DIR,
            config=yaml.safe_load(cfg.dump()),
        )

    def write(self) -> None:
        """Log the scalars that were recorded since the last call."""
        latest = get_event_storage().latest_with_smoothing_hint(self._window)
        per_iteration: dict[int, dict[str, float]] = {}
        for name, (value, iteration) in latest.items():
            if iteration > self._last_iteration:
                per_iteration.setdefault(iteration, {})[name] = value
        for iteration, values in sorted(per_iteration.items()):
            self._run.log(values, step=iteration)
        self._last_iteration = max([self._last_iteration, *per_iteration])

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()
