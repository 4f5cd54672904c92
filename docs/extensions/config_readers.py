"""Finds the modules that read a config key, in the source of the package.

``cfg.MODEL.DEVICE`` names a key in full, also through variables (``node = cfg.MODEL``). Where a
function gets a section, ``node.NAME`` names only the end of the key. The section may then be any
that has all keys which the module reads from a variable of this name, that is handed to this
folder, and that belongs to the registry of the module, if it has one.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from maskclippp.config.keys import get_cfg


class _Reading(NamedTuple):
    """``names`` below ``root``: "" for the complete config, else a variable with a section."""

    root: str
    names: tuple[str, ...]


class Readers:
    """The readers of each key.

    Args:
        package: the folder with the source; its embedded engine is left out.
    """

    def __init__(self, package: Path) -> None:
        self._cfg = get_cfg()
        self._sections = dict(_sections(self._cfg))
        self._files: dict[str, set[str]] = defaultdict(set)
        paths = [path for path in sorted(package.rglob("*.py")) if "embedded" not in path.parts]
        trees = {p.relative_to(package.parent).as_posix(): ast.parse(p.read_text()) for p in paths}
        rooms = self._handed_to(trees)
        for module, tree in trees.items():
            fitting = {s for s in self._sections if _room(module) in rooms[s] and _fits(tree, s)}
            self._note(module, tree, fitting)

    def of(self, key: str) -> list[str]:
        """The modules that read a key, given by its full name."""
        return sorted(self._files.get(key, ()))

    def _note(self, module: str, tree: ast.Module, fitting: set[str]) -> None:
        below: dict[str, set[str]] = defaultdict(set)
        for function in _functions(tree):
            for root, names in self._readings(function):
                if root:
                    below[root].add(names[0])
                else:
                    self._files[".".join(names)].add(module)
        for names in below.values():
            for section in fitting:
                if names <= self._sections[section]:
                    for name in names:
                        self._files[f"{section}.{name}"].add(module)

    def _readings(self, function: ast.FunctionDef) -> Iterator[_Reading]:
        variables = self._variables(function)
        for node in ast.walk(function):
            reading = self._resolve(node, variables)
            if reading and reading.names:
                yield reading
            if isinstance(node, ast.Attribute) and node.attr == "items":
                yield from self._keys_below(self._resolve(node.value, variables))
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Name):
                # section[key] reads the keys whose names stand in the function.
                root = getattr(node.value, "id", "")
                for name in _constants(function):
                    if name.isupper() and root:
                        yield _Reading(root, (name,))

    def _keys_below(self, section: _Reading | None) -> Iterator[_Reading]:
        """``section.items()`` reads all keys of a section."""
        if section and not section.root:
            for name in self._sections.get(".".join(section.names), ()):
                yield _Reading("", (*section.names, name))

    def _handed_to(self, trees: dict[str, ast.Module]) -> dict[str, set[str]]:
        """Section -> folders with a function that gets it, or with a module that names it."""
        homes: dict[str, set[str]] = defaultdict(set)
        for module, tree in trees.items():
            for function in _functions(tree):
                homes[function.name].add(_room(module))
        rooms: dict[str, set[str]] = defaultdict(set)
        for module, tree in trees.items():
            for function in _functions(tree):
                variables = self._variables(function)
                for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
                    callee = getattr(call.func, "id", getattr(call.func, "attr", ""))
                    for argument in call.args:
                        reading = self._resolve(argument, variables)
                        if reading and not reading.root:
                            rooms[".".join(reading.names)] |= homes[callee]
            for constant in _constants(tree):
                rooms[f"MODEL.{constant}"].add(_room(module))
        return rooms

    def _variables(self, function: ast.FunctionDef) -> dict[str, _Reading]:
        """The local variables that are sections of the config."""
        found: dict[str, _Reading] = {}
        for node in ast.walk(function):
            if not isinstance(node, ast.Assign):
                continue
            target, values = node.targets[0], node.value
            pairs = [(target, values)]
            if isinstance(target, ast.Tuple) and isinstance(values, ast.Tuple):
                pairs = list(zip(target.elts, values.elts, strict=True))
            for name, value in pairs:
                reading = self._resolve(value, found)
                if isinstance(name, ast.Name) and reading and reading.names:
                    found[name.id] = reading
        return found

    def _resolve(self, node: ast.AST, variables: dict[str, _Reading]) -> _Reading | None:
        """What ``cfg.A.B``, ``self.cfg.A``, ``variable.A`` or a variable stands for."""
        names: list[str] = []
        while isinstance(node, ast.Attribute) and node.attr.isupper():
            names.insert(0, node.attr)
            node = node.value
        if getattr(node, "attr", getattr(node, "id", "")) == "cfg":
            is_complete = not names or names[0] in self._cfg
            return _Reading("" if is_complete else "cfg", tuple(names))
        if isinstance(node, ast.Name):
            known = variables.get(node.id, _Reading(node.id, ()))
            return _Reading(known.root, (*known.names, *names))
        return None


def _room(module: str) -> str:
    return module.split("/")[1]


def _fits(tree: ast.Module, section: str) -> bool:
    """Whether the module has no registry, that of the section, or names the section."""
    name = section.rpartition(".")[2]
    ids = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    registries = {id_.removesuffix("_REGISTRY") for id_ in ids if id_.endswith("_REGISTRY")}
    return not registries or name.removesuffix("_F") in registries or name in _constants(tree)


def _sections(node: dict, prefix: str = "") -> Iterator[tuple[str, set[str]]]:
    """Full name and keys of every section of the configuration."""
    for name, value in node.items():
        if isinstance(value, dict):
            yield f"{prefix}{name}", set(value)
            yield from _sections(value, f"{prefix}{name}.")


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def _constants(tree: ast.AST) -> set[str]:
    found = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return {value for value in found if isinstance(value, str)}
