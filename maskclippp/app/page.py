"""The page, and the server that shows it; needs gradio."""

import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from maskclippp.app import markup
from maskclippp.app.examples import draw_examples
from maskclippp.app.studio import MAX_CHARACTERS, Request, Studio, split_words
from maskclippp.errors import InputError
from maskclippp.predictor import INSTANCE_THRESHOLD, Predictor
from maskclippp.segmentation import Segmentation
from maskclippp.segmentation.saving import ENDINGS

MAX_UPLOAD = "20mb"
MAX_WAITING = 32
_MAX_SESSIONS = 1000
_HOUR = 3600
_TASKS = ("semantic", "panoptic", "instance")
_OPACITY = 0.5
_FOLDER = Path(__file__).parent
# A browser that follows it asks no other host for anything. Gradio makes its parts from text.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'; "
    "form-action 'self'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_INTRODUCTION = """# MaskCLIP++
Choose a picture, type what to look for, and press *Segment*. Words can be changed at any time:
the picture is encoded only once."""
_HINT = "One class per line, or after a semicolon; synonyms after commas. “sky, dog” alone: two."


class Page:
    """The parts of the page and what they do.

    Args:
        studio: answers the requests.
        folder: private, for examples, uploads and downloads.
    """

    def __init__(self, studio: Studio, folder: Path) -> None:
        self._studio = studio
        self._folder = folder
        with gr.Blocks(
            title="MaskCLIP++", analytics_enabled=False, delete_cache=(_HOUR, 24 * _HOUR)
        ) as self.blocks:
            gr.Markdown(_INTRODUCTION)
            # A request, once it was answered: of this person and tab only.
            self._shown = gr.State(None)
            with gr.Row():
                with gr.Column(min_width=300):
                    self._build_inputs()
                with gr.Column(min_width=300):
                    self._build_outputs()
            self._connect()

    def _build_inputs(self) -> None:
        self._picture = gr.Image(
            label="Picture",
            type="filepath",
            sources=["upload", "clipboard"],
            buttons=[],
            height=260,
            elem_id="picture",
            alt_text="the chosen picture",
        )
        # The file as it was uploaded; a wrong one is described by our own reader.
        self._picture.preprocess = lambda payload: payload and payload.path
        self._words = gr.Textbox(
            label="Words",
            info=_HINT,
            lines=3,
            max_lines=12,
            max_length=MAX_CHARACTERS,
            placeholder="cat, kitten; grass",
            elem_id="words",
            render=False,
        )
        examples = self._folder / "examples"
        examples.mkdir()
        gr.Examples(
            [[str(path), words] for path, words in draw_examples(examples)],
            [self._picture, self._words],
            visible_columns=[0],
            label="Examples: drawn scenes, with words",
            cache_examples=False,
            api_visibility="private",
        )
        self._words.render()
        self._chips = gr.HTML(elem_id="chips", js_on_load=_script("chips.js"))
        with gr.Row():
            self._model = gr.Dropdown(
                list(self._studio.models), label="Model", elem_id="model", min_width=140
            )
            self._task = gr.Dropdown(list(_TASKS), label="Task", elem_id="task", min_width=140)
        self._threshold = gr.Slider(
            *(0, 1, INSTANCE_THRESHOLD),
            step=0.05,
            label="Least score of an object",
            elem_id="threshold",
            visible=False,
        )
        self._button = gr.Button("Segment", variant="primary", elem_id="segment")
        self._message = gr.HTML(elem_id="message", js_on_load=None)

    def _build_outputs(self) -> None:
        waiting = markup.message("The segments will be here.")
        self._result = gr.HTML(
            waiting, elem_id="result", js_on_load=_script("page.js"), min_height=120
        )
        with gr.Row():
            self._opacity = gr.Slider(
                0, 1, _OPACITY, step=0.05, label="Opacity", elem_id="opacity", min_width=160
            )
            self._outlines = gr.Checkbox(True, label="Outlines", elem_id="outlines", min_width=120)
        with gr.Row():
            self._downloads = [
                gr.DownloadButton(label, interactive=False, size="sm", min_width=90, elem_id=name)
                for name, label in (
                    ("overlay", "Overlay"),
                    ("index", "Index PNG"),
                    ("coco", "JSON"),
                )
            ]

    def _connect(self) -> None:
        self._words.change(
            lambda text: markup.chips(split_words(text)),
            self._words,
            self._chips,
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
        self._task.change(
            lambda task: gr.Slider(visible=task == "instance"),
            self._task,
            self._threshold,
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
        style = [self._opacity, self._outlines]
        gr.on(
            [self._button.click, self._words.submit],
            self._segment,
            [self._picture, self._words, self._model, self._task, self._threshold, *style],
            [self._message, self._result, self._shown, *self._downloads],
            show_progress_on=self._result,
            concurrency_id="model",
            api_visibility="private",
        )
        gr.on(
            [self._opacity.change, self._outlines.change],
            self._draw_again,
            [self._shown, *style],
            [self._message, self._result, self._downloads[0]],
            trigger_mode="always_last",
            show_progress="hidden",
            concurrency_id="model",
            api_visibility="private",
        )

    def _segment(
        self,
        picture: str | None,
        text: str,
        model: str,
        task: Any,
        threshold: float,
        opacity: float,
        outlines: bool,
    ) -> list[Any]:
        try:
            if picture is None:
                raise InputError("no picture: upload or paste one, or choose an example")
            request = Request(model, Path(picture), split_words(text or ""), task, threshold)
            found = self._studio.segment(request)
        except InputError as error:
            return [markup.message(error.sentence, is_error=True), *[gr.skip()] * 5]
        html, overlay = self._draw(found, opacity, outlines)
        others = [found.save(self._new_file(found, kind)) for kind in ("index", "coco")]
        files = [
            gr.DownloadButton(value=str(file), interactive=True) for file in (overlay, *others)
        ]
        return [markup.message(_report(found)), html, request, *files]

    def _draw_again(self, shown: Request | None, opacity: float, outlines: bool) -> list[Any]:
        if shown is None:
            return [gr.skip()] * 3
        try:
            found = self._studio.segment(shown)
        except InputError as error:
            return [markup.message(error.sentence, is_error=True), gr.skip(), gr.skip()]
        html, overlay = self._draw(found, opacity, outlines)
        return [gr.skip(), html, str(overlay)]

    def _draw(self, found: Segmentation, opacity: float, outlines: bool) -> tuple[str, Path]:
        """The HTML, and the overlay as a file, with a legend."""
        picture = found.plot(opacity=opacity, outlines=outlines)
        file = self._new_file(found, "overlay")
        picture.save(file, compress_level=1)
        height, width = found.orig_shape
        return markup.result(found, picture.crop((0, 0, width, height))), file

    def _new_file(self, found: Segmentation, kind: str) -> Path:
        assert found.path is not None
        # Others cannot guess the folder.
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        return folder / f"{found.path.stem}{ENDINGS[kind]}"


def _set_environment(folder: str, host: str) -> None:
    """What gradio reads from the environment only."""
    # Its place for uploads is shared by all users of a machine otherwise.
    os.environ["GRADIO_TEMP_DIR"] = folder
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # It calls its own server once, which a proxy does not reach.
    for name in ("no_proxy", "NO_PROXY"):
        hosts = dict.fromkeys(
            [*os.environ.get(name, "").split(","), "localhost", "127.0.0.1", host]
        )
        os.environ[name] = ",".join(filter(None, hosts))


def _theme() -> Any:
    """Only fonts of the visitor's device; hints that can be read."""
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    return theme.set(
        block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300"
    )


def _script(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _report(found: Segmentation) -> str:
    height, width = found.orig_shape
    segments = "1 segment" if len(found) == 1 else f"{len(found)} segments"
    if len(found) == 0:
        lower = ", a lower score" if found.task == "instance" else ""
        segments = f"nothing is likely enough; try other words{lower}, or the task semantic"
    return f"{found.path} ({width} x {height} pixels): {segments}"


def check_address(host: str, port: int) -> None:
    """Raise an InputError if the page cannot be served there."""
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(address)
    except (OSError, UnicodeError) as error:
        raise _no_address(host, port, error) from error


def _no_address(host: str, port: int, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or error
    return InputError(
        f"the page cannot be served at {host}:{port} ({reason}): choose another --port or --host"
    )


@contextmanager
def serving(
    predictors: Mapping[str, Predictor], host: str = "127.0.0.1", port: int = 7860
) -> Iterator[str]:
    """Serve the page while the block runs; yields its address.

    Raises:
        InputError: the address or port cannot be used.
    """
    check_address(host, port)
    with tempfile.TemporaryDirectory(prefix="maskclippp_") as folder:
        _set_environment(folder, host)
        blocks = Page(Studio(predictors), Path(folder)).blocks
        blocks.queue(max_size=MAX_WAITING, default_concurrency_limit=1)
        try:
            _, url, _ = blocks.launch(
                server_name=host,
                server_port=port,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                run_history=False,
                footer_links=[],
                max_file_size=MAX_UPLOAD,
                state_session_capacity=_MAX_SESSIONS,
                app_kwargs={"middleware": [Middleware(_WithHeaders)]},
                theme=_theme(),
                css_paths=_FOLDER / "page.css",
            )
        except OSError as error:  # somebody was faster, or gradio needs another address as well
            raise _no_address(host, port, error) from error
        try:
            yield url
        finally:
            blocks.close(verbose=False)


class _WithHeaders:
    """Adds headers to every answer (an ASGI application)."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(part: Any) -> None:
            if part["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                part = {**part, "headers": [*part.get("headers", []), *added]}
            await send(part)

        await self._app(scope, receive, send_with_headers)
