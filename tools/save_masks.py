"""Save the masks of a mask generator, one file per image, for OfflineSegmentor to read.

    python tools/save_masks.py --config-file configs/... --output masks [--format npz]
        [--images FOLDER] [KEY VALUE ...]

The images are those of the config's test set, or all in a folder. Their folders are kept below
their common one: ``town/a.jpg`` gives ``masks/town/a.npz``. Masks are saved at the original size of
their image, as yes or no per pixel (probability > 0.5); what the generator says about classes is
not saved. A run that was stopped goes on behind its finished files.

To evaluate with the saved masks, without the generator:

    MODEL.MASKCLIPPP.SEGMENTOR.NAME OfflineSegmentor
    MODEL.MASKCLIPPP.SEGMENTOR.OFFLINE_ANN_DIR masks
    MODEL.MASKCLIPPP.SEGMENTOR.OFFLINE_ANN_SUFFIX .npz
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from tqdm import tqdm

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY)]

import maskclippp  # noqa: E402, F401  (makes detectron2 importable)

# isort: split
from detectron2.config import CfgNode  # noqa: E402
from detectron2.data import DatasetCatalog, build_detection_test_loader  # noqa: E402

from maskclippp.config.keys import get_cfg  # noqa: E402
from maskclippp.config.merging import merge_config_file, merge_options  # noqa: E402
from maskclippp.data.custom import register_custom_datasets  # noqa: E402
from maskclippp.data.mappers.evaluation import EvaluationMapper  # noqa: E402
from maskclippp.devices import set_float32_precision  # noqa: E402
from maskclippp.errors import InputError, UnreadableFileError, exit_on_bad_input  # noqa: E402
from maskclippp.files.atomic import atomic_write  # noqa: E402
from maskclippp.files.images import allow_pixels  # noqa: E402
from maskclippp.generators import build_generator, check_generator  # noqa: E402
from maskclippp.inference.postprocess import binary_masks  # noqa: E402
from maskclippp.inference.settings import InferenceSettings  # noqa: E402
from maskclippp.masks.mask_files import FORMATS, write_masks  # noqa: E402

IMAGE_ENDINGS = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
# What the masks depend on: kept beside them, so that one folder never holds masks of two kinds.
SETTINGS_FILE = "save_masks.yaml"
_SETTINGS = ("SEGMENTOR", "VISUAL_ENCODER_F", "TEXT_ENCODER_F", "TEMPLATES_F")

Record = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says; see the module's docstring."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    cfg = build_config(args)
    if not args.images and len(cfg.DATASETS.TEST) != 1:
        parser.error(
            f"DATASETS.TEST is {tuple(cfg.DATASETS.TEST)}: name one set at the end of the command, "
            "DATASETS.TEST \"('name',)\", or give --images FOLDER"
        )
    records = folder_records(args.images) if args.images else DatasetCatalog.get(*cfg.DATASETS.TEST)
    if not records:
        parser.error(f"no image below {args.images} ends with one of {sorted(IMAGE_ENDINGS)}")
    paths = mask_paths([record["file_name"] for record in records], args.output, "." + args.format)
    todo = [record for record in records if not paths[record["file_name"]].is_file()]
    keep_settings(cfg, args.output, has_masks=len(todo) < len(records))
    sys.stdout.write(f"{len(records) - len(todo)} of {len(records)} files are there\n")
    if todo:
        save(cfg, todo, paths, from_dataset=not args.images)


def make_parser() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder for the masks")
    parser.add_argument("--images", type=Path, help="folder of images; default: DATASETS.TEST")
    parser.add_argument("--format", choices=[name[1:] for name in FORMATS], default="npz")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("options", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    return parser


def build_config(args: argparse.Namespace) -> CfgNode:
    """The config file with the command line's options laid over it, its own datasets registered."""
    cfg = get_cfg()
    merge_config_file(cfg, args.config_file)
    merge_options(cfg, args.options)
    cfg.MODEL.DEVICE = args.device
    allow_pixels(cfg.INPUT.MAX_IMAGE_PIXELS)
    set_float32_precision(cfg.FLOAT32_PRECISION)
    register_custom_datasets(cfg.DATASETS.CUSTOM)
    return cfg


def folder_records(folder: Path) -> list[Record]:
    """A record for every image below ``folder``."""
    return [
        {"file_name": str(path)}
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in IMAGE_ENDINGS
    ]


def mask_paths(images: Sequence[str], output: Path, suffix: str) -> dict[str, Path]:
    """The mask file of every image; InputError if two images would share one."""
    absolute = [Path(os.path.abspath(image)) for image in images]  # noqa: PTH100  links are kept
    root = os.path.commonpath([path.parent for path in absolute])
    image_of: dict[Path, str] = {}
    for image, path in zip(images, absolute, strict=True):
        place = output / path.parent.relative_to(root) / (path.stem + suffix)
        other = image_of.setdefault(place, image)
        if other != image:
            raise InputError(f"{other} and {image} would share the mask file {place}: rename one")
    return {image: place for place, image in image_of.items()}


def keep_settings(cfg: CfgNode, output: Path, *, has_masks: bool) -> None:
    """Record what the masks depend on; InputError if ``output`` has masks of other settings."""
    nodes: dict[str, Any] = {key: cfg.MODEL.MASKCLIPPP[key] for key in _SETTINGS}
    nodes |= {key: cfg.MODEL[key] for key in ("SEM_SEG_HEAD", "SWIN")}
    nodes["MASK_FORMER"] = {k: v for k, v in cfg.MODEL.MASK_FORMER.items() if k != "TEST"}
    nodes |= {key: cfg.INPUT[key] for key in ("MIN_SIZE_TEST", "MAX_SIZE_TEST")}
    nodes["DTYPE"] = cfg.MODEL.MASKCLIPPP.TEST.DTYPE
    settings = CfgNode(nodes).dump()
    path = output / SETTINGS_FILE
    if not has_masks or not path.is_file():
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnreadableFileError(
                f"--output {output} cannot be created ({error.strerror}): name a folder"
            ) from error
        with atomic_write(path) as file:
            file.write(settings.encode())
        return
    before, now = yaml.safe_load(path.read_text()), yaml.safe_load(settings)
    changed = [key for key in now if now[key] != before.get(key)]
    if changed:
        raise InputError(
            f"{output} has masks that were made with another {', '.join(changed)} "
            f"(see {path}): choose another --output"
        )


def save(
    cfg: CfgNode, records: list[Record], paths: dict[str, Path], *, from_dataset: bool
) -> None:
    """Generate and write the masks of ``records`` under a progress bar."""
    if from_dataset:
        with_ground_truth = check_generator(cfg).needs_ground_truth
        mapper = EvaluationMapper(cfg, cfg.DATASETS.TEST[0], with_ground_truth)
    else:
        mapper = EvaluationMapper(
            min_size=cfg.INPUT.MIN_SIZE_TEST,
            max_size=cfg.INPUT.MAX_SIZE_TEST,
            with_ground_truth=False,
        )
    mapper.resize_on_device = False  # the generator takes images as they are
    generate = make_generator(cfg)
    loader: Iterable[list[Record]] = build_detection_test_loader(
        records, mapper=mapper, num_workers=cfg.DATALOADER.NUM_WORKERS
    )
    for batch in tqdm(loader, unit="image", total=len(records)):
        for record, masks in zip(batch, generate(batch), strict=True):
            path = paths[record["file_name"]]
            path.parent.mkdir(parents=True, exist_ok=True)
            write_masks(path, masks)


def make_generator(cfg: CfgNode) -> Callable[[list[Record]], list[Tensor]]:
    """A function from records to their masks, bool [Q, H, W] at the original size."""
    generator = build_generator(cfg)
    inference = InferenceSettings.from_config(cfg)

    def generate(batch: list[Record]) -> list[Tensor]:
        with inference.autocast(torch.device(cfg.MODEL.DEVICE)):
            generated = generator(batch)
        return [
            binary_masks(found.masks, (record["height"], record["width"]))
            for record, found in zip(batch, generated, strict=True)
        ]

    return torch.no_grad()(generate)


if __name__ == "__main__":
    with exit_on_bad_input():
        main()
