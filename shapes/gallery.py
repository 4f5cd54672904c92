"""Draw the pictures of the manual: strips of one scene, each panel with a caption.

    python -m shapes.gallery output/quickstart/training/model_final.pth [--output docs/images]

The argument is a checkpoint of configs/shapes/linear_psm.yaml.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from PIL import Image, ImageDraw, ImageFont

from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file
from maskclippp.engine import Trainer
from maskclippp.engine.checkpoint import Checkpointer
from maskclippp.errors import exit_on_bad_input
from maskclippp.visualization import word_colors
from shapes.pictures import SCALE, draw_segments
from shapes.report import DATASET, SceneOutcome, UInt8Array, View, segment_scenes

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "shapes"
SUPERPIXELS = CONFIGS / "linear_psm_superpixels.yaml"
SCENE = 9  # number of the validation scene
# Vocabularies for one picture.
WORDS = (
    ("purple gridded cross", "yellow dotted circle", "gray wavy water", "pink brick wall"),
    ("orange dotted circle", "orange striped square", "gray wavy water", "pink wavy water"),
)
CAPTION_HEIGHT, GAP, FONT_SIZE = 34, 12, 20
Panel = tuple[str, Image.Image]


def main() -> None:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    tuned = arguments.weights
    generator = ("MODEL.MASKCLIPPP.SEGMENTOR.NAME", "SuperpixelSegmentor")
    views = [
        View("plain CLIP", CONFIGS / "plain_clip.yaml", None, generator),
        View("fine-tuned", SUPERPIXELS, tuned, ()),
        View("ground-truth masks", CONFIGS / "linear_psm.yaml", tuned, ()),
        View("superpixels", SUPERPIXELS, tuned, ()),
        View("FC-CLIP", CONFIGS / "linear_psm_fcclip.yaml", tuned, ()),
    ]
    outcome = segment_scenes(views, (), SCENE + 1)[SCENE]
    panels = [_panel(outcome, number, view.title) for number, view in enumerate(views)]
    image = Image.fromarray(outcome.image)
    image = image.resize((image.width * SCALE, image.height * SCALE), Image.Resampling.BICUBIC)
    strips = {
        "scene": [("image", image), *panels[:2]],
        "generators": panels[2:],
        "words": [("image", image), *_with_words(outcome.image, tuned)],
    }
    for name, strip in strips.items():
        _joined(strip).save(arguments.output / f"{name}.webp", quality=82, method=6)
    image.save(arguments.output / "picture.webp", quality=85, method=6)


def _panel(outcome: SceneOutcome, number: int, title: str) -> Panel:
    metadata = MetadataCatalog.get(DATASET)
    names = [name.partition(",")[0] for name in metadata.stuff_classes]
    colors = [tuple(color) for color in metadata.stuff_colors]
    labels = np.where(outcome.truth != metadata.ignore_label, outcome.found[number], -1)
    picture = draw_segments(outcome.image, labels, outcome.truth, names, colors)
    return f"{title}: {outcome.right(number):.0f} % of the pixels right", picture


def _with_words(image: UInt8Array, weights: Path) -> list[Panel]:
    """The scene in the words of each vocabulary."""
    cfg = get_cfg()
    merge_config_file(cfg, SUPERPIXELS)
    cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    model = Trainer.build_model(cfg).eval()
    Checkpointer(model).load(str(weights))
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)
    panels = []
    for number, words in enumerate(WORDS, start=1):
        model.set_test_vocabulary(words)
        labels = model([{"image": pixels}])[0]["sem_seg_labels"].cpu().numpy()
        picture = draw_segments(image, labels, labels, words, word_colors(words))
        panels.append((f"vocabulary {number}", picture))
    return panels


def _joined(panels: Sequence[Panel]) -> Image.Image:
    """Pictures of one size side by side, each below its caption."""
    width, height = panels[0][1].size
    size = (len(panels) * (width + GAP) - GAP, CAPTION_HEIGHT + height)
    strip = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(strip), ImageFont.load_default(size=FONT_SIZE)
    for number, (caption, picture) in enumerate(panels):
        left = number * (width + GAP)
        strip.paste(picture, (left, CAPTION_HEIGHT))
        middle = (left + width / 2, CAPTION_HEIGHT / 2)
        pen.text(middle, caption, fill=(20, 20, 20), font=font, anchor="mm")
    return strip


if __name__ == "__main__":
    with exit_on_bad_input():
        main()
