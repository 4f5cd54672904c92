"""What a config or a name needs of what is published elsewhere, and fetching it."""

import logging
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from maskclippp.clip.pretrained import find_pretrained
from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file
from maskclippp.errors import InputError, MissingFileError
from maskclippp.files.downloads import RemoteFile, check_recorded, download_all
from maskclippp.files.published import Published, of_config, of_file, published
from maskclippp.generators import check_generator
from maskclippp.predictor.models import DEFAULT, DEFAULT_CONFIG
from maskclippp.words.openseg import ORIGIN, openseg_folder, remote_files

logger = logging.getLogger("maskclippp.download")

_SHIPPED = ("", "random", "shapes")
_TOWERS = ("VISUAL_ENCODER", "TEXT_ENCODER", "VISUAL_ENCODER_F", "TEXT_ENCODER_F")


def download_vocabularies(origin: str | None = None) -> None:
    """Fetch the class lists that are not in the cache yet; see :func:`download_all`."""
    files = remote_files((origin or ORIGIN).rstrip("/"))
    fetched = download_all(files)
    logger.info("%d class lists in %s, %d of them new", len(files), openseg_folder(), fetched)


def download_entries(entries: Sequence[Published], origin: str | None = None) -> None:
    """Fetch published files, and check those that were fetched before.

    Raises:
        DownloadError, InputError: see :func:`download_all`; a file that is damaged, or that only a
            person can fetch.
    """
    files = []
    for entry in entries:
        if entry.tag:
            path = find_pretrained(entry.model_name, entry.tag).path
            logger.info("%s: %s", entry.name, path)
            continue
        assert entry.local is not None
        if entry.local.is_file():
            problem = check_recorded(entry.local)
            if problem:
                raise InputError(
                    f"{entry.local} is damaged: {problem}; delete it and give the command again"
                )
            logger.info("%s: %s is here", entry.name, entry.local)
        elif not entry.url:
            raise MissingFileError(f"{entry.name} has no address: {entry.how_to_get()}")
        else:
            files.append(RemoteFile(_at(entry.url, origin), entry.local))
    with tqdm(unit="B", unit_scale=True, disable=None if files else True) as bar:

        def show(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        download_all(files, show)
    for file in files:
        logger.info("%s", file.path)


def download_weights(config: str, origin: str | None = None) -> None:
    """Fetch everything that a config needs; the InputError says what must be done by hand.

    Args:
        config: a file, "default", or the name of a published model or generator, whose config is
            meant.
    """
    named = published().get(config)
    if config == DEFAULT:
        config = str(DEFAULT_CONFIG)
    elif named is not None and named.config:
        config = str(named.config_file)
    problems = []
    for entry in entries_of_config(config):
        try:
            download_entries([entry], origin)
        except InputError as error:
            problems.append(str(error))
    for key, file in files_of_config(config, download=True):
        if isinstance(file, InputError):
            problems.append(str(file))
        elif file is not None:
            logger.info("%s: %s", key.removesuffix(".PRETRAINED"), file)
    if problems:
        raise InputError("\n".join(dict.fromkeys(problems)))


def entries_of_config(config: str) -> list[Published]:
    """The published files that a config names, and its fine-tuned model."""
    cfg = get_cfg()
    merge_config_file(cfg, config)
    node = cfg.MODEL.MASKCLIPPP
    found = [of_config(config), of_file(node.SEGMENTOR.PRETRAINED), of_file(cfg.MODEL.WEIGHTS)]
    models = {node[tower].MODEL_NAME for tower in _TOWERS if node[tower].PRETRAINED not in _SHIPPED}
    clips = [e for e in published().values() if e.path and e.model_name in models]
    return list({entry.name: entry for entry in [*clips, *found] if entry is not None}.values())


def _at(url: str, origin: str | None) -> str:
    """The address at a mirror."""
    if origin is None:
        return url
    parts = urllib.parse.urlsplit(url)
    return origin.rstrip("/") + urllib.parse.urlunsplit(("", "", parts.path, parts.query, ""))


def files_of_config(
    config: str, *, download: bool
) -> Iterator[tuple[str, Path | InputError | None]]:
    """The files that a config needs: its key, and the file, or why it cannot be used.

    None: the mask generator lacks nothing.
    """
    cfg = get_cfg()
    merge_config_file(cfg, config)
    for tower in _TOWERS:
        node = cfg.MODEL.MASKCLIPPP[tower]
        key, name = f"{tower}.PRETRAINED", node.PRETRAINED
        if node.MODEL_NAME and name not in ("", "random"):
            yield key, _tried(partial(_pretrained, node, download=download))
        elif name not in ("", "random"):  # of a Swin Transformer
            yield key, _tried(partial(_local_file, key, name))
        if node.LOAD_FROM:
            key = f"{tower}.LOAD_FROM"
            yield key, _tried(partial(_local_file, key, node.LOAD_FROM))
    if cfg.MODEL.WEIGHTS:
        yield "MODEL.WEIGHTS", _tried(partial(_local_file, "MODEL.WEIGHTS", cfg.MODEL.WEIGHTS))
    generator = _tried(partial(check_generator, cfg))
    yield (
        f"SEGMENTOR {cfg.MODEL.MASKCLIPPP.SEGMENTOR.NAME}",
        generator if isinstance(generator, InputError) else None,
    )


def _tried(find: Callable[[], Any]) -> Any:
    try:
        return find()
    except InputError as error:
        return error


def _pretrained(node: Any, *, download: bool) -> Path:
    return find_pretrained(node.MODEL_NAME, node.PRETRAINED, download=download).path


def _local_file(key: str, file: str) -> Path:
    path = Path(file).expanduser()
    if not path.is_file():
        raise MissingFileError(f"{key}: {file} does not exist")
    return path
