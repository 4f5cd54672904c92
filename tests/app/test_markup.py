"""The HTML of the page: what it shows, and that nothing in it is markup of a visitor."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskclippp.app import markup
from maskclippp.segmentation import Segmentation
from maskclippp.visualization import word_colors
from tests.shapes_predictor import picture, shapes_predictor, words_of_scene

HOSTILE = """<img src=x onerror="alert('1')">&amp;\x00"""


class Tags(HTMLParser):
    """All tags of a text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        assert not {name for name, _ in attrs if name.startswith("on")}


@pytest.fixture
def found() -> Segmentation:
    return shapes_predictor().set_classes(words_of_scene())(picture())


def test_words_and_names_cannot_be_markup(found: Segmentation) -> None:
    assert Tags(markup.chips([HOSTILE])).found == ["ul", "li", "span", "button"]
    assert Tags(markup.message(HOSTILE, is_error=True)).found == ["p"]
    plain = Tags(markup.result(found, found.plot(legend=False))).found
    found.path = Path(HOSTILE.replace("/", ""))
    found.names = (*found.names, HOSTILE)  # an absent class
    html = markup.result(found, found.plot(legend=False))
    assert [tag for tag in Tags(html).found if tag != "p"] == [t for t in plain if t != "p"]
    assert "&lt;img src=x" in html


def test_a_chip_has_the_color_of_its_word_in_the_picture() -> None:
    html = markup.chips(["cat, kitten", "grass"])
    colors = re.findall(r"rgb(\([\d, ]+\))", html)
    assert colors == [str(color) for color in word_colors(["cat, kitten", "grass"])]
    assert "and 20 more" in markup.chips([f"w{i}" for i in range(120)])
    assert markup.chips([]) == ""


def test_the_script_finds_the_segment_of_every_pixel(found: Segmentation) -> None:
    html = markup.result(found, found.plot(legend=False))
    (data,) = re.findall(r'class="ids"[^>]*base64,([^"]+)"', html)
    ids = np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int)
    ids = ids[..., 0] + 256 * ids[..., 1]
    for segment, mask in zip(found.segments, found.masks, strict=True):
        assert np.array_equal(ids == segment.id, mask)


def test_the_legend_has_word_score_and_runners_up(found: Segmentation) -> None:
    html = markup.result(found, found.plot(legend=False))
    rows = re.findall(r'<li tabindex="0" data-segment="(\d+)">(.*?)</li>', html)
    assert len(rows) == len(found)
    largest = max(found.segments, key=lambda segment: segment.area)
    assert int(rows[0][0]) == largest.id
    assert largest.label in rows[0][1]
    assert f"{100 * largest.score:.0f} %" in rows[0][1]
    runner_up = next(name for name, _ in largest.top_k if name != largest.label)
    assert f"then {runner_up}" in rows[0][1]
