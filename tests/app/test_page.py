"""The page in a real browser: what people press, type and see. Run by ``make test-page``.

Needs gradio, Playwright and a Chromium; without one of them, these tests are skipped.
"""

import base64
import io
import json
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.shapes_predictor import WORDS, picture, shapes_predictor, words_of_scene

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")

from maskclippp.app.page import serving  # noqa: E402
from maskclippp.cli.main import main  # noqa: E402

pytestmark = pytest.mark.processes
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ALONE = "gray brick wall"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving({"shapes": shapes_predictor(), "other": shapes_predictor()}, port=port) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
            )
        except sync_api.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}")
        yield started
        started.close()


@pytest.fixture
def foreign(address: str) -> list[str]:
    """Addresses of other hosts that the page asked for."""
    return []


@pytest.fixture
def page(browser: Any, address: str, foreign: list[str]) -> Iterator[Any]:
    opened = open_page(browser, address, foreign)
    yield opened
    opened.context.close()


def open_page(browser: Any, address: str, foreign: list[str], width: int = 1200) -> Any:
    def note(request: Any) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            foreign.append(request.url)

    opened = browser.new_context(viewport={"width": width, "height": 900}).new_page()
    opened.set_default_timeout(20_000)
    opened.on("request", note)
    opened.goto(address)
    opened.wait_for_selector("#segment")
    return opened


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "scene.png"
    Image.fromarray(picture()).save(path)
    return path


def upload(page: Any, file: Path) -> None:
    page.locator("#picture input[type=file]").set_input_files(file)
    page.wait_for_selector("#picture img")


def segment(page: Any, words: str) -> None:
    """Type words, press, and wait for the answer."""
    page.locator("#words textarea").fill(words)
    before = page.locator("#result img.overlay").count() and overlay_url(page)
    page.locator("#segment").click()
    page.wait_for_function(
        "before => { const image = document.querySelector('#result img.overlay');"
        " return image && image.src !== before }",
        arg=before,
    )


def overlay_url(page: Any) -> str:
    return str(page.locator("#result img.overlay").get_attribute("src"))


def shown(page: Any) -> np.ndarray[Any, Any]:
    """The pixels of the overlay."""
    data = base64.b64decode(overlay_url(page).partition("base64,")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def download(page: Any, button: str) -> bytes:
    with page.expect_download() as info:
        page.locator(f"#{button}").click()
    return Path(info.value.path()).read_bytes()


def legend(page: Any) -> list[str]:
    return page.locator("#result .legend .word").all_inner_texts()


def error_of(page: Any) -> str:
    return str(page.locator("#message .error").inner_text())


def test_a_picture_and_words_give_the_segmentation_of_the_predictor(
    page: Any, file: Path, foreign: list[str]
) -> None:
    upload(page, file)
    segment(page, "\n".join(words_of_scene()))
    expected = shapes_predictor().set_classes(words_of_scene())(picture())
    plain = np.asarray(expected.plot(legend=False)).astype(int)
    assert np.abs(shown(page) - plain).mean() < 4  # a lossy picture
    overlay = Image.open(io.BytesIO(download(page, "overlay")))
    assert np.array_equal(np.asarray(overlay), np.asarray(expected.plot()))
    index = np.asarray(Image.open(io.BytesIO(download(page, "index"))))
    assert np.array_equal(index, np.where(expected.labels < 0, 255, expected.labels))
    assert len(json.loads(download(page, "coco"))) == len(expected)
    assert set(legend(page)) == {found.label for found in expected.segments}
    assert foreign == []


def test_other_words_change_the_picture(page: Any, file: Path) -> None:
    upload(page, file)
    segment(page, "; ".join(WORDS))
    page.wait_for_selector("#chips li:nth-child(3)")
    assert [text.rstrip("×\n ") for text in page.locator("#chips li").all_inner_texts()] == WORDS
    first = shown(page)
    segment(page, f"{ALONE};")
    assert legend(page) == [ALONE]
    assert np.abs(shown(page) - first).max() > 30


def test_a_chip_takes_its_class_out_of_the_words(page: Any) -> None:
    words = page.locator("#words textarea")
    words.fill('cat, kitten; grass; <b>; "sky"')
    page.wait_for_selector("#chips li:nth-child(4)")
    page.locator("#chips button[aria-label='remove grass']").click()
    page.wait_for_function("document.querySelectorAll('#chips li').length === 3")
    assert words.input_value() == 'cat, kitten\n<b>\n"sky"'
    for left in (2, 1):
        page.locator("#chips button").last.focus()
        page.keyboard.press("Enter")
        page.wait_for_function(f"document.querySelectorAll('#chips li').length === {left}")
    assert words.input_value() == "cat, kitten;"
    assert page.locator("#chips li").inner_text().startswith("cat, kitten")


def test_a_lower_score_shows_more_objects(page: Any, file: Path) -> None:
    upload(page, file)
    assert not page.locator("#threshold").is_visible()
    page.locator("#task input").click()
    page.get_by_role("option", name="instance").click()
    page.wait_for_selector("#threshold")
    page.locator("#words textarea").fill("; ".join(words_of_scene()))
    shown = -1
    for score in ("0.9", "0"):
        page.locator("#threshold input[type=number]").fill(score)
        page.keyboard.press("Tab")
        page.locator("#segment").click()
        rows = "document.querySelectorAll('#result .legend li').length"
        page.wait_for_selector("#result img.overlay")
        page.wait_for_function(f"shown => {rows} > shown", arg=shown)
        shown = page.locator("#result .legend li").count()


def test_pointing_at_a_segment_tells_word_score_and_runners_up(page: Any, file: Path) -> None:
    upload(page, file)
    segment(page, "\n".join(words_of_scene()))
    expected = shapes_predictor().set_classes(words_of_scene())(picture())
    image = page.locator("#result img.overlay")
    image.scroll_into_view_if_needed()
    box = image.bounding_box()
    for row, column in ((20, 20), (100, 130), (180, 200)):
        x, y = (
            box["x"] + box["width"] * (column + 0.5) / 256,
            box["y"] + box["height"] * row / 192,
        )
        page.mouse.move(x, y)
        tip = page.locator("#result .tip").inner_text()
        label = expected.label(expected.labels[row, column])
        assert tip.startswith(label)
        assert re.search(r"\d %", tip)
        assert "then " in tip
        assert page.locator("#result .legend li.current .word").inner_text() == label
    page.keyboard.press("Escape")
    page.mouse.move(0, 0)
    assert not page.locator("#result .tip").is_visible()


def test_opacity_and_outlines_change_the_picture_and_the_download(page: Any, file: Path) -> None:
    upload(page, file)
    segment(page, "; ".join(WORDS))
    expected = shapes_predictor().set_classes(WORDS)(picture())
    before = download(page, "overlay")
    page.locator("#words textarea").fill("words that were typed later")
    page.locator("#opacity input[type=number]").fill("0")
    page.keyboard.press("Tab")
    page.locator("#outlines input").uncheck()
    without = np.asarray(expected.plot(opacity=0, outlines=False))
    for _ in range(40):
        page.wait_for_timeout(250)
        found = np.asarray(Image.open(io.BytesIO(download(page, "overlay"))))
        if found.shape == without.shape and np.array_equal(found, without):
            break
    assert np.array_equal(found, without)
    assert download(page, "overlay") != before


def test_an_example_is_segmented_with_the_keyboard_alone(page: Any) -> None:
    page.locator("button.gallery-item").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#chips li")
    page.wait_for_selector("#picture img")
    page.locator("#words textarea").focus()
    page.keyboard.press("Shift+Enter")
    page.wait_for_selector("#result img.overlay")
    page.locator("#result .legend li").first.focus()
    assert page.locator("#result .legend li.current").count() == 1
    assert page.locator("#result .legend li.current .more").is_visible()


def test_a_pasted_picture_is_taken(page: Any, file: Path) -> None:
    data = base64.b64encode(file.read_bytes()).decode()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(
        "async data => navigator.clipboard.write([new ClipboardItem({'image/png':"
        " await (await fetch('data:image/png;base64,' + data)).blob()})])",
        data,
    )
    page.locator("#picture button[aria-label*='lipboard'], #picture button").last.click()
    page.wait_for_selector("#picture img")
    segment(page, "; ".join(WORDS))
    expected = shapes_predictor().set_classes(WORDS)(picture())
    assert np.abs(shown(page) - np.asarray(expected.plot(legend=False))).mean() < 4


def test_errors_are_sentences_on_the_page(page: Any, file: Path) -> None:
    page.locator("#segment").click()
    assert "no picture: upload or paste one" in error_of(page)
    upload(page, file)
    page.locator("#segment").click()
    page.wait_for_function("document.querySelector('#message').innerText.includes('no words')")
    page.locator("#words textarea").fill("cat; <img src=x onerror='window.hacked = 1'>")
    page.locator("#segment").click()
    page.wait_for_function("document.querySelector('#message').innerText.includes('<img src')")
    assert page.locator("#message img, #chips img").count() == 0
    assert page.evaluate("window.hacked") is None


def test_a_wrong_file_is_named(page: Any, tmp_path: Path) -> None:
    wrong = tmp_path / "notes.png"
    wrong.write_text("no picture")
    page.locator("#picture input[type=file]").set_input_files(wrong)
    page.wait_for_selector("#picture img", state="attached")
    page.locator("#words textarea").fill("cat; dog")
    page.locator("#segment").click()
    message = error_of(page)
    assert message.startswith("image notes.png cannot be read")
    assert "/" not in message


def test_two_tabs_keep_their_own_words(
    browser: Any, address: str, foreign: list[str], file: Path
) -> None:
    tabs = [open_page(browser, address, foreign) for _ in range(2)]
    words = [words_of_scene()[0].split(",")[0], words_of_scene()[1].split(",")[0]]
    for tab, word in zip(tabs, words, strict=True):
        upload(tab, file)
        tab.locator("#words textarea").fill(f"{word};")
    for tab in tabs:
        tab.locator("#segment").click()
    for tab, word in zip(tabs, words, strict=True):
        tab.wait_for_selector("#result .legend li")
        assert legend(tab) == [word]
    for tab, word in zip(tabs, words, strict=True):
        before = overlay_url(tab)
        tab.locator("#outlines input").uncheck()
        tab.locator("#opacity input[type=number]").fill("0.9")
        tab.keyboard.press("Tab")
        tab.wait_for_function(
            "before => document.querySelector('#result img.overlay').src !== before", arg=before
        )
        assert legend(tab) == [word]
        tab.context.close()


def test_the_page_fits_a_phone(browser: Any, address: str, foreign: list[str], file: Path) -> None:
    phone = open_page(browser, address, foreign, width=360)
    upload(phone, file)
    segment(phone, "; ".join([*WORDS, "a very long word without end " * 4]))
    assert phone.evaluate("document.documentElement.scrollWidth") <= 360
    assert phone.locator("#result img.overlay").bounding_box()["width"] > 280
    phone.context.close()


def test_files_of_the_machine_are_not_served(page: Any, address: str) -> None:
    for path in ("/etc/passwd", str(Path(__file__).resolve())):
        answer = page.request.get(f"{address}gradio_api/file={path}")
        assert answer.status == 403


def test_a_file_over_the_limit_is_refused(address: str) -> None:
    files = {"files": ("large.png", bytes(21 * 2**20), "image/png")}
    with httpx.Client(trust_env=False, timeout=60) as client:
        assert client.post(f"{address}gradio_api/upload", files=files).status_code == 413


# gradio wants the port at 127.0.0.1, whichever host it serves.
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "no..host"])
def test_an_address_that_cannot_be_used_is_one_sentence(
    host: str, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    port = address.rstrip("/").rpartition(":")[2]
    with pytest.raises(SystemExit) as stopped:
        main(["serve", "--model", "shapes", "--device", "cpu", "--host", host, "--port", port])
    assert stopped.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(f"error: the page cannot be served at {host}:{port}")
