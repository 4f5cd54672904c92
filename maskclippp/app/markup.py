"""The HTML of the page. Everything that people typed, and every name of a file, is escaped."""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from maskclippp.segmentation import Segmentation
from maskclippp.segmentation.result import Segment
from maskclippp.visualization import Color, word_colors

_RUNNERS_UP = 3
_MOST_CHIPS = 100
_REMOVE = (
    '<button type="button" class="remove" data-name="{0}" aria-label="remove {0}">&times;</button>'
)
_CONTROL = dict.fromkeys(range(32), "�")


def chips(classes: Sequence[str]) -> str:
    """One chip per class, in its color, with its synonyms; if all are shown, with a button each.

    The button is for the page's script, which takes the class out of the words.
    """
    names = [_escaped(name) for name in classes[:_MOST_CHIPS]]
    button = _REMOVE if len(classes) <= _MOST_CHIPS else ""
    items = [
        f"<li>{_swatch(color)}{name}{button.format(name)}</li>"
        for name, color in zip(names, word_colors(classes), strict=False)
        if name
    ]
    if len(classes) > _MOST_CHIPS:
        items.append(f"<li>and {len(classes) - _MOST_CHIPS:,} more</li>")
    count = f"{len(classes):,} class{'' if len(classes) == 1 else 'es'}"
    return f'<ul class="chips" aria-label="{count}">{"".join(items)}</ul>' if classes else ""


def message(text: str, *, is_error: bool = False) -> str:
    """A sentence, which a screen reader reads out."""
    kind = 'class="message error" role="alert"' if is_error else 'class="message" role="status"'
    return f"<p {kind}>{_escaped(text)}</p>" if text else ""


def result(found: Segmentation, overlay: Image.Image) -> str:
    """The overlay, with what the page's script needs to tell the segment below the pointer.

    Args:
        overlay: RGB, as large as the image.
    """
    colors = word_colors(found.names)
    rows = [
        _legend_row(segment, colors[segment.label_id], found)
        for segment in sorted(found.segments, key=lambda segment: -segment.area)
    ]
    return (
        '<figure class="view">'
        f'<img class="overlay" alt="{_escaped(found.summary())}" src="{_url(overlay, "WEBP")}">'
        f'<img class="ids" alt="" hidden src="{_url(_segment_ids(found), "PNG")}">'
        '<canvas class="marked" aria-hidden="true"></canvas>'
        '<div class="tip" aria-hidden="true" hidden></div>'
        "</figure>"
        f'<ul class="legend" aria-label="segments">{"".join(rows)}</ul>{_not_found(found)}'
    )


def _legend_row(segment: Segment, color: Color, found: Segmentation) -> str:
    height, width = found.orig_shape
    others = [pair for pair in segment.top_k if pair[0] != segment.label][:_RUNNERS_UP]
    then = ", ".join(f"{_escaped(name)} {_percent(score)}" for name, score in others)
    runners_up = f'<span class="more">then {then}</span>' if then else ""
    return (
        f'<li tabindex="0" data-segment="{segment.id}">{_swatch(color)}'
        f'<span class="word">{_escaped(segment.label)}</span> '
        f'<span class="score">{_percent(segment.score)}</span> '
        f'<span class="area">{_percent(segment.area / (height * width))} of the picture</span> '
        f"{runners_up}</li>"
    )


def _not_found(found: Segmentation) -> str:
    present = {segment.label_id for segment in found.segments}
    absent = [name for index, name in enumerate(found.names) if index not in present]
    if not absent:
        return ""
    listed = "; ".join(map(_escaped, absent[:_MOST_CHIPS]))
    more = f" and {len(absent) - _MOST_CHIPS:,} more" if len(absent) > _MOST_CHIPS else ""
    return f'<p class="absent">Not found: {listed}{more}</p>'


def _segment_ids(found: Segmentation) -> Image.Image:
    """RGB: the segment of every pixel is R + 256 G, 0 for none; the best instance lies on top."""
    ids = np.zeros(found.orig_shape, dtype=np.uint16)
    for number in reversed(range(len(found))):
        ids[found.masks[number]] = number + 1
    return Image.fromarray(np.stack([ids & 255, ids >> 8, 0 * ids], axis=-1).astype(np.uint8))


def _url(picture: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, quality=90)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _swatch(color: Color) -> str:
    return f'<span class="swatch" style="background:rgb{color}"></span>'


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 or share == 0 else "&lt; 1 %"


def _escaped(text: str) -> str:
    return escape(text.translate(_CONTROL))
