"""Models that are callables: the modules behind them are in evaluation mode while examples are generated."""

from __future__ import annotations

import threading
import time
import warnings
import weakref
from collections import UserDict, deque
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property, partial, partialmethod, wraps
from threading import Thread
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from fastadv import PixelSpace, attacks
from fastadv.evaluate import evaluate
from fastadv.utils import modules_behind
from tests.attacks import test_isolation
from tests.attacks.models import ConvNet, batch

NET = ConvNet().train()
BY_NAME = {"the network": NET}


class Runs:
    """Has a network, and is not a module."""

    def __init__(self, net: nn.Module, scale: float = 1.0) -> None:
        self._nets = [net]
        self.logits = self.of_net
        self.unrelated = ConvNet().train()

    def __call__(self, images: Tensor) -> Tensor:
        return self.logits(images)

    @property
    def net(self) -> nn.Module:
        return self._nets[0]

    def of_net(self, images: Tensor) -> Tensor:
        return self.net(images)

    @staticmethod
    def of_a_global(images: Tensor) -> Tensor:
        return NET(images)


class Slots:
    __slots__ = ("net",)

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def __call__(self, images: Tensor) -> Tensor:
        return self.net(images)

    def logits(self, images: Tensor) -> Tensor:
        return self.net(images)


class PrivateSlot(Slots):
    __slots__ = ("__own", "unset")

    def __init__(self, net: nn.Module) -> None:
        self.__own = net

    def __call__(self, images: Tensor) -> Tensor:
        return self.__own(images)


@dataclass(slots=True)
class Record:
    net: nn.Module

    def __call__(self, images: Tensor) -> Tensor:
        return self.net(images)


class Pair(NamedTuple):
    net: nn.Module
    scale: float

    def __call__(self, images: Tensor) -> Tensor:
        return self.scale * self.net(images)


class OfItsClass:
    net = NET

    def __call__(self, images: Tensor) -> Tensor:
        return self.net(images)

    @classmethod
    def logits(cls, images: Tensor) -> Tensor:
        return cls.net(images)


class Stores:
    """Hands its network out in each way that a class can."""

    def __init__(self, net: nn.Module) -> None:
        self._net = net

    @cached_property
    def cached(self) -> nn.Module:
        return self._net

    def run(self, times: int, images: Tensor) -> Tensor:
        return times * self._net(images)

    once = partialmethod(run, 1)

    def __getitem__(self, place: int) -> nn.Module:
        return self._net

    def __getattr__(self, name: str) -> Any:
        return getattr(self._net, name)


class Delegate:
    def __get__(self, owner: Any, kind: type) -> nn.Module:
        return owner.hidden  # type: ignore[no-any-return]


class Delegates:
    net = Delegate()

    def __init__(self, net: nn.Module) -> None:
        self.hidden = net

    def __call__(self, images: Tensor) -> Tensor:
        return self.net(images)


def in_a_thread_local(net: nn.Module) -> threading.local:
    local = threading.local()
    local.net = net
    return local


def decorated(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    @wraps(function)
    def wrapper(*given: Any) -> Tensor:
        return function(*given)

    return wrapper


def of_a_global(images: Tensor) -> Tensor:
    return NET(images)


def by_a_helper(images: Tensor) -> Tensor:
    return next(of_a_global(part) for part in (images,))


def with_default(images: Tensor, *, net: nn.Module = NET) -> Tensor:
    return net.forward(images)


def closures(net: nn.Module) -> dict[str, Callable[[Tensor], Tensor]]:
    runs, nets, slots, stores = Runs(net), {"a": (net, net)}, Slots(net), Stores(net)
    a_set, a_deque, a_view, a_user_dict = {net}, deque([net]), MappingProxyType({"a": net}), UserDict(a=net)
    reference, context, local = weakref.ref(net), ContextVar("net", default=net), in_a_thread_local(net)
    return {
        "closure": lambda images: net(images),
        "functional": lambda images: torch.func.functional_call(net, dict(net.named_parameters()), images),
        "container": lambda images: sum(one(images) for one in nets["a"]) / 2,
        "attribute of a closure": lambda images: runs.net(images),
        "method of a closure": lambda images: runs.of_net(images),
        "partial": partial(lambda net, images: net(images), net),
        "bound method": runs.of_net,
        "static method": lambda images: runs.of_a_global(images),
        "object": runs,
        "decorated": decorated(lambda images: net(images)),
        "compiled": torch.compile(lambda images: net(images), backend="eager"),
        "method of the module": net.forward,
        "part of the module": lambda images: net.head(net.features(images).flatten(1)),
        "unbound method": partial(ConvNet.forward, net),
        "weak proxy": partial(lambda net, images: net(images), weakref.proxy(net)),
        "slots": slots,
        "partial of slots": partial(slots),
        "method of slots": slots.logits,
        "partial of a method of slots": partial(slots.logits),
        "unbound method of slots": partial(Slots.logits, slots),
        "keyword of a partial": partial(lambda images, one: one.logits(images), one=slots),
        "slots of slots": partial(Slots(slots).logits),
        "private slot": PrivateSlot(net),
        "data class with slots": Record(net),
        "named tuple": Pair(net, 1.0),
        "cached property": lambda images: stores.cached(images),
        "partial method": lambda images: stores.once(images),
        "subscript": lambda images: stores[0](images),
        "delegated attribute": lambda images: stores.forward(images),
        "descriptor": Delegates(net),
        "set": lambda images: next(iter(a_set))(images),
        "deque": lambda images: a_deque[0](images),
        "view of a dictionary": lambda images: a_view["a"](images),
        "user dictionary": lambda images: a_user_dict["a"](images),
        "weak reference": lambda images: reference()(images),  # type: ignore[misc]
        "context variable": lambda images: context.get()(images),
        "thread-local": lambda images: local.net(images),
    }


CALLABLES = {
    **closures(NET),
    "global": of_a_global,
    "helper": by_a_helper,
    "default value": with_default,
    "attribute of a class": OfItsClass(),
    "class method": OfItsClass.logits,
    "class": lambda images: OfItsClass.net(images),
    "static method of a class": lambda images: Runs.of_a_global(images),
    "global container": lambda images: BY_NAME["the network"](images),
}


@pytest.mark.parametrize("bn", ["eval", "batch"])
@pytest.mark.parametrize("function", CALLABLES.values(), ids=CALLABLES)
def test_a_function_stands_for_the_module_behind_it(function: Callable[[Tensor], Tensor], bn: str) -> None:
    images = batch()[0]
    expected = attacks.create("step_ll", NET, eps=4, bn=bn)(images)
    before = test_isolation.everything(NET)
    assert torch.equal(attacks.create("step_ll", function, eps=4, bn=bn)(images), expected)
    test_isolation.assert_untouched(NET, before)


@pytest.mark.parametrize("attack", [{}, {"attack": "fgsm", "eps": 4}], ids=["clean", "fgsm"])
@pytest.mark.parametrize(
    "model", [lambda x: NET(x), Slots(NET), Slots(NET).logits], ids=["function", "slots", "method"]
)
def test_evaluation_by_a_function_is_that_of_its_module(model: Any, attack: dict[str, Any]) -> None:
    before = test_isolation.everything(NET)
    counts = [evaluate(each, [batch(64)], space=PixelSpace.unit(), **attack) for each in (NET, model)]
    assert counts[0] == counts[1] and torch.equal(counts[0].correct, counts[1].correct)
    test_isolation.assert_untouched(NET, before)


def test_only_names_in_the_code_are_searched() -> None:
    runs = Runs(NET)
    assert modules_behind.modules_behind(runs.of_net) == [NET]
    assert modules_behind.modules_behind(lambda images: torch.relu(images)) == []


def refuse(*_: Any) -> Any:
    raise RuntimeError("data are not to be asked")


class Closed:
    __slots__ = ()
    __getattribute__ = refuse


class ClosedList(list[int]):
    __iter__ = refuse


class Stored(Mapping[str, int]):
    __iter__ = __getitem__ = __len__ = values = refuse


def chain(length: int) -> partial[None]:
    link = partial(print)
    for _ in range(length):
        link = partial(print, [link])
    return link


@pytest.mark.parametrize(
    "make",
    [lambda: weakref.proxy(ConvNet()), Closed, lambda: ClosedList([1]), Stored, lambda: chain(3000)],
    ids=["dead proxy", "object", "list", "mapping", "chain"],
)
def test_no_code_of_other_objects_is_run(make: Callable[[], object]) -> None:
    data = make()
    assert modules_behind.modules_behind(lambda images: (NET(images), data)) == [NET]


@pytest.mark.parametrize(
    "make",
    [
        lambda: [0] * 300_000,
        lambda: list(torch.zeros(20_000)),
        lambda: dict.fromkeys(range(300_000)),
        lambda: [[chain(9)] * 300 for _ in range(300)],
    ],
    ids=["numbers", "tensors", "dictionary", "nested"],
)
def test_other_objects_take_no_time(make: Callable[[], object]) -> None:
    data = make()
    begin = time.process_time()
    assert modules_behind.modules_behind(lambda images: (NET(images), data)) == [NET]
    assert time.process_time() - begin < 0.5


class Hidden(nn.Module):
    """Keeps a module in a list, so that it is not in modules()."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = [ConvNet().train()]

    def forward(self, images: Tensor) -> Tensor:
        return self.nets[0](images)


def by_its_name(images: Tensor) -> Tensor:
    net: nn.Module = globals()["N" + "ET"]
    return net(images)


def drops(images: Tensor) -> Tensor:
    return nn.functional.dropout(images.flatten(1))


def beside(work: Callable[[], Tensor], run: Callable[[], Tensor]) -> Tensor:
    """Run ``work`` in another thread, then return the result of ``run``."""
    other = Thread(target=work)
    other.start()
    other.join()
    return run()


MOVES, DRAWS = "moves running statistics", "draws random numbers"


@pytest.fixture
def net_as_it_was() -> Iterator[None]:
    state = {name: tensor.clone() for name, tensor in NET.state_dict().items()}
    yield
    NET.load_state_dict(state)


@pytest.mark.usefixtures("net_as_it_was")
@pytest.mark.parametrize("name", ["step_ll", "iter_basic"])
@pytest.mark.parametrize(
    ("model", "seen"),
    [
        (by_its_name, f"{MOVES} and {DRAWS}"),
        (Hidden(), f"{MOVES} and {DRAWS}"),
        (drops, DRAWS),
        (nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True), nn.Flatten()), None),
        (lambda images: ConvNet().eval()(images), None),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(10)), None),
        (lambda images: beside(lambda: torch.rand(1), lambda: NET(images)), None),
        (lambda images: beside(lambda: nn.BatchNorm1d(2)(torch.ones(4, 2)), lambda: NET(images)), None),
    ],
    ids=["by its name", "hidden", "function", "module", "made anew", "lazy", "thread draws", "thread trains"],
)
def test_a_network_that_stays_in_training_mode_warns_once(
    name: str, model: Callable[[Tensor], Tensor], seen: str | None
) -> None:
    attack, (images, labels) = attacks.create(name, model, eps=4), batch()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            attack(images, attack.true_labels(labels))
    assert [warning.filename for warning in caught] == [__file__] * (seen is not None)
    for warning in caught:
        assert f"{name}: the model {seen} in every pass" in str(warning.message)
        assert "Unless the randomness is part of the model, " in str(warning.message)
        assert ("as by eot=10" in str(warning.message)) == (DRAWS in str(seen))


@pytest.mark.usefixtures("net_as_it_was")
@pytest.mark.parametrize(
    ("model", "warns"), [(by_its_name, True), (Hidden(), True), (NET, False), (lambda images: NET(images), False)]
)
@pytest.mark.parametrize("attack", [{}, {"attack": "random_sign", "eps": 4}], ids=["clean", "noise"])
def test_a_hidden_network_in_training_mode_warns_in_an_evaluation(
    attack: dict[str, Any], model: Any, warns: bool
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        evaluate(model, [batch(), batch()], space=PixelSpace.unit(), **attack)
    assert [str(warning.message).partition(" in every")[0] for warning in caught] == [
        f"evaluation: the model {MOVES}"
    ] * warns
    assert [warning.filename for warning in caught] == [__file__] * warns


class Flat(nn.Module):
    """A linear model whose methods torch.compile may compile."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 8 * 8, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))


Made = Callable[[Callable[..., Any]], Any]


def compiled_by(method: Made) -> Flat:
    class OfItself(Flat):
        forward = method(Flat.forward)

    return OfItself()


def compiled_attribute(method: Made) -> Flat:
    net = Flat()
    net.forward = method(net.forward)  # type: ignore[method-assign]
    return net


def compiled_behind(method: Made) -> Callable[[Tensor], Tensor]:
    net = method(Flat())
    return lambda images: net(images)


def compiled_function(method: Made) -> Callable[[Tensor], Tensor]:
    net = Flat()
    return method(lambda images: net(images))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "model",
    [lambda method: nn.Sequential(method(Flat())), compiled_behind, compiled_function, compiled_attribute, compiled_by],
    ids=["part", "behind", "function", "attribute", "class"],
)
def test_a_compiled_model_is_compiled_once(model: Callable[[Made], Callable[[Tensor], Tensor]]) -> None:
    compiled = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        compiled.append(graph)
        return graph.forward

    attack, (images, _) = attacks.create("step_ll", model(partial(torch.compile, backend=backend)), eps=4), batch()
    for _ in range(2):
        attack(images)
    assert len(compiled) == 1
