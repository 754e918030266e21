"""Finds the modules that a plain function runs, through what its code refers to."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import cached_property, partial, partialmethod
from inspect import getattr_static
from itertools import islice
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any
from weakref import CallableProxyType, ProxyType, ReferenceType

import numpy as np
from torch import Tensor, nn

_DEPTH = 8  # of functions and objects that refer to one another
_PER_CONTAINER = 256  # values: longer containers hold data
_IN_ALL = 10_000  # values: every call of an attack searches anew, and must not wait for it
_LIBRARIES = {"builtins", "numpy", "torch"}  # whose functions and classes hold no model
_LEAVES = (int, float, str, bytes, type(None), BuiltinFunctionType, Tensor, np.ndarray, np.generic)
_COMPILED = "_torchdynamo_orig_callable"  # an attribute of the functions that torch.compile makes
# What Python looks up itself, in calls, subscripts, loops and for missing attributes; decorators set the last one.
_IMPLICIT = {"__call__", "__getattr__", "__getitem__", "__iter__", "__next__", "__wrapped__"}


def modules_behind(model: Callable[..., Any]) -> list[nn.Module]:
    """Find the modules that a callable can run: itself, or those that its code refers to by name.

    Searched are a function's closure, default values and globals; the attributes of a bound method's object, in its
    ``__dict__``, its ``__slots__`` or its class; what a partial or a weak reference stands for; and the values of
    containers, also by way of further functions. Some of the modules found may not run. Not found are modules that are
    created or looked up in other ways, for instance under a computed name or by an iterator that is under way, and
    those far back in long lists. The search runs no code of the objects that it looks at.
    """
    return list(_Search(model).found.values())


def runs_compiled(model: Callable[..., Any]) -> bool:
    """True if torch.compile made one of these modules, a part or method of one, or a function on the way to it."""
    search = _Search(model)
    parts = [part for whole in search.found.values() for part in whole.modules()]
    kinds = {kind for part in parts for kind in type(part).__mro__}
    return search.compiled or any(_COMPILED in _own(value) for one in (*parts, *kinds) for value in vars(one).values())


class _Search:
    """Breadth-first, so that what is nearest is found before a limit is reached."""

    def __init__(self, model: Callable[..., Any]) -> None:
        self.found: dict[int, nn.Module] = {}
        self.compiled = False
        self._left = _IN_ALL
        self._waiting: deque[tuple[Any, frozenset[str], int]] = deque()
        # Holds the objects: the id of one that is gone may be given to another.
        self._seen: dict[tuple[int, frozenset[str]], object] = {}
        self._of_classes: dict[tuple[type, frozenset[str]], dict[str, Any]] = {}
        self._add((model,), names=frozenset(), depth=0)
        while self._waiting:
            self._visit(*self._waiting.popleft())

    def _add(self, values: Iterable[Any], names: frozenset[str], depth: int) -> None:
        """Queue values that code with these names in it refers to."""
        for value in islice(values, min(_PER_CONTAINER, self._left)):
            self._left -= 1
            # By its type: isinstance would ask the object, which may be a proxy whose object is gone.
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
        elif issubclass(kind, partial):
            self._visit_partial(value, names, depth)
        elif issubclass(kind, type):
            self._visit_class(value, names, depth)
        elif issubclass(kind, ModuleType):
            self._add(_named(_own(value), names), names, depth)
        elif (contents := _contents(value)) is not None:
            self._add(contents, names, depth)
            if not _is_library(kind):  # a named tuple, say, may have methods that refer to more
                self._visit_object(value, names, depth)
        else:
            self._visit_object(value, names, depth)

    def _visit_function(self, function: FunctionType, arguments: tuple[Any, ...], depth: int) -> None:
        """Visit a function, and the arguments that are known: the object if it is a method of one."""
        if _is_library(function):
            return
        self.compiled |= _COMPILED in vars(function)
        names = frozenset(_names(function.__code__))
        for values in (
            arguments,
            _closure(function),
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

    def _visit_partial(self, whole: partial[Any], names: frozenset[str], depth: int) -> None:
        arguments = (*whole.args, *whole.keywords.values())
        self._add((whole.func, *arguments), names, depth)
        if type(whole.func) is FunctionType:
            self._visit_function(whole.func, arguments, depth)

    def _visit_class(self, kind: type, names: frozenset[str], depth: int) -> None:
        if not _is_library(kind):
            for of_class in self._attributes_of(kind, names).values():
                self._visit_attribute(of_class, kind, names, depth)

    def _visit_object(self, value: Any, names: frozenset[str], depth: int) -> None:
        own = _own(value)
        self._add(_named(own, names | _IMPLICIT), names, depth + 1)
        if _is_library(type(value)):
            return
        for name, of_class in self._attributes_of(type(value), names).items():
            if name not in own:
                self._visit_attribute(of_class, value, names, depth)

    def _visit_attribute(self, of_class: Any, owner: Any, names: frozenset[str], depth: int) -> None:
        """Visit what a class has under a name: a method or another descriptor, of the owner, or a plain value."""
        kind = type(of_class)
        if issubclass(kind, property):
            of_class = of_class.fget
        elif issubclass(kind, (cached_property, partialmethod)):
            of_class = of_class.func
        elif issubclass(kind, (staticmethod, classmethod)):
            of_class = of_class.__func__
        if type(of_class) is FunctionType:
            self._visit_function(of_class, (owner,), depth)
        elif type(get := getattr_static(kind, "__get__", None)) is FunctionType:
            self._visit_function(get, (of_class, owner), depth)
        elif kind is not MemberDescriptorType:  # a slot, whose value is the object's own
            self._add((of_class,), names, depth + 1)

    def _attributes_of(self, kind: type, names: frozenset[str]) -> dict[str, Any]:
        """Return what a class and its bases have under these names; cached for lists of many objects of one class."""
        if (kind, names) not in self._of_classes:
            found = {name: getattr_static(kind, name, None) for name in sorted(names | _IMPLICIT)}  # runs no descriptor
            self._of_classes[kind, names] = {name: value for name, value in found.items() if value is not None}
        return self._of_classes[kind, names]


def _is_library(definition: Any) -> bool:
    """True for functions and classes of Python itself, NumPy and PyTorch."""
    get = type.__getattribute__ if issubclass(type(definition), type) else getattr
    module = get(definition, "__module__")
    return isinstance(module, str) and module.partition(".")[0] in _LIBRARIES


def _contents(value: Any) -> Iterable[Any] | None:
    """The values of a container, or what a reference stands for; None for other objects."""
    kind = type(value)
    if kind is ProxyType or kind is CallableProxyType:
        return _referent(value)
    if issubclass(kind, ReferenceType):
        return (ReferenceType.__call__(value),)
    if kind is ContextVar:
        return _value_in_context(value)
    if kind is MappingProxyType:
        return islice(value.values(), _PER_CONTAINER)
    if issubclass(kind, dict):
        return list(islice(dict.values(value), _PER_CONTAINER))  # a list at once: another thread may add to it
    for container in (list, tuple, set, frozenset, deque):
        if issubclass(kind, container):
            return list(islice(container.__iter__(value), _PER_CONTAINER))
    return None


def _own(value: Any) -> dict[str, Any]:
    """An object's own attributes, without running a ``__getattr__`` or ``__getattribute__`` of its class."""
    kind = type(value)
    try:
        get = threading.local.__getattribute__ if kind is threading.local else object.__getattribute__
        own = get(value, "__dict__")
    except Exception:  # it has none, or a property in its place, which may raise anything
        own = {}
    return {**_slots(value, kind), **own} if isinstance(own, dict) else _slots(value, kind)


def _slots(value: Any, kind: type) -> dict[str, Any]:
    """The attributes that lie in ``__slots__``, as far as they are set."""
    found: dict[str, Any] = {}
    for base in type.__getattribute__(kind, "__mro__"):
        members = type.__getattribute__(base, "__dict__")
        if "__slots__" not in members:
            continue
        for name, member in members.items():
            if type(member) is MemberDescriptorType:
                try:
                    found.setdefault(name, member.__get__(value, kind))
                except AttributeError:  # not set
                    continue
    return found


def _named(values: dict[str, Any], names: frozenset[str]) -> list[Any]:
    return [values[name] for name in sorted(names & values.keys())]


def _names(code: CodeType) -> Iterator[str]:
    """Names of globals and attributes, also those in functions that the code defines."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _closure(function: FunctionType) -> Iterator[Any]:
    """The values of a function's closure; a cell may still be empty."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            continue


def _referent(proxy: Any) -> tuple[Any, ...]:
    """The object that a weak proxy stands for, if it still exists."""
    try:
        return (proxy.__init__.__self__,)
    except ReferenceError:
        return ()


def _value_in_context(variable: ContextVar[Any]) -> tuple[Any, ...]:
    """The value of a context variable, if it has one here."""
    try:
        return (variable.get(),)
    except LookupError:
        return ()
