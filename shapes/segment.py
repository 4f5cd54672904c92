"""Segment a picture of your own into your own words.

The model is that of the built-in world, or any other.

    python -m shapes.segment PICTURE WORD [WORD ...] [--config CONFIG] [--weights CHECKPOINT]

The config names the CLIP and the mask generator; by default they are the small ones of the built-in
world, which know colors, shapes and patterns only. The configs in `configs/coco-pan` are for
photographs.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file
from maskclippp.engine import Trainer
from maskclippp.engine.checkpoint import Checkpointer
from maskclippp.errors import exit_on_bad_input
from maskclippp.visualization import draw_labels

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "shapes" / "linear_psm_fcclip.yaml"


def main() -> None:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", type=Path, help="image file")
    parser.add_argument("words", nargs="+", help="class names; synonyms are separated by commas")
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--weights", type=Path, help="checkpoint of a fine-tuned model")
    parser.add_argument("--output", type=Path, default=Path("segments.png"))
    arguments = parser.parse_args()
    cfg = get_cfg()
    merge_config_file(cfg, str(arguments.config))
    cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    model = Trainer.build_model(cfg).eval()
    if arguments.weights is not None:
        Checkpointer(model).load(str(arguments.weights))
    model.set_test_vocabulary(arguments.words)
    image = np.asarray(Image.open(arguments.picture).convert("RGB"))
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)
    labels = model([{"image": pixels}])[0]["sem_seg_labels"].cpu().numpy()
    draw_labels(image, labels, arguments.words).save(arguments.output)
    sys.stdout.write(f"wrote {arguments.output}\n")


if __name__ == "__main__":
    with exit_on_bad_input():
        main()
