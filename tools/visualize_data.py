"""Draw what training sees: the first samples of a run, augmented, with their annotation.

    python tools/visualize_data.py --config-file configs/... --output pictures [--count 16]
        [KEY VALUE ...]

The samples, their order and their augmentation are those of a training in one process with the same
config and SEED. Each picture shows the image, and beside it the masks and class names that the
model gets; pixels of no mask are hatched. Where masks overlap, the smaller one is drawn.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY)]

import maskclippp  # noqa: E402, F401  (makes detectron2 importable)
from maskclippp.config.keys import get_cfg  # noqa: E402
from maskclippp.config.merging import merge_config_file, merge_options  # noqa: E402
from maskclippp.data.custom import register_custom_datasets  # noqa: E402
from maskclippp.data.loader import build_train_loader  # noqa: E402
from maskclippp.errors import InputError, exit_on_bad_input  # noqa: E402
from maskclippp.files.images import allow_pixels  # noqa: E402
from maskclippp.records import Record  # noqa: E402
from maskclippp.visualization import draw_regions, word_colors  # noqa: E402
from maskclippp.words import training_vocabulary  # noqa: E402

LEAST_SIDE = 320  # smaller pictures are enlarged, so that names can be read


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--count", type=int, default=16, help="samples (default: %(default)s)")
    parser.add_argument("options", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    args = parser.parse_args(arguments)
    if args.count < 1:
        parser.error(f"--count: expected a positive number, found {args.count}")
    cfg = get_cfg()
    merge_config_file(cfg, args.config_file)
    cfg.DATALOADER.NUM_WORKERS = 0
    merge_options(cfg, args.options)
    allow_pixels(cfg.INPUT.MAX_IMAGE_PIXELS)
    register_custom_datasets(cfg.DATASETS.CUSTOM)
    vocabulary = training_vocabulary(cfg.DATASETS.TRAIN, cfg.DATASETS.VOCABULARY)
    if vocabulary is None:
        raise InputError(f"{args.config_file}: DATASETS.TRAIN names no set to draw samples of")
    names = [", ".join(synonyms) for synonyms in vocabulary.classes]
    args.output.mkdir(parents=True, exist_ok=True)
    samples = islice(chain.from_iterable(build_train_loader(cfg)), args.count)
    for number, sample in enumerate(tqdm(samples, total=args.count, unit="sample", disable=None)):
        name = f"{number:04d}_{Path(sample['file_name']).stem}.png"
        draw_sample(sample, names).save(args.output / name)
    sys.stdout.write(f"wrote {args.count} pictures into {args.output}\n")


def draw_sample(sample: Record, class_names: Sequence[str]) -> Image.Image:
    """The image of a training sample, and beside it its masks with their names."""
    image = sample["image"].permute(1, 2, 0).contiguous().numpy()
    masks = sample["instances"].gt_masks.numpy()
    classes = sample["instances"].gt_classes.tolist()
    regions = np.zeros(image.shape[:2], dtype=np.int64)
    areas = masks.sum(axis=(1, 2))
    for index in np.argsort(-areas, kind="stable"):
        regions[masks[index]] = index + 1
    numbered = {index + 1: number for index, number in enumerate(classes)}
    palette = word_colors(class_names)
    scale = max(1, -(-LEAST_SIDE // min(image.shape[:2])))
    drawn = draw_regions(
        image,
        regions,
        {index: class_names[number] for index, number in numbered.items()},
        {index: palette[number] for index, number in numbered.items()},
        scale=scale,
    )
    both = Image.new("RGB", (2 * drawn.width, drawn.height))
    both.paste(Image.fromarray(image).resize(drawn.size, Image.Resampling.NEAREST))
    both.paste(drawn, (drawn.width, 0))
    return both


if __name__ == "__main__":
    with exit_on_bad_input():
        main()
