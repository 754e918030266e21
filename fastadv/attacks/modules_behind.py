"""Which modules a plain function runs, by what its code has at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from inspect import getattr_static
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import nn

_DEPTH = 4  # functions that call one another
_LIBRARIES = {"builtins", "numpy", "torch"}  # whose functions hold no model


def modules_behind(model: Callable[..., Any]) -> list[nn.Module]:
    """The modules that a callable has at hand: itself, or those that its code can reach by the names in it.

    These are what a function's closure, default values and globals hold, what a bound method's object has as
    attributes, what a partial is of, also in lists and dictionaries and by way of further functions. There may be some
    that do not run. Missing are those that are made or looked up by other means, by a text, say.
    """
    search = _Search()
    search.visit(model, names=frozenset(), depth=0)
    return list(search.found.values())


class _Search:
    def __init__(self) -> None:
        self.found: dict[int, nn.Module] = {}
        self._seen: dict[tuple[int, frozenset[str]], object] = {}  # kept: an id is another's once its object is gone

    def visit(self, value: Any, names: frozenset[str], depth: int) -> None:
        """Look at what some code has at hand that uses these names."""
        if isinstance(value, nn.Module):
            self.found[id(value)] = value
            return
        if (id(value), names) in self._seen or isinstance(value, type):
            return
        self._seen[id(value), names] = value
        if isinstance(value, FunctionType):
            self._visit_function(value, (), depth)
        elif isinstance(value, MethodType):
            self._visit_method(value, depth)
        elif isinstance(value, partial):
            self._visit_each((value.func, *value.args, *value.keywords.values()), names, depth)
        elif isinstance(value, (list, tuple)):
            self._visit_each(value, names, depth)
        elif isinstance(value, Mapping):
            self._visit_each(value.values(), names, depth)
        elif isinstance(value, ModuleType):
            self._visit_each((vars(value)[name] for name in names & vars(value).keys()), names, depth)
        else:
            self._visit_object(value, names, depth)

    def _visit_each(self, values: Iterable[Any], names: frozenset[str], depth: int) -> None:
        for value in values:
            self.visit(value, names, depth)

    def _visit_function(self, function: FunctionType, owner: tuple[Any, ...], depth: int) -> None:
        """Of an object's method, the object is the ``owner``."""
        if depth == _DEPTH or str(function.__module__).partition(".")[0] in _LIBRARIES:
            return
        names = frozenset(_names(function.__code__))
        for values in (
            owner,
            _contents(function),
            (function.__globals__[name] for name in names & function.__globals__.keys()),
            function.__defaults__ or (),
            (function.__kwdefaults__ or {}).values(),
            vars(function).values(),  # what a decorator wraps
        ):
            self._visit_each(values, names, depth + 1)

    def _visit_method(self, method: MethodType, depth: int) -> None:
        if isinstance(method.__self__, nn.Module):
            self.found[id(method.__self__)] = method.__self__
        elif isinstance(method.__func__, FunctionType):
            self._visit_function(method.__func__, (method.__self__,), depth)

    def _visit_object(self, value: Any, names: frozenset[str], depth: int) -> None:
        own = getattr(value, "__dict__", {})
        for name in {*names, "__call__", "__wrapped__"}:
            if name in own:
                self.visit(own[name], names, depth)
                continue
            of_class = getattr_static(type(value), name, None)  # runs no descriptor
            method = of_class.fget if isinstance(of_class, property) else getattr(of_class, "__func__", of_class)
            if isinstance(method, FunctionType):
                self._visit_function(method, (value,), depth)


def _names(code: CodeType) -> Iterator[str]:
    """Names of globals and attributes, also those in functions that the code defines."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _contents(function: FunctionType) -> Iterator[Any]:
    """What the closure holds; a cell may be empty yet."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            continue
