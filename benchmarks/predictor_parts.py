"""How people use a model: a folder of images, and other words for an image that is encoded.

Model, masks and text embeddings are prepared as in :mod:`benchmarks.model_stages`.
"""

import dataclasses
import itertools
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from torchvision.transforms.v2.functional import to_pil_image

from benchmarks.model_stages import MadeUpFindings, patches_of_color, whole_model
from benchmarks.workload import Bench, Row, make_vocabulary, register_classes, times
from maskclippp.engine.trainer import Trainer
from maskclippp.meta_arch import MaskCLIPpp
from maskclippp.predictor import Predictor
from maskclippp.segmentation import Segmentation, Task

TASKS: tuple[Task, ...] = ("semantic", "panoptic", "instance")


def folder(bench: Bench, cfg: CfgNode) -> Iterator[Row]:
    """A folder of images in the predictor, and in the evaluation loop without its scoring.

    ``index`` and ``overlay`` also write a file per image, as the program does.
    """
    cfg, model, predictor = _prepared(bench, cfg)
    with tempfile.TemporaryDirectory() as name:
        images, segments = Path(name) / "images", Path(name) / "segments"
        count = max(2, bench.work.batch_size)
        _write_images(bench, images, count)
        loader = _test_loader(bench, cfg, images)

        def segment(task: Task, ending: str = "") -> int:
            done = 0
            for result in predictor.stream(images, task=task, batch_size=bench.work.batch_size):
                assert result.path is not None
                if ending:
                    result.save(segments / f"{result.path.stem}{ending}")
                done += 1
            return done

        for task in TASKS:
            only: Any = {f"{other}_on": other == task for other in TASKS}
            model.inference = dataclasses.replace(model.inference, **only)
            runs = bench.compare(
                partial(segment, task),
                evaluation=lambda: inference_on_dataset(model, loader, _Counter())["images"],
                index=partial(segment, task, ".index.png"),
                overlay=partial(segment, task, ".png"),
            )
            yield Row("folder", _what(task, bench), count, "images", runs)


def other_words(bench: Bench, cfg: CfgNode) -> Iterator[Row]:
    """An image into other words, encoded before, and all of it (``image``)."""
    cfg, _, predictor = _prepared(bench, cfg)
    classes = make_vocabulary(bench.work.classes + 1).names
    choices = itertools.cycle([classes[1:], classes[:-1]])
    with tempfile.TemporaryDirectory() as name:
        _write_images(bench, Path(name), 1)
        image = next(Path(name).iterdir())
        predictor.set_image(image)

        def change_words(task: Task) -> Segmentation:
            return predictor.predict(next(choices), task=task)

        def everything(task: Task) -> Segmentation:
            return predictor.set_classes(next(choices))(image, task=task)

        for task in TASKS:
            runs = bench.compare(
                partial(change_words, task),
                image=partial(everything, task),
                agree=lambda *_: None,
            )
            yield Row("words", _what(task, bench), 1, "images", runs)


class _Counter(DatasetEvaluator):
    """Counts images instead of scoring them."""

    def reset(self) -> None:
        """See :class:`DatasetEvaluator`."""
        self.images = 0

    def process(self, inputs: Any, outputs: Any) -> None:
        """See :class:`DatasetEvaluator`."""
        self.images += len(outputs)

    def evaluate(self) -> dict[str, int]:
        """The number of images."""
        return {"images": self.images}


def _prepared(bench: Bench, cfg: CfgNode) -> tuple[CfgNode, MaskCLIPpp, Predictor]:
    cfg, model = whole_model(bench, cfg)
    MadeUpFindings().replace_in(model)
    limits = {"min_size": cfg.INPUT.MIN_SIZE_TEST, "max_size": cfg.INPUT.MAX_SIZE_TEST}
    predictor = Predictor(model, **limits).set_classes(make_vocabulary(bench.work.classes))
    return cfg, model, predictor


def _write_images(bench: Bench, folder: Path, count: int) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        picture = to_pil_image(patches_of_color(bench.work.image_size))
        picture.save(folder / f"{number}.jpg")


def _test_loader(bench: Bench, cfg: CfgNode, folder: Path) -> Any:
    """That of the evaluation loop; it reads in this process, whose time is counted."""
    name = register_classes(bench.work.classes)
    records = [{"file_name": str(path)} for path in sorted(folder.iterdir())]
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
    DatasetCatalog.register(name, lambda: records)
    cfg.DATASETS.TEST, cfg.DATALOADER.NUM_WORKERS = (name,), 0
    return Trainer.build_test_loader(cfg, name)


def _what(task: Task, bench: Bench) -> str:
    return f"{task}, {bench.work.classes} classes, {times(bench.work.image_size)}"
