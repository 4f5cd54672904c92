"""The ``configurable`` decorator: call with a config node or with plain arguments."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from yacs.config import CfgNode as _YacsCfgNode


def configurable(
    init_func: Callable[..., Any] | None = None,
    *,
    from_config: Callable[..., dict[str, Any]] | None = None,
) -> Callable[..., Any]:
    """Let an ``__init__`` or a function also be called with a config node.

    ``from_config`` translates the config into keyword arguments: a class method
    ``from_config(cls, cfg)`` for ``@configurable`` on ``__init__``, and the function ``f(cfg)`` for
    ``@configurable(from_config=f)``. It is used if the first positional argument, or the keyword
    ``cfg``, is a config node. Keywords that it does not take override its result; if it has
    ``*args`` or ``**kwargs``, it receives all arguments.

    Raises:
        TypeError: the decorator is misused, ``from_config`` is not a class method, or its first
            parameter is not named ``cfg``.
        AttributeError: the class has no ``from_config``.
    """
    if init_func is not None:
        if from_config is not None or init_func.__name__ != "__init__":
            raise TypeError(
                "use @configurable without arguments on __init__, or "
                "@configurable(from_config=...) on a function"
            )
        return _configurable_init(init_func)
    if from_config is None:
        raise TypeError("@configurable on a function needs the argument from_config")
    return functools.partial(_configurable_function, from_config=from_config)


def _configurable_init(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        # Looked up at call time: a subclass may override from_config alone.
        from_config = getattr(type(self), "from_config", None)
        message = "Class with @configurable must have a 'from_config' classmethod."
        if from_config is None:
            raise AttributeError(message)
        if not inspect.ismethod(from_config):
            raise TypeError(message)
        if _has_config(args, kwargs):
            init(self, **_explicit_arguments(from_config, args, kwargs))
        else:
            init(self, *args, **kwargs)

    return wrapped


def _configurable_function(
    function: Callable[..., Any], *, from_config: Callable[..., dict[str, Any]]
) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if _has_config(args, kwargs):
            return function(**_explicit_arguments(from_config, args, kwargs))
        return function(*args, **kwargs)

    wrapped.from_config = from_config  # type: ignore[attr-defined]
    return wrapped


def _has_config(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    first = args[0] if args else kwargs.get("cfg")
    return isinstance(first, _YacsCfgNode) or isinstance(kwargs.get("cfg"), _YacsCfgNode)


def _explicit_arguments(
    from_config: Callable[..., dict[str, Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The keyword arguments of the plain call that a call with a config node stands for."""
    parameters = inspect.signature(from_config).parameters
    if next(iter(parameters), None) != "cfg":
        if inspect.ismethod(from_config):
            name = f"{from_config.__self__}.from_config"
        else:
            name = str(from_config)
        raise TypeError(f"{name} must take 'cfg' as the first argument!")
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if any(parameter.kind in variadic for parameter in parameters.values()):
        return from_config(*args, **kwargs)
    taken = {name: value for name, value in kwargs.items() if name in parameters}
    override = {name: value for name, value in kwargs.items() if name not in parameters}
    return {**from_config(*args, **taken), **override}
