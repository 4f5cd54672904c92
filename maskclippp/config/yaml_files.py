"""Safe YAML: plain data only, and the one computed list that published configs contain."""

import re
from pathlib import Path
from typing import Any

import yaml

from maskclippp.errors import InputError

_EVAL_TAG = "tag:yaml.org,2002:python/object/apply:eval"
_DEEPEST = 100
_MOST_VALUES = 100_000
_MERGE_TAG = "tag:yaml.org,2002:merge"
# The sizes of multi-scale training, such as [int(x * 0.1 * 640) for x in range(3, 20)].
_PUBLISHED_SIZES = re.compile(
    r"\[int\(x \* 0\.1 \* (\d{1,4})\) for x in range\((\d{1,4}), ?(\d{1,4})\)\]"
)


def read_yaml(path: Path) -> Any:
    """The plain data of a YAML file.

    Published configs compute a list of image sizes by a tag that evaluates Python:
    ``!!python/object/apply:eval ["[int(x * 0.1 * 640) for x in range(3, 20)]"]``. This expression
    is recognized, with any three numbers; every other tag is refused.

    Raises:
        InputError: invalid YAML, a tag, a duplicate key, a self-referencing alias, too many
            levels or values; names the file and the line.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return yaml.load(file, Loader=_PlainLoader)
    except yaml.YAMLError as error:
        raise InputError(f"{path} cannot be read as a config: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file: {error}") from error
    except ValueError as error:  # a date that does not exist, an integer of thousands of digits
        raise InputError(f"{path} cannot be read as a config: {error}") from error


class _PlainLoader(yaml.SafeLoader):
    """Also refuses duplicate keys, which PyYAML accepts, and data without end.

    Constructors are added to this class, not to yaml's own.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._open_anchors: list[str | None] = []
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()
        anchor = getattr(event, "anchor", None)
        if self.check_event(yaml.AliasEvent) and anchor in self._open_anchors:
            message = f"the alias *{anchor} refers to itself"
            raise yaml.composer.ComposerError(None, None, message, event.start_mark)
        self._open_anchors.append(anchor)
        if len(self._open_anchors) > _DEEPEST:
            message = f"it is nested too deeply: more than {_DEEPEST} levels"
            raise yaml.composer.ComposerError(None, None, message, event.start_mark)
        node = super().compose_node(parent, index)
        self._open_anchors.pop()
        if self._size(node) > _MOST_VALUES:
            message = f"its aliases stand for more than {_MOST_VALUES:,} values"
            raise yaml.composer.ComposerError(None, None, message, event.start_mark)
        return node

    def _size(self, node: Any) -> int:
        """The number of values in a node whose parts are composed, aliases written out."""
        if id(node) not in self._sizes:
            parts = [] if node is None or isinstance(node, yaml.ScalarNode) else node.value
            if isinstance(node, yaml.MappingNode):
                parts = [part for pair in parts for part in pair]
            self._sizes[id(node)] = 1 + sum(self._size(part) for part in parts)
        return self._sizes[id(node)]

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], yaml.Node] = {}
        for key, _ in node.value:
            scalar = isinstance(key, yaml.ScalarNode) and key.tag != _MERGE_TAG
            known = first.setdefault((key.tag, key.value), key) if scalar else key
            if known is not key:
                message = f"the key {key.value!r} is defined here"
                raise yaml.composer.ComposerError(
                    message, known.start_mark, "and again", key.start_mark
                )
        return node


def _construct_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float:
    """A decimal number; YAML 1.1 also reads 1:30 as 90 and 010 as 8."""
    text: str = node.value
    if ":" in text or re.fullmatch(r"[-+]?0[0-7_]+", text):
        message = f"{text} would be read as a number to base {60 if ':' in text else 8}"
        remedy = "write a decimal number, or quote it if it is a text"
        raise yaml.constructor.ConstructorError(None, None, f"{message}: {remedy}", node.start_mark)
    is_int = node.tag.endswith(":int")
    construct = loader.construct_yaml_int if is_int else loader.construct_yaml_float
    number: int | float = construct(node)
    return number


def _construct_sizes(_loader: yaml.SafeLoader, node: yaml.Node) -> list[int]:
    arguments = node.value if isinstance(node, yaml.SequenceNode) else []
    if len(arguments) == 1 and isinstance(arguments[0], yaml.ScalarNode):
        found = _PUBLISHED_SIZES.fullmatch(arguments[0].value.strip())
        if found:
            size, start, stop = map(int, found.groups())
            return [int(x * 0.1 * size) for x in range(start, stop)]
    message = (
        "code in config files is not executed; the only expression understood is "
        "[int(x * 0.1 * 640) for x in range(3, 20)], with any numbers: write the values instead"
    )
    raise yaml.constructor.ConstructorError(None, None, message, node.start_mark)


def _refuse_tag(_loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    tag = node.tag.replace("tag:yaml.org,2002:", "!!")
    message = f"the tag {tag} is refused: config files are plain data and never execute code"
    raise yaml.constructor.ConstructorError(None, None, message, node.start_mark)


for _kind in ("int", "float"):
    _PlainLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", _construct_number)
_PlainLoader.add_constructor(_EVAL_TAG, _construct_sizes)
_PlainLoader.add_constructor(None, _refuse_tag)
