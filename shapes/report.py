"""The quickstart's web page: what fine-tuning changed, in numbers, pictures and tables."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
from shapes.pictures import SCALE, draw_segments

DATASET = "shapes_val"
UInt8Array = npt.NDArray[np.uint8]
LabelMap = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Gain:
    """One number before and after, in percent."""

    title: str
    before: float
    after: float


@dataclass(frozen=True)
class Table:
    """Rows of words and percentages; `note` is set below it."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str | float]]
    note: str = ""
    sortable: bool = False


@dataclass(frozen=True)
class View:
    """One way to segment a scene: a config, a checkpoint (None: as pre-trained), a generator.

    `generator` are the options that choose it.
    """

    title: str
    config: Path
    weights: Path | None
    generator: tuple[str, ...]


@dataclass(frozen=True)
class SceneOutcome:
    """One scene [H, W, 3], its true classes [H, W], and the classes that each view found."""

    image: UInt8Array
    truth: LabelMap
    found: Sequence[LabelMap]

    def right(self, view: int) -> float:
        """Share of the annotated pixels that a view names rightly, in percent."""
        inside = self.truth != MetadataCatalog.get(DATASET).ignore_label
        return 100 * float((self.found[view] == self.truth)[inside].mean())

    @property
    def gain(self) -> float:
        """By how many points the second view is better than the first."""
        return self.right(1) - self.right(0)


def write(
    path: Path,
    *,
    headline: Sequence[Gain],
    views: Sequence[View],
    tables: Sequence[Table],
    options: Sequence[str],
    num_scenes: int,
) -> None:
    """Write the page as one file with everything in it.

    Args:
        path: of the page.
        headline: the numbers of the first screen.
        views: how each scene is segmented: before, after, and further ones.
        tables: what follows the scenes.
        options: KEY VALUE pairs laid over the configs.
        num_scenes: how many of the first validation scenes are shown.
    """
    outcomes = segment_scenes(views, options, num_scenes)
    clearest = max(outcomes, key=lambda outcome: outcome.gain)
    path.parent.mkdir(parents=True, exist_ok=True)
    page = _PAGE.format(
        style=_STYLE,
        script=_SCRIPT,
        gains="".join(_gain(gain) for gain in headline),
        clearest=_scene(clearest, views[:2], "clearest"),
        scenes="\n".join(_scene(outcome, views, "scene") for outcome in outcomes),
        num_scenes=num_scenes,
        tables="\n".join(_table(table) for table in tables),
    )
    path.write_text(page, encoding="utf-8")


def segment_scenes(views: Sequence[View], options: Sequence[str], count: int) -> list[SceneOutcome]:
    """Segment the first validation scenes in every way."""
    columns = [_labels(view, options, count) for view in views]
    mapper = EvaluationMapper(_config(views[0], options), DATASET, with_ground_truth=True)
    loader = build_detection_test_loader(_config(views[0], options), DATASET, mapper=mapper)
    outcomes = []
    for (record,), *found in zip(loader, *columns, strict=False):
        image = np.asarray(Image.open(record["file_name"]).convert("RGB"))
        outcomes.append(SceneOutcome(image, record["sem_seg"].numpy(), found))
    return outcomes


def _config(view: View, options: Sequence[str]) -> CfgNode:
    cfg: CfgNode = get_cfg()
    merge_config_file(cfg, str(view.config))
    merge_options(cfg, [*options, *view.generator])
    cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    cfg.DATALOADER.NUM_WORKERS = 0
    return cfg


def _labels(view: View, options: Sequence[str], count: int) -> list[LabelMap]:
    """Label maps of the first scenes."""
    cfg = _config(view, options)
    model = Trainer.build_model(cfg).eval()
    if view.weights is not None:
        Checkpointer(model).load(str(view.weights))
    model.set_test_dataset(DATASET)
    mapper = EvaluationMapper(cfg, DATASET, with_ground_truth=True)
    loader = build_detection_test_loader(cfg, DATASET, mapper=mapper)
    records = (record for _, (record,) in zip(range(count), loader, strict=False))
    return [model([record])[0]["sem_seg_labels"].cpu().numpy() for record in records]


def _gain(gain: Gain) -> str:
    """A number before and after, each with a bar."""
    bars = "".join(
        f'<div class="bar"><i class="{kind}" style="width:{value:.1f}%"></i></div>'
        for kind, value in (("before", gain.before), ("after", gain.after))
    )
    return (
        f'<div class="gain"><b>{html.escape(gain.title)}</b>'
        f"<p>{gain.before:.0f} <span>&rarr;</span> <strong>{gain.after:.0f}</strong> %</p>"
        f"{bars}</div>"
    )


def _scene(outcome: SceneOutcome, views: Sequence[View], kind: str) -> str:
    """The image, the truth and every view of one scene."""
    metadata = MetadataCatalog.get(DATASET)
    names = [name.partition(",")[0] for name in metadata.stuff_classes]
    colors = [tuple(color) for color in metadata.stuff_colors]
    inside = outcome.truth != metadata.ignore_label
    image = Image.fromarray(outcome.image)
    large = image.resize((image.width * SCALE, image.height * SCALE), Image.Resampling.BICUBIC)
    cells = [_figure(large, "image")]
    pictures = [("ground truth", outcome.truth)]
    for number, view in enumerate(views):
        caption = f"{view.title}: {outcome.right(number):.0f} % of the pixels right"
        pictures.append((caption, np.where(inside, outcome.found[number], -1)))
    for caption, labels in pictures:
        picture = draw_segments(outcome.image, labels, outcome.truth, names, colors)
        cells.append(_figure(picture, caption))
    return f'<section class="{kind}">{"".join(cells)}</section>'


def _figure(picture: Image.Image, caption: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode()
    text = html.escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/webp;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(header)}</th>" for header in table.headers)
    body = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in table.rows)
    kind = ' class="sortable"' if table.sortable else ""
    note = f"<p>{html.escape(table.note)}</p>" if table.note else ""
    return (
        f"<h2>{html.escape(table.title)}</h2>\n<div class='wide'><table{kind}>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}"
    )


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return f"<td>{html.escape(value)}</td>"
    return f'<td class="number">{"" if np.isnan(value) else f"{value:.1f}"}</td>'


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 90rem; padding: 1rem;
  color: #1c1c1c; background: #fff; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0 1rem; max-width: 60rem; }
h2 { margin: 2.2rem 0 .4rem; line-height: 1.2; }
.gains { display: grid; grid-template-columns: repeat(4, 1fr); gap: 1rem; }
.gain { border: 1px solid #ddd; border-radius: 8px; padding: .7rem 1rem; }
.gain b { font-weight: 500; }
.gain p { font-size: 1.5rem; margin: .1rem 0 .4rem; color: #666; }
.gain strong { color: #10702c; }
.bar { background: #eee; border-radius: 3px; margin: 3px 0; height: 8px; }
.bar i { display: block; height: 8px; border-radius: 3px; }
i.before { background: #9a9a9a; }
i.after { background: #10702c; }
section { display: grid; gap: .6rem; margin: .8rem 0; }
section.scene { grid-template-columns: repeat(5, 1fr); }
section.clearest { grid-template-columns: repeat(4, 1fr); }
figure { margin: 0; }
img { display: block; width: 100%; border-radius: 4px; }
figcaption { font-size: .85rem; color: #444; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.sortable th { cursor: pointer; text-decoration: underline dotted; }
@media (max-width: 60rem) {
  .gains, section.clearest { grid-template-columns: repeat(2, 1fr); }
  section.scene { grid-template-columns: repeat(3, 1fr); }
}
@media (max-width: 40rem) {
  section.scene, section.clearest { grid-template-columns: 1fr; }
  .gains { gap: .5rem; }
  .gain { padding: .5rem .7rem; }
}
"""
_SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.onclick = () => {
      const down = head.dataset.down = head.dataset.down === "1" ? "0" : "1";
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => {
        const [x, y] = [a, b].map(row => row.cells[column].textContent);
        const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return down === "1" ? -order : order;
      });
      table.tBodies[0].append(...rows);
    };
  });
}
"""
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>MaskCLIP++ quickstart</title>
<style>{style}</style>
</head>
<body>
<h1>A small CLIP that knew every word but had never seen a crowded scene learned to name regions
from ground-truth masks, also those of classes whose masks it never saw.</h1>
<div class="gains">{gains}</div>
{clearest}
<p>The scene below the numbers is the one of this page on which fine-tuning helps most. Hatched:
named wrongly. <em>Seen</em> classes had masks in training, <em>unseen</em> ones had none. Mask
accuracy is the share of ground-truth masks that get the right class, averaged over classes.</p>
<h2>The first {num_scenes} validation scenes</h2>
{scenes}
{tables}
<script>{script}</script>
</body>
</html>
"""
