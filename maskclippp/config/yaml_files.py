"""Safe YAML: plain data only, and the one computed list that published configs contain."""

import ast
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from maskclippp.errors import InputError

_EVAL_TAG = "tag:yaml.org,2002:python/object/apply:eval"
_MERGE_TAG = "tag:yaml.org,2002:merge"
# Limits that keep a short expression from filling the memory.
_MAX_ITEMS = 10_000
_MAX_LENGTH = 200

_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "int": int,
    "float": float,
    "round": round,
    "range": range,
}


def read_yaml(path: Path) -> Any:
    """The plain data of a YAML file.

    Published configs compute one list by ``!!python/object/apply:eval ["[int(x * 0.1 * 640) for x
    in range(3, 20)]"]``. Such an expression is interpreted by :func:`evaluate_arithmetic`; every
    other tag is refused.

    Raises:
        ValueError: no valid YAML, a tag, a key that stands twice, or an alias within what it stands
            for; names the file and the line.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return yaml.load(file, Loader=_PlainLoader)
    except yaml.YAMLError as error:
        raise InputError(f"{path} cannot be read as a config: {error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file: {error}") from error


def evaluate_arithmetic(expression: str) -> Any:
    """The value of an arithmetic expression, without ``eval``.

    Understood are numbers, lists, ``+ - * / // %``, the functions int, float, round and range, and
    a list comprehension of numbers with one variable over a range or list of at most 10,000 items.

    Raises:
        ValueError: anything else, or more than 200 characters.
    """
    if len(expression) > _MAX_LENGTH:
        raise InputError(f"{expression[:40]!r}... is longer than {_MAX_LENGTH} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
        value = _value(tree.body, {})
        if isinstance(value, range):
            raise TypeError("a range is no list; write [x for x in range(...)]")
        return value
    except (SyntaxError, TypeError, ArithmeticError, RecursionError) as error:
        raise InputError(f"{expression!r} is no arithmetic expression: {error}") from error


def _value(node: ast.expr, variables: dict[str, Any]) -> Any:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.List(elts=items):
            return [_value(item, variables) for item in items]
        case ast.Name(id=name) if name in variables:
            return variables[name]
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _OPERATORS:
            return _OPERATORS[type(sign)](_number(operand, variables))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATORS:
            return _OPERATORS[type(sign)](_number(left, variables), _number(right, variables))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*(_number(argument, variables) for argument in arguments))
        case ast.ListComp(
            elt=element,
            generators=[ast.comprehension(target=ast.Name(id=name), iter=source, ifs=[])],
        ):
            items = _value(source, variables)
            if not isinstance(items, (list, range)) or len(items) > _MAX_ITEMS:
                raise TypeError(f"{ast.unparse(source)} is no list of at most {_MAX_ITEMS} items")
            return [_number(element, {**variables, name: item}) for item in items]
    raise TypeError(f"{ast.unparse(node)} is not understood")


def _number(node: ast.expr, variables: dict[str, Any]) -> int | float:
    value = _value(node, variables)
    if not isinstance(value, (int, float)):
        raise TypeError(f"{ast.unparse(node)} is no number")
    return value


class _PlainLoader(yaml.SafeLoader):
    """A SafeLoader of our own: constructors are added to the class, not to yaml's.

    It refuses what YAML's own rules forbid and PyYAML lets pass: a key that stands twice in one
    mapping. And it refuses data without end, which an alias within its own anchor makes.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._open_anchors: set[str] = set()

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()
        anchor = getattr(event, "anchor", None)
        if self.check_event(yaml.AliasEvent):
            if anchor in self._open_anchors:
                raise yaml.composer.ComposerError(
                    None,
                    None,
                    f"the alias *{anchor} stands within what it stands for",
                    event.start_mark,
                )
            return super().compose_node(parent, index)
        if anchor is None:
            return super().compose_node(parent, index)
        self._open_anchors.add(anchor)
        node = super().compose_node(parent, index)
        self._open_anchors.discard(anchor)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], yaml.Node] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE_TAG:
                continue
            known = first.setdefault((key.tag, key.value), key)
            if known is not key:
                raise yaml.composer.ComposerError(
                    f"the key {key.value!r} stands here",
                    known.start_mark,
                    "and again",
                    key.start_mark,
                )
        return node


def _construct_expression(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if (
        not isinstance(node, yaml.SequenceNode)
        or len(node.value) != 1
        or not isinstance(node.value[0], yaml.ScalarNode)
    ):
        raise yaml.constructor.ConstructorError(
            None, None, "an eval tag takes a list of one arithmetic expression", node.start_mark
        )
    try:
        return evaluate_arithmetic(node.value[0].value)
    except ValueError as error:
        message = f"code in config files is not executed; {error}"
        raise yaml.constructor.ConstructorError(None, None, message, node.start_mark) from error


def _refuse_tag(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    tag = node.tag.replace("tag:yaml.org,2002:", "!!")
    message = f"the tag {tag} is refused: config files are plain data and never execute code"
    raise yaml.constructor.ConstructorError(None, None, message, node.start_mark)


_PlainLoader.add_constructor(_EVAL_TAG, _construct_expression)
_PlainLoader.add_constructor(None, _refuse_tag)
