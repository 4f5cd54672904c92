"""Merges config files and command-line options into a configuration, with errors that help.

A file and its ``_BASE_`` files are merged as plain data before yacs merges the result, key by key,
first into a copy: an error leaves the configuration unchanged. The error classes include those that
detectron2's ``merge_from_file`` and ``merge_from_list`` raise.
"""

import difflib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import CfgNode

from maskclippp.config.yaml_files import read_yaml
from maskclippp.errors import InputError, MissingFileError
from maskclippp.files.published import CONFIGS

BASE_KEY = "_BASE_"
# What a list may hold, by the type of its default entries.
_ACCEPTED: dict[type, Any] = {int: int, float: (int, float), str: str}
_MAY_BE_INFINITE = {"SOLVER.CLIP_GRADIENTS.NORM_TYPE"}  # the maximum norm
# MemoryError: Python's parser refuses a value of thousands of signs or brackets.
_YACS_ERRORS = (AssertionError, AttributeError, LookupError, MemoryError, TypeError, ValueError)


class ConfigError(InputError, AssertionError):
    """An option without a value, or a file written for another version of the keys."""


class UnknownKeyError(ConfigError, KeyError):
    """A file or an option sets a key that the configuration does not have."""


class ConfigFileMissingError(MissingFileError, AssertionError):
    """A config file, or one that its ``_BASE_`` names, does not exist."""


class Setting(NamedTuple):
    """The value of a key and the file that sets it."""

    value: Any
    origin: Path


def merge_config_file(cfg: CfgNode, path: str | Path) -> None:
    """Merge a YAML file and its ``_BASE_`` files into ``cfg``, in place.

    Raises:
        ConfigFileMissingError: a file does not exist.
        UnknownKeyError: names the file and the nearest valid key.
        ConfigError: a file for another VERSION.
        InputError: a wrong type, invalid YAML, or a circular or remote ``_BASE_``.
    """
    settings = load_config_file(path)
    version = settings.get("VERSION")
    if version is not None and version.value != cfg.get("VERSION"):
        raise ConfigError(
            f"Cannot merge {version.origin}: expected VERSION: {cfg.get('VERSION')}, "
            f"found {version.value}"
        )
    for target in (cfg.clone(), cfg):
        for key, (value, origin) in settings.items():
            place = f"in {origin}"
            with _explained(target, key, value, place):
                check_value(target, key, value, place)
                target.merge_from_other_cfg(type(cfg)(_nested(key, value)))


def merge_options(cfg: CfgNode, options: Sequence[Any]) -> None:
    """Merge KEY VALUE pairs of the command line into ``cfg``, in place.

    A value that is a Python literal is parsed as one: ``"0.1"`` is a float, ``"(1, 2)"`` a tuple,
    ``"True"`` a bool; ``"true"`` stays a string.

    Raises:
        ConfigError: a key without a value.
        UnknownKeyError: names the nearest valid key.
        InputError: a wrong type.
    """
    options = list(options)
    if len(options) % 2:
        raise ConfigError(
            f"Override list has odd length: {options}; it must be a list of pairs: KEY VALUE, "
            "separated by blanks, without '='"
        )
    pairs = list(zip(options[0::2], options[1::2], strict=True))
    for target in (cfg.clone(), cfg):
        for key, text in pairs:
            if str(key).startswith("--"):
                raise UnknownKeyError(
                    f"Non-existent key: {key} on the command line: flags come before the KEY VALUE "
                    "pairs"
                )
            place = "on the command line"
            if key in _MAY_BE_INFINITE and text == ".inf":  # yacs knows Python's numbers only
                text = math.inf
            with _explained(target, key, text, place):
                check_value(target, key, text, place)
                target.merge_from_list([key, text])


def load_config_file(path: str | Path) -> dict[str, Setting]:
    """Read a YAML file and the files its ``_BASE_`` names; the file's own values win.

    ``_BASE_`` is a path or a list of paths (later ones win), relative to the file, absolute, or
    beginning with ``~``.

    Returns:
        A setting per full key, such as "SOLVER.BASE_LR".

    Raises:
        InputError: see :func:`merge_config_file`.
    """
    return _load(_local_path(str(path), "config file"), ())


def _load(path: Path, below: tuple[Path, ...]) -> dict[str, Setting]:
    """``below``: the files whose bases lead here, to detect circles."""
    if not path.is_file():
        message = f"Config file '{path}' does not exist!"
        if below:
            message += f" It is the {BASE_KEY} of {below[-1]}; paths are relative to that file."
        elif path.parts[:1] == ("configs",) and (shipped := CONFIGS.parent / path).is_file():
            message += f" The installed package has it: {shipped}"
        raise ConfigFileMissingError(message)
    if path.resolve() in [other.resolve() for other in below]:
        circle = " -> ".join(str(file) for file in (*below, path))
        raise InputError(f"circular {BASE_KEY}: {circle}; remove one of them")
    values = read_yaml(path)
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold KEY: VALUE lines, found a {type(values).__name__}")
    settings: dict[str, Setting] = {}
    for base in _base_paths(values.pop(BASE_KEY, []), path):
        _override(settings, _load(base, (*below, path)))
    _override(settings, dict(_leaves(values, path)))
    return settings


def _base_paths(base: Any, path: Path) -> list[Path]:
    bases = [base] if isinstance(base, str) else base
    if not isinstance(bases, list) or not all(isinstance(name, str) for name in bases):
        raise InputError(f"{path}: {BASE_KEY} must be a path or a list of paths, found {base!r}")
    return [path.parent / _local_path(name, f"{BASE_KEY} of {path}") for name in bases]


def _local_path(name: str, what: str) -> Path:
    if "://" in name:
        raise InputError(
            f"{what} is {name}: remote files are refused; download it and name the local copy"
        )
    return Path(name).expanduser()


def _leaves(values: dict[str, Any], origin: Path, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Full key and setting of everything that is not a section; empty sections included."""
    for key, value in values.items():
        full_key = f"{prefix}{key}"
        if not isinstance(key, str) or "." in key:
            remedy = f"; write {_as_sections(full_key)}" if isinstance(key, str) else ""
            raise InputError(
                f"{origin}: keys are text without dots, found {full_key} ({key!r}){remedy}"
            )
        if isinstance(value, dict) and value:
            yield from _leaves(value, origin, f"{full_key}.")
        else:
            yield full_key, Setting(value, origin)


def _override(settings: dict[str, Setting], by: dict[str, Setting]) -> None:
    """Merge ``by`` into ``settings``: sections merge, everything else replaces."""
    for key, new in by.items():
        parts = key.split(".")
        sections = [".".join(parts[:end]) for end in range(1, len(parts))]
        for section in [*sections, key] if new.value == {} else sections:
            old = settings.get(section)
            if old is not None and old.value != {}:
                raise InputError(
                    f"{old.origin}: {section} is {old.value!r}, but {new.origin}, which builds on "
                    "this file, makes it a section with keys of its own"
                )
        if new.value != {}:
            for inner in [other for other in settings if other.startswith(f"{key}.")]:
                del settings[inner]
        settings[key] = new


def check_value(cfg: CfgNode, full_key: str, value: Any, place: str) -> None:
    """Check what yacs does not: numbers are finite, and lists hold what their defaults hold.

    Raises:
        InputError: names the key, the place, what is expected and what is found.
    """
    value = cfg._decode_cfg_value(value) if isinstance(value, str) else value
    finite = full_key not in _MAY_BE_INFINITE or value != math.inf
    if finite and any(isinstance(n, float) and not math.isfinite(n) for n in _flat(value)):
        raise InputError(f"{full_key} {place}: expected finite numbers, found {value!r}")
    present: Any = cfg
    for part in full_key.split("."):
        present = present.get(part) if isinstance(present, CfgNode) else None
    if not isinstance(present, list | tuple) or not isinstance(value, list | tuple):
        return
    kinds = {type(entry) for entry in present}
    kind = kinds.pop() if len(kinds) == 1 else object
    accepted = _ACCEPTED.get(kind, object)
    wrong = [v for v in value if isinstance(v, bool) or not isinstance(v, accepted)]
    if kind in _ACCEPTED and wrong:
        raise InputError(
            f"{full_key} {place}: expected {kind.__name__} values such as {present!r}, found "
            f"{wrong[0]!r} in {value!r}"
        )


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        yield value
        return
    for entry in value:
        yield from _flat(entry)


def _as_sections(full_key: str) -> str:
    """``"A.B"`` -> ``"A: {B: ...}"``."""
    *sections, key = full_key.split(".")
    return "".join(f"{name}: {{" for name in sections) + f"{key}: ..." + "}" * len(sections)


def _nested(full_key: str, value: Any) -> dict[str, Any]:
    for part in reversed(full_key.split(".")):
        value = {part: value}
    return value


@contextmanager
def _explained(cfg: CfgNode, full_key: str, value: Any, place: str) -> Iterator[None]:
    """Raise an :class:`InputError` that says why yacs refuses a setting, and the remedy."""
    try:
        yield
    except InputError:
        raise
    except _YACS_ERRORS as error:
        if cfg.key_is_renamed(full_key):
            raise UnknownKeyError(str(error.args[0])) from error
        raise _explanation(cfg, full_key, value, place) from error


def _explanation(cfg: CfgNode, full_key: str, value: Any, place: str) -> InputError:
    node: Any = cfg
    parts = full_key.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(node, CfgNode):
            section = ".".join(parts[:depth])
            return InputError(f"{section} is a value ({node!r}) and has no keys of its own {place}")
        if part not in node:
            return UnknownKeyError(
                f"Non-existent key: {full_key} ({place}). Did you mean {_nearest(cfg, full_key)}?"
            )
        node = node[part]
    found = repr(value)
    with suppress(MemoryError):
        value = cfg._decode_cfg_value(value)
        found = repr(value)
    expected = f"{type(node).__name__} (such as {node!r})"
    if isinstance(node, CfgNode):
        expected = "a section with keys of its own"
    return InputError(
        f"Type mismatch for config key {full_key} {place}: expected {expected}, "
        f"found {type(value).__name__} {found[:200]}.{_type_remedy(value, node)}"
    )


def _type_remedy(value: Any, present: Any) -> str:
    if isinstance(present, bool):
        return " Write True or False."
    if isinstance(present, float) and type(value) is int:
        return f" Write {value}.0."
    if isinstance(present, tuple):
        return f" Write ({value!r},)."
    return ""


def _nearest(cfg: CfgNode, full_key: str) -> str:
    """The valid key that was most likely meant."""
    valid = sorted(_all_keys(cfg))
    # The right name in a wrong section is more likely than a similar spelling of the whole.
    last = full_key.rsplit(".", 1)[-1]
    same_name = [key for key in valid if key.rsplit(".", 1)[-1] == last]
    return difflib.get_close_matches(full_key, same_name or valid, n=1, cutoff=0.0)[0]


def _all_keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, CfgNode):
            yield from _all_keys(value, f"{prefix}{key}.")
