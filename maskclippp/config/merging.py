"""Config files and command-line options, laid over a configuration with errors that help.

A YAML file may name files that it builds on in ``_BASE_``. The values of the whole chain are merged
as plain data, checked against the configuration, and only then laid over it: after an error the
configuration is what it was. No YAML tag is ever executed (:mod:`maskclippp.config.yaml_files`).

The error classes are those that detectron2's own ``merge_from_file`` and ``merge_from_list`` raise,
or subclasses of them.
"""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from maskclippp.config.yaml_files import read_yaml
from maskclippp.errors import InputError, MissingFileError

BASE_KEY = "_BASE_"
COMMAND_LINE = "on the command line"

_LEAF_TYPES = (int, float, str, bool, list, tuple, type(None))


class UnknownKeyError(InputError, KeyError):
    """A file sets a key that the configuration does not have."""


class UnknownOptionError(UnknownKeyError, AssertionError):
    """The command line sets a key that the configuration does not have."""


class OddOptionsError(InputError, AssertionError):
    """The command line sets a key without a value."""


class ConfigFileMissingError(MissingFileError, AssertionError):
    """A config file, or one that its ``_BASE_`` names, does not exist."""


class ConfigVersionError(InputError, AssertionError):
    """A config file is written for another version of the keys."""


@dataclass
class ConfigFile:
    """The plain data of a file and its bases.

    Attributes:
        values: nested dictionaries.
        origins: which file set a key; the key in full, with dots.
    """

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Path] = field(default_factory=dict)


def merge_config_file(cfg: CfgNode, path: str | Path) -> None:
    """Lay the values of a YAML file and its ``_BASE_`` files over ``cfg``, in place.

    Raises:
        FileNotFoundError, AssertionError: a file is missing (one error of both classes).
        KeyError: an unknown key; names the file and the nearest valid key.
        ValueError: wrong type (names key, file, expected, found), no plain YAML, a circular or
            remote ``_BASE_``, or a file for another VERSION (also an AssertionError).
    """
    file = load_config_file(path)
    _check_version(cfg, file)
    for full_key, value in _leaves(file.values):
        origin = file.origins[full_key]
        if not _is_ignored(cfg, full_key):
            _check_file_value(cfg, full_key, value, origin)
    cfg.merge_from_other_cfg(type(cfg)(file.values))


def merge_options(cfg: CfgNode, options: Sequence[Any]) -> None:
    """Lay KEY VALUE pairs of the command line over ``cfg``, in place.

    Text is read as a Python literal where it is one: ``"0.1"`` is a float, ``"(1, 2)"`` a tuple,
    ``"True"`` a bool, ``"true"`` a text.

    Raises:
        AssertionError: a key without a value, or an unknown key (also a KeyError; names the nearest
            valid one).
        ValueError: wrong type.
    """
    options = list(options)
    if len(options) % 2:
        raise OddOptionsError(
            f"Override list has odd length: {options}; it must be a list of pairs: KEY VALUE, "
            "separated by blanks, without '='"
        )
    for full_key, text in zip(options[0::2], options[1::2], strict=True):
        if str(full_key).startswith("--"):
            raise UnknownOptionError(
                f"Non-existent key: {full_key} {COMMAND_LINE}: flags come before the KEY VALUE "
                "pairs"
            )
        if _is_ignored(cfg, full_key):
            continue
        node, known = _descend(cfg, full_key)
        if not known:
            raise UnknownOptionError(_unknown(cfg, full_key, COMMAND_LINE, "Non-existent key"))
        _check_type(full_key, cfg._decode_cfg_value(text), node, COMMAND_LINE)
    cfg.merge_from_list(options)


def load_config_file(path: str | Path) -> ConfigFile:
    """Read a YAML file and the files its ``_BASE_`` names; the file's own values win.

    ``_BASE_`` is a path or a list of paths (later ones win), relative to the file, absolute, or
    beginning with ``~``.

    Raises:
        FileNotFoundError, ValueError: as :func:`merge_config_file`.
    """
    return _load(_local_path(str(path), "config file"), ())


def _load(path: Path, below: tuple[Path, ...]) -> ConfigFile:
    """``below``: the files whose bases lead here, to find circles."""
    if not path.is_file():
        message = f"Config file '{path}' does not exist!"
        if below:
            message += f" It is the {BASE_KEY} of {below[-1]}; paths are relative to that file."
        raise ConfigFileMissingError(message)
    resolved = path.resolve()
    if resolved in [other.resolve() for other in below]:
        circle = " -> ".join(str(file) for file in (*below, path))
        raise InputError(f"circular {BASE_KEY}: {circle}; remove one of them")
    values = read_yaml(path)
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold KEY: VALUE lines, found a {type(values).__name__}")
    result = ConfigFile()
    for base in _base_paths(values.pop(BASE_KEY, []), path):
        base_file = _load(base, (*below, path))
        _merge(base_file.values, result, base_file.origins)
    _merge(values, result, path)
    return result


def _base_paths(base: Any, path: Path) -> list[Path]:
    bases = [base] if isinstance(base, str) else base
    if not isinstance(bases, list) or not all(isinstance(name, str) for name in bases):
        raise InputError(f"{path}: {BASE_KEY} must be a path or a list of paths, found {base!r}")
    return [path.parent / _local_path(name, f"{BASE_KEY} of {path}") for name in bases]


def _local_path(name: str, what: str) -> Path:
    if "://" in name:
        raise InputError(f"{what} is {name}: remote files are refused; download it, name the copy")
    return Path(name).expanduser()


def _merge(values: dict[str, Any], into: ConfigFile, origin: Path | dict[str, Path]) -> None:
    """Lay ``values`` over ``into``: dictionaries merge, everything else replaces.

    ``origin``: the file of all values, or of each by its full key.
    """

    def file_of(full_key: str) -> Path:
        return origin if isinstance(origin, Path) else origin[full_key]

    def merge(source: dict[str, Any], target: dict[str, Any], prefix: str) -> None:
        for key, value in source.items():
            full_key = f"{prefix}{key}"
            if not isinstance(key, str):
                raise InputError(f"{origin}: keys are text, found {full_key} ({key!r})")
            if isinstance(value, dict):
                inner = target.setdefault(key, {})
                if not isinstance(inner, dict):
                    raise InputError(
                        f"{into.origins[full_key]}: {full_key} has keys of its own in a file that "
                        f"builds on it, but here it is {inner!r}"
                    )
                if not value:
                    into.origins.setdefault(full_key, file_of(full_key))
                merge(value, inner, full_key + ".")
            else:
                target[key] = value
                into.origins[full_key] = file_of(full_key)

    merge(values, into.values, "")


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Full key and value of everything that is no dictionary, or an empty one."""
    for key, value in values.items():
        full_key = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield from _leaves(value, full_key + ".")
        else:
            yield full_key, value


def _is_ignored(cfg: CfgNode, full_key: str) -> bool:
    """Whether a key is deprecated (a warning, no error); KeyError when it was renamed."""
    if cfg.key_is_renamed(full_key):
        cfg.raise_key_rename_error(full_key)
    return bool(cfg.key_is_deprecated(full_key))


def _descend(cfg: CfgNode, full_key: str) -> tuple[Any, bool]:
    """The present value of a key and whether there is one; else the last node on the way to it."""
    node: Any = cfg
    for key in full_key.split("."):
        if not isinstance(node, CfgNode) or key not in node:
            return node, False
        node = node[key]
    return node, True


def _check_file_value(cfg: CfgNode, full_key: str, value: Any, origin: Path) -> None:
    present, known = _descend(cfg, full_key)
    if known:
        _check_type(full_key, cfg._decode_cfg_value(value), present, f"in {origin}")
    elif not (isinstance(present, CfgNode) and present.is_new_allowed()):
        message = _unknown(cfg, full_key, f"in {origin}", "Non-existent config key")
        if isinstance(present, CfgNode):
            raise UnknownKeyError(message)
        # A value where the file has keys: the type is wrong, not the key.
        parent = _deepest_known(cfg, full_key)
        raise InputError(f"{origin}: {parent} is a value ({present!r}) and has no keys of its own")


def _deepest_known(cfg: CfgNode, full_key: str) -> str:
    parts = full_key.split(".")
    known = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return [key for key in known if _descend(cfg, key)[1]][-1]


def _check_type(full_key: str, value: Any, present: Any, origin: str) -> None:
    """yacs's rule: same type; list and tuple are the same; None goes with everything."""
    types = {type(value), type(present)}
    if len(types) == 1 or types == {list, tuple}:
        return
    if type(None) in types and types <= set(_LEAF_TYPES):
        return
    raise InputError(
        f"Type mismatch for config key {full_key} {origin}: expected "
        f"{_expected(present)}, found {type(value).__name__} {value!r}."
        f"{_type_remedy(value, present)}"
    )


def _expected(present: Any) -> str:
    if isinstance(present, CfgNode):
        return "a section with keys of its own"
    return f"{type(present).__name__} (such as {present!r})"


def _type_remedy(value: Any, present: Any) -> str:
    if isinstance(present, bool):
        return " Write True or False."
    if isinstance(present, float) and type(value) is int:
        return f" Write {value}.0."
    if isinstance(present, tuple):
        return f" Write ({value!r},)."
    return ""


def _unknown(cfg: CfgNode, full_key: str, origin: str, what: str) -> str:
    valid = sorted(_all_keys(cfg))
    # A right name in a wrong section is likelier meant than a similar spelling of the whole.
    last = full_key.rsplit(".", 1)[-1]
    same_name = [key for key in valid if key.rsplit(".", 1)[-1] == last]
    nearest = difflib.get_close_matches(full_key, same_name or valid, n=1, cutoff=0.0)
    hint = f" Did you mean {nearest[0]}?" if nearest else ""
    return f"{what}: {full_key} ({origin}).{hint}"


def _all_keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, CfgNode):
            yield from _all_keys(value, f"{prefix}{key}.")


def _check_version(cfg: CfgNode, file: ConfigFile) -> None:
    ours = cfg.get("VERSION")
    theirs = file.values.get("VERSION", ours)
    if theirs != ours:
        raise ConfigVersionError(
            f"Cannot merge a v{theirs} config into a v{ours} config. "
            f"({file.origins['VERSION']}; expected VERSION: {ours}, found {theirs})"
        )
