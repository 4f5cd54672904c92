"""Metrics for Weights & Biases."""

from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.utils.events import EventWriter, get_event_storage

from maskclippp.engine.sample_pictures import Picture
from maskclippp.errors import MissingPackageError


class WandbWriter(EventWriter):
    """Logs new scalars of the event storage, and pictures, to a W&B run, which ``close`` finishes.

    Its files go to ``output_dir``; with WANDB_MODE=offline, no network is needed.

    Raises:
        MissingPackageError: ``wandb`` is not installed.
    """

    def __init__(
        self,
        *,
        project: str,
        name: str,
        output_dir: str,
        config: dict[str, Any],
        pictures: list[Picture] | None = None,
        window: int = 20,
    ) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingPackageError(
                "WANDB.ENABLED needs the package wandb: pip install 'maskclippp[wandb]'"
            ) from error
        self._window = window
        self._pictures = [] if pictures is None else pictures
        self._as_image = wandb.Image
        self._last_iteration = -1
        self._run = wandb.init(project=project, name=name, dir=output_dir, config=config)

    @classmethod
    def from_config(cls, cfg: CfgNode, pictures: list[Picture] | None = None) -> "WandbWriter":
        """A run named WANDB.NAME, by default <config name>/<tag> as in the output folder.

        ``pictures`` are taken from the list when they are logged.
        """
        folder = Path(cfg.OUTPUT_DIR)
        return cls(
            project=cfg.WANDB.PROJECT,
            name=cfg.WANDB.NAME or "/".join(folder.absolute().parts[-2:]),
            output_dir=cfg.OUTPUT_DIR,
            config=yaml.safe_load(cfg.dump()),
            pictures=pictures,
        )

    def write(self) -> None:
        """Log the scalars and pictures that were recorded since the last call."""
        latest = get_event_storage().latest_with_smoothing_hint(self._window)
        per_iteration: dict[int, dict[str, Any]] = {}
        for name, (value, iteration) in latest.items():
            if iteration > self._last_iteration:
                per_iteration.setdefault(iteration, {})[name] = value
        for picture in self._pictures:
            image = self._as_image(picture.image)
            per_iteration.setdefault(picture.iteration, {})[picture.name] = image
        self._pictures.clear()
        for iteration, values in sorted(per_iteration.items()):
            self._run.log(values, step=iteration)
        self._last_iteration = max([self._last_iteration, *per_iteration])

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()
