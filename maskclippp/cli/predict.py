"""``maskclippp predict``."""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskclippp.cli.model_arguments import add_model_arguments, build_predictor
from maskclippp.engine.arguments import Parser
from maskclippp.engine.interruption import Interrupted, interruptible
from maskclippp.errors import InputError

if TYPE_CHECKING:
    from maskclippp.evaluation.workers import ImageWork
    from maskclippp.predictor import Predictor
    from maskclippp.predictor.inputs import Video
    from maskclippp.segmentation import Segmentation

KINDS = ("overlay", "index", "panoptic", "coco", "npz")
SETTINGS_FILE = "predict.json"
_EXAMPLES = """examples:
  maskclippp predict photo.jpg --classes "cat, kitten; grass"
  maskclippp predict photos 'more/*.png' --vocabulary ade20k_150 --save-as index coco --output out
  maskclippp predict docs/images/scene.webp --model shapes --classes "gridded cross; brick"
  maskclippp predict video.mp4 --classes "person; dog" --task panoptic

Semicolons separate classes, commas their synonyms; without a semicolon, commas separate classes.
Finished images are left out when the same command is given again."""


def main(arguments: Sequence[str]) -> None:
    """Segment images, folders, videos or a camera into words."""
    args = _parser().parse_args(arguments)
    try:
        with interruptible(at_once=True):
            _run(args)
    except Interrupted:
        sys.stdout.write(
            f"stopped: what is finished is in {args.output}; without --overwrite, the same command "
            "continues with the other images, and begins videos anew\n"
        )
        raise


def _parser() -> Parser:
    parser = Parser(
        prog="maskclippp predict",
        description="Segment images, folders, patterns, videos or a camera into any words.",
        epilog=_EXAMPLES,
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="image, folder, pattern, video or 'camera'")
    add_model_arguments(parser)
    add("--output", type=Path, default=Path("segments"), help="folder (default: %(default)s)")
    add(
        "--save-as",
        nargs="+",
        choices=KINDS,
        default=["overlay"],
        metavar="KIND",
        help=f"what is written: {', '.join(KINDS)} (default: overlay)",
    )
    add("--frames", type=int, metavar="N", help="stop after N frames of a video or camera")
    add("--overwrite", action="store_true", help="segment again what is finished")
    return parser


def _run(args: argparse.Namespace) -> None:
    from maskclippp.files.atomic import explaining, make_folder, write_json
    from maskclippp.predictor.inputs import Video, expand, output_stems

    if not 0 <= args.threshold <= 1:
        raise InputError(f"--threshold: expected a probability in 0..1, found {args.threshold}")
    for name, value in (("--batch-size", args.batch_size), ("--frames", args.frames)):
        if value is not None and value < 1:
            raise InputError(f"{name}: expected a positive number, found {value}")
    images, names = expand(args.inputs)
    if args.output.resolve() in {image.resolve().parent for image in images}:
        raise InputError(
            f"--output {args.output} holds images that are to be segmented, which results could "
            "overwrite: choose another folder"
        )
    make_folder(args.output, "--output")
    videos = [Video(name) for name in names]
    stems = output_stems(images, args.output)
    video_stems = output_stems([video.path for video in videos], args.output)
    _check_settings(args)
    todo = [image for image in images if args.overwrite or not _finished(stems[image], args)]
    if len(todo) < len(images):
        sys.stdout.write(f"{len(images) - len(todo)} of {len(images)} images are finished\n")
    if not todo and not videos:
        return
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    predictor = build_predictor(args)
    with explaining(args.output, "--output"):
        for path in (path for image in todo for path in _files(stems[image], args)):
            path.unlink(missing_ok=True)  # if this command is stopped, they are not finished
        write_json(args.output / SETTINGS_FILE, _settings(args))
    failed = _segment_images(predictor, todo, stems, args) if todo else []
    for video in videos:
        _segment_video(predictor, video, video_stems[video.path], args)
    if len(failed) < len(todo) or videos:
        sys.stdout.write(f"results are in {args.output}\n")
    if failed:
        listed = "; ".join(map(str, failed[:10]))
        raise InputError(f"{len(failed)} of {len(todo)} images were left out: {listed}")


def _segment_images(
    predictor: "Predictor", images: list[Path], stems: dict[Path, Path], args: argparse.Namespace
) -> list[InputError]:
    """Segment and save the images; the errors of those that cannot be read."""
    from tqdm import tqdm

    def save(result: "Segmentation") -> None:
        assert result.path is not None
        for path in _files(stems[result.path], args):
            result.save(path)

    failed: list[InputError] = []
    # Without a terminal there is no bar.
    with (
        tqdm(total=len(images), unit="image", disable=None) as bar,
        _saving(lambda _: bar.update()) as work,
    ):

        def leave_out(_: Any, error: InputError) -> None:
            failed.append(error)
            bar.update()

        for result in predictor.stream(
            images,
            task=args.task,
            batch_size=args.batch_size,
            threshold=args.threshold,
            on_error=leave_out,
        ):
            work.submit(save, result)
    return failed


@contextmanager
def _saving(take: Callable[[Any], Any]) -> "Iterator[ImageWork[Any]]":
    """Draws and writes files while the model runs; see :class:`ImageWork`."""
    from maskclippp.evaluation.workers import ImageWork, worker_count

    work = ImageWork(take, worker_count())
    try:
        yield work
        work.finish()
    except Interrupted:
        work.finish()  # a camera has no other end
        raise
    finally:
        work.clear()


def _segment_video(
    predictor: "Predictor", video: "Video", stem: Path, args: argparse.Namespace
) -> None:
    """Write the overlays as one video, and everything else per frame."""
    import numpy as np
    from tqdm import tqdm

    from maskclippp.predictor.inputs import VideoFile
    from maskclippp.segmentation.saving import ENDINGS

    frames = islice(iter(video), args.frames)
    results = predictor.stream(
        frames, task=args.task, batch_size=args.batch_size, threshold=args.threshold
    )
    total = min(filter(None, (video.count, args.frames)), default=None)
    files = [kind for kind in args.save_as if kind != "overlay"]

    def save(number: int, result: "Segmentation") -> Any:
        for kind in files:
            result.save(stem.with_name(f"{stem.name}_{number:06d}{ENDINGS[kind]}"))
        return np.asarray(result.plot(legend=False)) if "overlay" in args.save_as else None

    def write(overlay: Any) -> None:
        if overlay is not None:
            overlays.write(overlay)

    with (
        VideoFile(stem.with_name(f"{stem.name}.mp4"), video.rate) as overlays,
        _saving(write) as work,
    ):
        for number, result in enumerate(tqdm(results, total=total, unit="frame", disable=None)):
            work.submit(save, number, result)


def _files(stem: Path, args: argparse.Namespace) -> list[Path]:
    from maskclippp.segmentation.saving import ENDINGS

    return [stem.with_name(stem.name + ENDINGS[kind]) for kind in args.save_as]


def _finished(stem: Path, args: argparse.Namespace) -> bool:
    return all(path.is_file() for path in _files(stem, args))


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """What results depend on."""
    keys = ("classes", "vocabulary", "task", "model", "weights", "generator", "threshold")
    return {key: getattr(args, key) for key in keys}


def _check_settings(args: argparse.Namespace) -> None:
    """Raise an InputError if the folder has results of other settings."""
    path = args.output / SETTINGS_FILE
    has_results = any(file != path for file in args.output.iterdir())
    if args.overwrite or not has_results or not path.is_file():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        before = None
    before = before if isinstance(before, dict) else {}
    changed = [key for key, value in _settings(args).items() if before.get(key) != value]
    if changed:
        raise InputError(
            f"{args.output} has results of another {', '.join(changed)} (see {path}): choose "
            "another --output, or give --overwrite"
        )
