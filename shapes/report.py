"""The quickstart's web page: tables, and pictures of image, truth and what models made of it."""

import base64
import html
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog, build_detection_test_loader
from PIL import Image

from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file, merge_options
from maskclippp.data.mappers import EvaluationMapper
from maskclippp.engine import Trainer
from maskclippp.engine.checkpoint import Checkpointer
from maskclippp.visualization import draw_labels

DATASET = "shapes_val"
UInt8Array = npt.NDArray[np.uint8]
LabelMap = npt.NDArray[np.int64]
Row = tuple[str, str, float, float, float]  # classes, metric, two percentages, their difference


@dataclass(frozen=True)
class Table:
    """Two columns of percentages, compared."""

    headers: tuple[str, ...]
    rows: Sequence[Row]


@dataclass(frozen=True)
class View:
    """One way to segment a scene: a config, a checkpoint (None: as pre-trained), a generator.

    ``generator`` are the options that choose it.
    """

    title: str
    config: Path
    weights: Path | None
    generator: tuple[str, ...]


def write(
    path: Path,
    *,
    tuning: Table,
    masks: Table,
    views: Sequence[View],
    options: Sequence[str],
    num_pictures: int,
) -> None:
    """Write the page as one file with everything in it.

    Args:
        path: of the page.
        tuning: what fine-tuning changed.
        masks: what the trained generator changed.
        views: how each scene is segmented, a picture for each.
        options: KEY VALUE pairs laid over the configs.
        num_pictures: how many scenes are shown.
    """
    predictions = [_predictions(view, options, num_pictures) for view in views]
    titles = [view.title for view in views]
    scenes = "\n".join(
        _scene(found[0][0], [labels for _, labels in found], titles)
        for found in zip(*predictions, strict=True)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    page = _PAGE.format(tuning=_table(tuning), masks=_table(masks), scenes=scenes)
    path.write_text(page, encoding="utf-8")


def _predictions(
    view: View, options: Sequence[str], count: int
) -> Iterator[tuple[dict[str, Any], LabelMap]]:
    """(record, label map) of the first scenes."""
    cfg: CfgNode = get_cfg()
    merge_config_file(cfg, str(view.config))
    merge_options(cfg, [*options, *view.generator])
    cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    cfg.DATALOADER.NUM_WORKERS = 0
    model = Trainer.build_model(cfg).eval()
    if view.weights is not None:
        Checkpointer(model).load(str(view.weights))
    model.set_test_dataset(DATASET)
    mapper = EvaluationMapper(cfg, DATASET, with_ground_truth=True)
    loader = build_detection_test_loader(cfg, DATASET, mapper=mapper)
    for _, (record,) in zip(range(count), loader, strict=False):
        (result,) = model([record])
        yield record, result["sem_seg_labels"].cpu().numpy()


def _scene(record: dict[str, Any], found: Sequence[LabelMap], titles: Sequence[str]) -> str:
    """The picture, the truth and every view of one scene."""
    metadata = MetadataCatalog.get(DATASET)
    names = metadata.stuff_classes
    image = np.asarray(Image.open(record["file_name"]).convert("RGB"))
    truth = record["sem_seg"].numpy()
    inside = truth != metadata.ignore_label
    cells = [_figure(Image.fromarray(image).resize((image.shape[1] * 2, image.shape[0] * 2)), "")]
    cells.append(_figure(draw_labels(image, truth, names), "truth"))
    for labels, title in zip(found, titles, strict=True):
        share = float((labels == truth)[inside].mean())
        picture = draw_labels(image, np.where(inside, labels, -1), names)
        cells.append(_figure(picture, f"{title}: {100 * share:.0f} % of the pixels right"))
    return f"<section>{''.join(cells)}</section>"


def _figure(picture: Image.Image, caption: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    text = html.escape(caption or "image")
    return (
        f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(header)}</th>" for header in table.headers)
    body = []
    for group, metric, before, after, gain in table.rows:
        kind = "better" if gain > 0 else "worse"
        body.append(
            f"<tr><td>{group}</td><td>{html.escape(metric)}</td><td>{before:.1f}</td>"
            f'<td>{after:.1f}</td><td class="{kind}">{gain:+.1f}</td></tr>'
        )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>MaskCLIP++ quickstart</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem;
  color: #1c1c1c; background: #fff; }}
h1, h2 {{ line-height: 1.2; }}
table {{ border-collapse: collapse; margin: 1rem 0; }}
th, td {{ padding: .3rem .9rem; border-bottom: 1px solid #ddd; text-align: right;
  font-variant-numeric: tabular-nums; }}
th:nth-child(-n+2), td:nth-child(-n+2) {{ text-align: left; }}
td.better {{ color: #10702c; font-weight: 600; }}
td.worse {{ color: #a02020; font-weight: 600; }}
section {{ display: grid; grid-template-columns: repeat(3, 1fr); gap: .8rem; margin: 1rem 0; }}
figure {{ margin: 0; }}
img {{ width: 100%; image-rendering: auto; border-radius: 4px; }}
figcaption {{ font-size: .85rem; color: #444; }}
@media (max-width: 60rem) {{ section {{ grid-template-columns: repeat(2, 1fr); }} }}
</style>
</head>
<body>
<h1>MaskCLIP++ quickstart</h1>
<p>CLIP knows many words but classifies regions badly. Here a small CLIP, pre-trained on captioned
scenes of a drawn world, was fine-tuned on the <em>true masks</em> of two thirds of the classes
(seen). The other classes (unseen) were never labeled in training.</p>
<h2>What fine-tuning changed</h2>
{tuning}
<p>Percent on validation scenes. Mask accuracy: share of true masks that get the right class, mean
over classes. mIoU with true masks: only the words can be wrong. The other masks come from
the image alone: superpixels of similar color, merged, or the masks of a trained generator.</p>
<h2>A trained generator and superpixels of default settings</h2>
{masks}
<p>The same fine-tuned model names the masks. <em>Classes given</em>: each mask takes the class of
the true segment that it fits best, so that only the masks can be wrong. The generator is a small
FC-CLIP on the frozen CLIP of this world; it too was trained on seen classes only.</p>
<p>This compares with superpixels of default settings, which hardly follow edges: SLIC weighs color
too little. With SUPERPIXELS.COMPACTNESS 0.3, a value chosen on validation scenes, superpixels alone
(classes given) are better than this generator, and the mIoU of both is about the same; the
generator keeps a lead in PQ. Drawn scenes of even colors favor superpixels.</p>
<h2>Scenes</h2>
<p>True masks, named by the model before and after fine-tuning; then masks found in the image, named
by the fine-tuned model.</p>
{scenes}
</body>
</html>
"""
