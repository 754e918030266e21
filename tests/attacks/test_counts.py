"""Counts the operators that an attack runs besides the model's passes, which unlike times are the same everywhere.

Times are for benchmarks. Here an operator that is added, a pass over the images, a temporary of their size, or a wait
fails by name; benchmarks/operators.py says which waits are counted. tests/train/test_counts.py has iterations of
training, tests/simt/on_a_device.py the launches of kernels, tests/train/test_distributed.py the collectives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.operators import Operators
from fastadv import PixelSpace, TruncatedNormalEps, attacks
from fastadv.attacks.engine.bn_folding import FoldedModel
from fastadv.attacks.engine.cuda_graph_recorder import refuse_waits
from fastadv.pixels import range_watch
from tests.attacks.gradients import GRADIENTS
from tests.attacks.models import ConvNet, batch
from tests.completeness import check_complete

UNIT = PixelSpace.unit()


def passes(model: torch.nn.Module, images: Tensor) -> Operators:
    """One forward pass and one backward pass to the images, as cheaply as possible."""
    with Operators(images) as counted:
        x = images.detach().requires_grad_()
        logits = model(x)
        torch.autograd.grad(logits, x, torch.ones_like(logits))
    return counted


def besides(counted: Counter[str], own: Counter[str], times: int) -> dict[str, int]:
    """Return what was counted beyond ``times`` of the model's passes."""
    rest = counted.copy()
    rest.subtract({name: times * count for name, count in own.items()})
    return {name: count for name, count in rest.items() if count}


# Of one call at eps = 4: the gradients, and all that comes besides: one choice of target, one step and one copy of the
# images, which the model may write to, a gradient; the copy that is returned, and for several steps the clean images.
# detach makes no copy. The model's own pass has a ones_like, which an attack has not. Momentum is PyTorch's own
# arithmetic, in place from the second step on.
STEP, CHOICE, NOISE = "fastadv::sign_step_", "fastadv::scaled_target_grad", "fastadv::noise_step_"
ONE_STEP = {CHOICE: 1, "clone": 2, "ones_like": -1}
MEAN = ("promote_types", "linalg_vector_norm", "view", "select", "div", "gt", "scalar_tensor", "where")
FIRST = {"mi_fgsm": {"div": 1}}  # the gradient over its mean, which further steps add to
MOMENTUM = {**dict.fromkeys(MEAN, 10), "div": 10 + 1, "mul_": 9, "addcdiv_": 9}
TABLE: dict[str, tuple[int, dict[str, int]]] = {
    **dict.fromkeys(
        ("fgsm", "fgsm_pred", "fast_entropy", "step_ll", "step_rnd"), (1, {**ONE_STEP, STEP: 1})
    ),
    **dict.fromkeys(("fast_grad_l2", "fast_grad_linf"), (1, {**ONE_STEP, "fastadv::normalized_step_": 1})),
    **dict.fromkeys(("iter_basic", "iter_ll"), (5, {CHOICE: 5, STEP: 5, "clone": 7, "ones_like": -5})),
    "pgd": (10, {CHOICE: 10, STEP: 10, NOISE: 1, "clone": 12, "ones_like": -10}),
    "n_fgsm": (1, {CHOICE: 1, STEP: 1, NOISE: 1, "clone": 3, "ones_like": -1}),
    "mi_fgsm": (10, {CHOICE: 10, STEP: 10, "clone": 12, "ones_like": -10, **MOMENTUM}),
    **dict.fromkeys(("random_sign", "random_normal"), (0, {NOISE: 1, "clone": 1})),
}  # fmt: skip
# An attack with a loss of its own chooses the target once, CHOICE: 1, and has these in every gradient besides the
# loss's own operators and their backward passes: they scale the derivative, so that it does not underflow.
OWN_LOSS = {
    **dict.fromkeys(("promote_types", "abs", "amax", "gt", "lt", "bitwise_and", "frexp", "clamp", "_to_copy"), 1),
    **dict.fromkeys(("neg", "exp2", "unsqueeze", "mul", "eq"), 1),
    **dict.fromkeys(("scalar_tensor", "where"), 2),
}
# Of these, what moves no images: that of logits, or of a number an example.
SMALL = {CHOICE, "ones_like", *MEAN} - {"linalg_vector_norm"}


# Two more ways of a call: what they add to the table. fast=True folds two layers anew, all their vectors together, and
# turns the images to channels_last and back. An eps drawn for each example is one operator more; steps that go down are
# turned around as tensors, and a number of iterations that depends on eps asks for the same draw on the host: examples
# are put in the order of their iterations, and back.
TOGETHER = ("add", "rsqrt", "mul", "neg", "addcmul", "copy_")
FOLDING = {**dict.fromkeys((f"_foreach_{name}" for name in TOGETHER), 1), "mul": 2, "view": 2}
FAST = {**FOLDING, "clone": 1, "copy_": 1}
DRAW = {"fastadv::sample_eps": 1}
SCHEDULE = {
    **{"fastadv::sample_eps": 2, "add": 3, "mul": 4, "minimum": 3, "_to_copy": 4, "clamp_": 3, "lt": 1},
    **dict.fromkeys(("arange", "unsqueeze", "unbind", "index_copy_", "lift_fresh"), 1),
    **{"index": 5 + 4, "slice": 6 * 4},  # five tensors, and each step's lengths; views of those that are left
}
DRAWN: dict[str, dict[str, int]] = {
    **{name: DRAW for name in TABLE},
    **{name: {**DRAW, "neg": 1} for name in ("step_ll", "step_rnd")},
    "pgd": {**DRAW, "mul": 1, "div": 1},
    "n_fgsm": {**DRAW, "mul": 3, "add": 1},  # the noise's size, and a ball that clips nothing
    "mi_fgsm": {**DRAW, "div": 1},
    "iter_basic": SCHEDULE,
    "iter_ll": {**SCHEDULE, "neg": 5},
}
LEAVES = ("iter_basic", "iter_ll")  # with sizes that are drawn
LEAVING = {"index": 2, "index_copy_": 1}  # images and clean images
FIVE = TruncatedNormalEps(sigma=8, upper=10)  # the largest of the six drawn is 4.6: five iterations, as for 4
FOLLOWING = [name for name, (gradients, _) in TABLE.items() if gradients]
ROWS = [
    *((name, {}, {}) for name in TABLE),
    *((name, {"fast": True}, FAST) for name in FOLLOWING),
    *((name, {"eps": FIVE}, DRAWN[name]) for name in TABLE),
]
each_row = pytest.mark.parametrize(
    ("name", "options", "added"), ROWS, ids=[f"{name}, {', '.join(options)}" for name, options, _ in ROWS]
)


def second_call(name: str | type[attacks.Attack], **options: Any) -> tuple[Operators, Operators]:
    """Return (operators of a call after the first batch, those of the model's passes, folded if the attack folds)."""
    model = ConvNet().eval()
    images, labels = batch(6)
    attack = attacks.create(name, model, **{"eps": 4, "validate": "first", **options}, space=UNIT, seed=1)
    attack(images, labels)
    with Operators(images) as counted:
        attack(images, labels)
    if not options.get("fast"):
        return counted, passes(model, images)
    folded = FoldedModel(model, model, images[:1], None)
    with folded.in_place():
        return counted, passes(model, folded.in_layout(images))


def row_of(name: str | type[attacks.Attack]) -> str:
    """The row of TABLE for an attack, as measured, and which of its operators belong in SMALL."""
    counted, own = second_call(name)
    gradients = counted.names["convolution"] // own.names["convolution"]
    found = besides(counted.names, own.names, gradients)
    found.pop("detach", None)
    moving = besides(counted.moving, own.moving, gradients)
    small = sorted(set(found) - set(moving) - SMALL)
    shown = name if isinstance(name, str) else name.name
    return f'"{shown}": ({gradients}, {found}),' + (f"  # and in SMALL: {', '.join(small)}" if small else "")


def test_the_table_is_complete() -> None:
    rows = "\n".join(row_of(name) for name in GRADIENTS if name not in TABLE)
    assert not rows, f"check that all of this is necessary, and add it to TABLE:\n{rows}"
    check_complete("TABLE of tests/attacks/test_counts.py", TABLE, GRADIENTS)


class FirstLogit(attacks.FGSM):
    """A loss of one operator."""

    name = "first_logit"

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:  # [N, K], [N] -> [N]
        return logits[:, 0]


def test_a_row_is_printed_for_an_attack_that_has_none() -> None:
    """As it would be written by hand: without a loss of its own, and with one."""
    assert row_of("random_sign") == "\"random_sign\": (0, {'clone': 1, 'fastadv::noise_step_': 1}),"
    row, _, small = row_of(FirstLogit).partition("  # and in SMALL: ")
    found = eval(f"{{{row}}}")["first_logit"]
    assert found == (1, {CHOICE: 1, STEP: 1, "clone": 2, **OWN_LOSS, "select": 1, "select_backward": 1})
    assert set(small.split(", ")) == {*OWN_LOSS, "select_backward"} - SMALL


def added_to(table: dict[str, int], added: dict[str, int]) -> dict[str, int]:
    total = Counter(table)
    total.update(added)
    return dict(total)


@each_row
def test_operators_besides_the_models_own(name: str, options: dict[str, Any], added: dict[str, int]) -> None:
    gradients, expected = TABLE[name]
    counted, own = second_call(name, **options)
    found = besides(counted.names, own.names, gradients)
    found.pop("detach", None)
    assert found == added_to(expected, added)
    assert counted.names["convolution"] == gradients * own.names["convolution"]
    assert counted.names["convolution_backward"] == gradients * own.names["convolution_backward"]
    assert counted.weight_gradients == 0


@each_row
def test_full_size_work_besides_the_models_own(name: str, options: dict[str, Any], added: dict[str, int]) -> None:
    """Passes over images are those of the table; new images are its copies: nothing else is of their size.

    With fast=True they are in channels_last once more, and copied back. Momentum is kept apart from the gradients.
    """
    gradients, expected = TABLE[name]
    fast = bool(options.get("fast"))
    counted, own = second_call(name, **options)
    passes_over_images = {operator: count for operator, count in expected.items() if operator not in SMALL}
    first = FIRST.get(name, {})
    if name in LEAVES and "eps" in options:  # after the first iteration the images left are fewer
        assert besides(counted.moving, own.moving, 1) == {"clone": 3, STEP: 1, **LEAVING}
        assert besides(counted.full_size, own.full_size, 1) == {"clone": 3, "index": 2}
        return
    moved = added_to({**passes_over_images, **first}, {"clone": 1, "copy_": 1} if fast else {})
    assert besides(counted.moving, own.moving, gradients) == moved
    made = {"clone": expected["clone"] + fast, **first}
    assert besides(counted.full_size, own.full_size, gradients) == made


@each_row
def test_nothing_is_waited_for(name: str, options: dict[str, Any], added: dict[str, int]) -> None:
    """Only on the host: iterations of a drawn eps are read from numbers that were drawn there."""
    counted, _ = second_call(name, **options)
    assert +counted.waits == ({"tolist": 2} if name in LEAVES and "eps" in options else {})


def test_a_look_at_a_later_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass over the images without waiting for a GPU: its result is read in the next call."""
    monkeypatch.setattr(range_watch, "_is_waited_for", lambda images: True)
    without, _ = second_call("step_ll")
    counted, _ = second_call("step_ll", validate="always")
    assert besides(counted.moving, without.moving, 1) == {"aminmax": 1}
    assert besides(counted.full_size, without.full_size, 1) == {}
    assert +counted.waits == {}


META = torch.device("meta")


@pytest.fixture
def steps_that_do_nothing() -> Iterator[None]:
    """The in-place operators, on the meta device, which computes nothing."""
    with torch.library._scoped_library("fastadv", "IMPL") as library:
        for name in ("sign_step_", "normalized_step_", "noise_step_"):
            library.impl(name, lambda *arguments: None, "Meta")
        yield


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.usefixtures("steps_that_do_nothing")
def test_nothing_leaves_the_device(name: str) -> None:
    """The meta device stands for one that the host waits for: none of its values is read, and no tensor moves."""
    model = ConvNet().eval().to(META)
    images, labels = (tensor.to(META) for tensor in batch(6))
    attack = attacks.create(name, model, eps=4, space=UNIT, seed=1, validate="never")
    with refuse_waits(META):
        assert attack(images, labels).shape == images.shape


T = torch.arange(3.0)
WAITS: dict[str, tuple[Callable[[], object], dict[str, int]]] = {
    "item": (lambda: T[0].item(), {"_local_scalar_dense": 1}),
    "float": (lambda: float(T[0]), {"_local_scalar_dense": 1}),
    "bool": (lambda: bool(T[0] > 0), {"_local_scalar_dense": 1}),
    "tolist": (lambda: T.tolist(), {"tolist": 1}),
    "cpu": (lambda: T.cpu(), {"cpu": 1}),
    "numpy": (lambda: T.numpy(), {"numpy": 1}),
    "asarray": (lambda: np.asarray(T), {"__array__": 1}),
    "nonzero": (lambda: T.nonzero(), {"nonzero": 1}),
    "where": (lambda: torch.where(T > 0), {"nonzero": 1}),
    "a mask": (lambda: T[T > 0], {"index": 1}),
    "equal": (lambda: torch.equal(T, T), {"equal": 1}),
    "an index": (lambda: T[torch.tensor([0, 2])], {}),
    "in place by a mask": (lambda: torch.zeros(3).masked_fill_(T > 0, 1.0), {}),
}


@pytest.mark.parametrize(("work", "expected"), WAITS.values(), ids=WAITS)
def test_what_is_counted_as_a_wait(work: Callable[[], object], expected: dict[str, int]) -> None:
    with Operators(T) as counted:
        work()
    assert +counted.waits == expected


@pytest.mark.parametrize("fold_bn", [False, True], ids=["as it is", "folded"])
def test_folding_takes_the_batch_norms_out_of_every_pass(fold_bn: bool) -> None:
    model, (images, _) = ConvNet().eval(), batch(6)
    own = passes(model, images)
    counted, _ = second_call("iter_ll", fold_bn=fold_bn)
    (batch_norm,) = (name for name in own.names if name.endswith("batch_norm"))
    assert counted.names[batch_norm] == (0 if fold_bn else 5 * own.names[batch_norm])
    assert counted.names[f"{batch_norm}_backward"] == (0 if fold_bn else 5 * own.names[f"{batch_norm}_backward"])
