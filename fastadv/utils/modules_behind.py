"""Which modules a plain function runs, by what its code has at hand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from inspect import getattr_static
from itertools import islice
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import CallableProxyType, ProxyType

import numpy as np
from torch import Tensor, nn

_DEPTH = 8  # functions and objects that lead to one another
_OF_EACH = 256  # values of one container: longer ones hold data
_IN_ALL = 10_000  # values: every call of an attack searches anew, and must not wait for it
_LIBRARIES = {"builtins", "numpy", "torch"}  # whose functions hold no model
_LEAVES = (int, float, str, bytes, type(None), type, BuiltinFunctionType, Tensor, np.ndarray, np.generic)
_COMPILED = "_torchdynamo_orig_callable"  # an attribute of the functions that torch.compile makes


def modules_behind(model: Callable[..., Any]) -> list[nn.Module]:
    """The modules that a callable has at hand: itself, or those that its code can reach by the names in it.

    These are what a function's closure, default values and globals hold, what a bound method's object has as
    attributes, what a partial is of, also in lists and dictionaries and by way of further functions. There may be some
    that do not run. Missing are those that are made or looked up by other means, by a text, say, and those far behind
    in long lists. The search runs no code of the objects that it looks at.
    """
    return list(_Search(model).found.values())


def runs_compiled(model: Callable[..., Any]) -> bool:
    """Whether torch.compile has made one of these modules, a part of one, a method of one or a function on the way."""
    search = _Search(model)
    parts = [part for whole in search.found.values() for part in whole.modules()]
    kinds = {kind for part in parts for kind in type(part).__mro__}
    return search.compiled or any(_COMPILED in _own(value) for one in (*parts, *kinds) for value in vars(one).values())


class _Search:
    """Looks at what is nearest first."""

    def __init__(self, model: Callable[..., Any]) -> None:
        self.found: dict[int, nn.Module] = {}
        self.compiled = False
        self._left = _IN_ALL
        self._waiting: deque[tuple[Any, frozenset[str], int]] = deque()
        self._seen: dict[tuple[int, frozenset[str]], object] = {}  # kept: an id is another's once its object is gone
        self._methods: dict[tuple[type, frozenset[str]], dict[str, FunctionType]] = {}
        self._add((model,), names=frozenset(), depth=0)
        while self._waiting:
            self._visit(*self._waiting.popleft())

    def _add(self, values: Iterable[Any], names: frozenset[str], depth: int) -> None:
        """What some code has at hand that uses these names."""
        for value in islice(values, min(_OF_EACH, self._left)):
            self._left -= 1
            # By its type: isinstance would ask the object, which may be a proxy that has lost what it stands for.
            if not issubclass(type(value), _LEAVES):
                self._waiting.append((value, names, depth))

    def _visit(self, value: Any, names: frozenset[str], depth: int) -> None:
        kind = type(value)
        if issubclass(kind, nn.Module):
            self.found[id(value)] = value
            return
        if (id(value), names) in self._seen or depth > _DEPTH:
            return
        self._seen[id(value), names] = value
        if kind is FunctionType:
            self._visit_function(value, (), depth)
        elif kind is MethodType:
            self._visit_method(value, depth)
        elif kind is ProxyType or kind is CallableProxyType:
            self._add(_referent(value), names, depth)
        elif issubclass(kind, partial):
            self._add((value.func, *value.args, *value.keywords.values()), names, depth)
        elif issubclass(kind, list):
            self._add(list.__iter__(value), names, depth)
        elif issubclass(kind, tuple):
            self._add(tuple.__iter__(value), names, depth)
        elif issubclass(kind, dict):
            self._add(list(islice(dict.values(value), _OF_EACH)), names, depth)  # another thread may add to it
        elif issubclass(kind, ModuleType):
            self._add(_named(_own(value), names), names, depth)
        else:
            self._visit_object(value, names, depth)

    def _visit_function(self, function: FunctionType, owner: tuple[Any, ...], depth: int) -> None:
        """Of an object's method, the object is the ``owner``."""
        if str(function.__module__).partition(".")[0] in _LIBRARIES:
            return
        self.compiled |= _COMPILED in vars(function)
        names = frozenset(_names(function.__code__))
        for values in (
            owner,
            _contents(function),
            _named(function.__globals__, names),
            function.__defaults__ or (),
            (function.__kwdefaults__ or {}).values(),
            vars(function).values(),  # what a decorator wraps
        ):
            self._add(values, names, depth + 1)

    def _visit_method(self, method: MethodType, depth: int) -> None:
        owner: Any = method.__self__
        if issubclass(type(owner), nn.Module):
            self.found[id(owner)] = owner
        elif isinstance(method.__func__, FunctionType):
            self._visit_function(method.__func__, (owner,), depth)

    def _visit_object(self, value: Any, names: frozenset[str], depth: int) -> None:
        own = _own(value)
        self._add(_named(own, names | {"__call__", "__wrapped__"}), names, depth + 1)
        for name, method in self._methods_of(type(value), names).items():
            if name not in own:
                self._visit_function(method, (value,), depth)

    def _methods_of(self, kind: type, names: frozenset[str]) -> dict[str, FunctionType]:
        """A class's methods and properties of these names; a list of data has many objects of one class."""
        if (kind, names) not in self._methods:
            methods = self._methods[kind, names] = {}
            for name in sorted(names | {"__call__", "__wrapped__"}):
                of_class = getattr_static(kind, name, None)  # runs no descriptor
                method = of_class.fget if isinstance(of_class, property) else getattr(of_class, "__func__", of_class)
                if isinstance(method, FunctionType):
                    methods[name] = method
        return self._methods[kind, names]


def _own(value: Any) -> dict[str, Any]:
    """An object's own attributes, past a ``__getattr__`` or ``__getattribute__`` of its class."""
    try:
        own = object.__getattribute__(value, "__dict__")
    except Exception:  # it has none, or a property in its place, which may raise anything
        return {}
    return own if isinstance(own, dict) else {}


def _named(values: dict[str, Any], names: frozenset[str]) -> list[Any]:
    return [values[name] for name in sorted(names & values.keys())]


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


def _referent(proxy: Any) -> tuple[Any, ...]:
    """What a weak proxy stands for, if it is still there."""
    try:
        return (proxy.__init__.__self__,)
    except ReferenceError:
        return ()
