"""Margin and DLR rules of target_grad, and row_losses: by hand, autograd, the reference, ties and extreme rows."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fastadv import ops, reference
from tests.ops.cases import DTYPES, at_odd_offset
from tests.ops.test_logits import assert_same_direction

NAN, INF = float("nan"), float("inf")
NEEDED = {"margin": 2, "dlr": 3, "targeted_dlr": 4}  # classes
each_margin = pytest.mark.parametrize("rule", reference.MARGINS)

LOGITS = torch.tensor([[5.0, 3.0, 1.0, 0.0, -2.0]])


# --- by hand ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "label", "target", "loss", "grad"),
    [
        ("margin", 0, 0, -2.0, [-1, 1, 0, 0, 0]),
        ("margin", 3, 0, 5.0, [1, 0, 0, -1, 0]),
        # (z_t - z_y) / (5 - 1): by the quotient rule, a quarter of each, and minus the loss times (1, -1) over 4
        ("dlr", 0, 0, -0.5, [-0.25 + 0.125, 0.25, -0.125, 0, 0]),
        ("dlr", 1, 0, 0.5, [0.25 - 0.125, -0.25, 0.125, 0, 0]),
        ("dlr", 3, 0, 1.25, [0.25 - 0.3125, 0, 0.3125, -0.25, 0]),
        ("dlr", 2, 0, 1.0, [0, 0, 0, 0, 0]),  # the third class: the loss is 1 whatever the logits
        # (z_t - z_y) / (5 - (1 + 0) / 2): over 4.5, and minus the loss times (1, -1/2, -1/2) over 4.5
        ("targeted_dlr", 0, 1, -2 / 4.5, [-1 / 4.5 + 2 / 4.5**2, 1 / 4.5, -1 / 4.5**2, -1 / 4.5**2, 0]),
        ("targeted_dlr", 0, 4, -7 / 4.5, [-1 / 4.5 + 7 / 4.5**2, 0, -3.5 / 4.5**2, -3.5 / 4.5**2, 1 / 4.5]),
        ("targeted_dlr", 2, 3, -1 / 4.5, [1 / 4.5**2, 0, -1 / 4.5 - 0.5 / 4.5**2, 1 / 4.5 - 0.5 / 4.5**2, 0]),
        ("targeted_dlr", 1, 1, 0.0, [0, 0, 0, 0, 0]),  # a target that is the label
    ],
)
@pytest.mark.parametrize("module", [ops, reference], ids=["ops", "reference"])
def test_by_hand(module, rule: str, label: int, target: int, loss: float, grad: list[float]) -> None:
    for order in (torch.arange(5), torch.tensor([3, 1, 4, 0, 2])):  # the same classes in another order
        place = order.argsort()  # class k of LOGITS is class place[k] here
        labels, targets = place[[label]], place[[target]]
        logits = LOGITS[:, order]
        result = module.target_grad(logits, rule, labels, targets=targets)
        assert result.target.tolist() == (targets if rule == "targeted_dlr" else labels).tolist()
        torch.testing.assert_close(
            result.dlogits, torch.tensor([grad], dtype=torch.float32)[:, order], atol=1e-7, rtol=1e-6
        )
        torch.testing.assert_close(module.row_losses(logits, labels, rule, targets), torch.tensor([loss]))


def test_cross_entropy_and_log_odds_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]]))
    for label, p in enumerate((0.5, 0.3, 0.2)):
        labels = torch.tensor([label])
        torch.testing.assert_close(ops.row_losses(logits, labels, "ce"), torch.tensor([-math.log(p)]))
        torch.testing.assert_close(ops.row_losses(logits, labels, "log_odds"), torch.tensor([math.log((1 - p) / p)]))


# --- against autograd ------------------------------------------------------------------------------------------------


def as_the_authors_write_it(rule: str, z: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The losses of equations 6 and 7 from a sorted row, [N]."""
    at, ordered = torch.arange(len(z)), z.sort(dim=1).values
    of_label = z[at, labels]
    if rule == "targeted_dlr":
        return -(of_label - z[at, targets]) / (ordered[:, -1] - (ordered[:, -3] + ordered[:, -4]) / 2 + 1e-12)
    others = z.scatter(1, labels[:, None], -INF).amax(dim=1)
    return others - of_label if rule == "margin" else -(of_label - others) / (ordered[:, -1] - ordered[:, -3] + 1e-12)


@each_margin
@pytest.mark.parametrize("classes", [4, 5, 10, 1000])
def test_gradient_is_the_derivative_of_the_summed_loss(rule: str, classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(64, classes, dtype=torch.float64, generator=generator)).requires_grad_()
    labels = torch.randint(0, classes, (64,), generator=generator)
    order = logits.detach().argsort(dim=1, descending=True)
    labels[:8], labels[8:16] = order[:8, 0], order[8:16, 2]
    targets = (labels + torch.randint(1, classes, (64,), generator=generator)) % classes
    losses = as_the_authors_write_it(rule, logits, labels, targets)
    (expected,) = torch.autograd.grad(losses.sum(), logits)
    torch.testing.assert_close(ops.target_grad(logits, rule, labels, targets=targets).dlogits, expected)
    torch.testing.assert_close(ops.row_losses(logits, labels, rule, targets), losses.detach())


# --- against the reference -------------------------------------------------------------------------------------------


def rows(shape: tuple[int, int], dtype: torch.dtype, offset: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, of which every third row has many ties, labels, of which some are predicted or third, and targets."""
    generator = torch.Generator().manual_seed(shape[1])
    logits = (4 * torch.randn(shape, generator=generator)).to(dtype)
    logits[::3] = logits[::3].round()
    labels = torch.randint(0, shape[1], shape[:1], generator=generator)
    order = logits.double().argsort(dim=1, descending=True, stable=True)
    labels[1::4], labels[2::4] = order[1::4, 0], order[2::4, 2]
    targets = (labels + torch.randint(1, shape[1], shape[:1], generator=generator)) % shape[1]
    return at_odd_offset(logits, offset), labels, targets


@each_margin
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize(
    "shape",
    [(0, 5), (33, 4), (33, 10), (7, 31), (7, 33), (9, 129), (5, 1000), (5, 1024), (4, 1025), (2, 21841)],
    ids=str,
)
def test_gradients_against_the_reference(rule: str, shape: tuple[int, int], offset: int, dtype: torch.dtype) -> None:
    logits, labels, targets = rows(shape, dtype, offset)
    result, expected = (m.target_grad(logits, rule, labels, targets=targets) for m in (ops, reference))
    assert torch.equal(result.target, expected.target)
    torch.testing.assert_close(result.dlogits, expected.dlogits)
    assert_same_direction(*(m.scaled_target_grad(logits, rule, labels, targets=targets) for m in (ops, reference)))


@pytest.mark.parametrize("rule", reference.LOSSES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize(
    "shape",
    [(0, 5), (33, 4), (33, 10), (7, 31), (7, 33), (9, 129), (5, 1000), (5, 1024), (4, 1025), (2, 21841)],
    ids=str,
)
def test_losses_against_the_reference(rule: str, shape: tuple[int, int], offset: int, dtype: torch.dtype) -> None:
    logits, labels, targets = rows(shape, dtype, offset)
    result, expected = (m.row_losses(logits, labels, rule, targets) for m in (ops, reference))
    torch.testing.assert_close(result, expected, rtol=1e-5 if dtype != torch.float64 else 1e-12, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_fewest_classes(dtype: torch.dtype) -> None:
    for rule, needed in NEEDED.items():
        logits = torch.randn(20, needed, generator=torch.Generator().manual_seed(0)).to(dtype)
        labels, targets = torch.arange(20) % needed, torch.arange(1, 21) % needed
        for module in (ops, reference):
            assert module.target_grad(logits, rule, labels, targets=targets).dlogits.isfinite().all()
        torch.testing.assert_close(
            *(m.scaled_target_grad(logits, rule, labels, targets=targets).exponent for m in (ops, reference))
        )
    two = torch.tensor([[1.0, 3.0]], dtype=dtype)
    assert ops.row_losses(two[:, :1], torch.tensor([0]), "ce").item() == 0
    assert ops.row_losses(two[:, :1], torch.tensor([0]), "log_odds").item() == -INF
    assert ops.row_losses(two, torch.tensor([0]), "log_odds").item() == 2


@pytest.mark.parametrize("rule", ["ce", "log_odds"])
@pytest.mark.parametrize("margin", [-200.0, -20.0, 0.0, 20.0, 90.0, 200.0, 60_000.0])
def test_the_loss_of_a_confident_network(rule: str, margin: float) -> None:
    """In float32 PyTorch's cross-entropy is zero from a margin of 17 on."""
    logits = torch.tensor([[margin, 0.0, -1.0]])
    log_odds = math.log1p(math.exp(-1.0)) - margin
    expected = (
        log_odds
        if rule == "log_odds"
        else log_odds + math.log1p(math.exp(-log_odds))
        if log_odds > 0
        else math.log1p(math.exp(log_odds))
    )
    assert ops.row_losses(logits, torch.tensor([0]), rule).item() == pytest.approx(expected, rel=1e-5, abs=1e-40)
    wide = functional.cross_entropy(logits.double(), torch.tensor([0])).item()
    if rule == "ce" and margin < 20:
        assert wide == pytest.approx(expected, rel=1e-6)


# --- ties, zeros and rows that are not finite ------------------------------------------------------------------------


def test_of_equal_logits_the_lower_class_comes_first() -> None:
    """One of several gradients that differ, and the one that the reference takes."""
    logits = torch.tensor([[2.0, 2.0, 2.0, 0.0], [0.0, 3.0, 1.0, 1.0], [1.0, 1.0, 4.0, 3.0]])
    labels = torch.tensor([1, 1, 2])
    margin = ops.target_grad(logits, "margin", labels).dlogits
    assert margin.tolist() == [[1, -1, 0, 0], [0, -1, 1, 0], [0, 0, -1, 1]]
    dlr = ops.target_grad(logits[1:], "dlr", labels[1:]).dlogits
    assert dlr[0].tolist() == pytest.approx([0, 0, 0.5, -0.5])  # z_t = class 2 and z_3 = class 3, though they are equal
    assert dlr[1, 1] == 0 and dlr[1, 0] == pytest.approx(-1 / 9)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", [4, 5, 33, 1000, 1025, 3000])
def test_equal_logits_anywhere_in_a_row(classes: int, dtype: torch.dtype) -> None:
    """In one thread, in one warp, in two warps."""
    places = sorted({0, 1, 3, 31, 32, 256, 257, classes // 2, classes - 2, classes - 1} & set(range(classes)))
    logits = torch.zeros(len(places), classes, dtype=dtype)
    logits[:, places] = 1.0
    logits[torch.arange(len(places)), places] = 2.0
    labels, targets = torch.tensor(places), torch.tensor(places).roll(1)
    for rule in reference.MARGINS:
        found, expected = (m.target_grad(logits, rule, labels, targets=targets).dlogits for m in (ops, reference))
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(*(m.row_losses(logits, labels, rule, targets) for m in (ops, reference)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_denominator_is_zero(dtype: torch.dtype) -> None:
    """The largest logits are equal: the offset is what is left of it, and the gradient that of the margin."""
    logits = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0]], dtype=dtype)
    for module in (ops, reference):
        for rule in ("dlr", "targeted_dlr"):
            for label, target in ((0, 1), (2, 3)):
                labels, targets = torch.tensor([label]), torch.tensor([target])
                _, grad, exponent = module.scaled_target_grad(logits, rule, labels, targets=targets)
                other = target if rule == "targeted_dlr" else 1 if label == 0 else 0
                right = torch.zeros(1, 5, dtype=dtype)
                right[0, label], right[0, other] = -1e12 * 2.0**-40, 1e12 * 2.0**-40
                torch.testing.assert_close(grad, right)
                assert exponent.item() == 40
                assert module.row_losses(logits, labels, rule, targets).item() == 0
            assert module.row_losses(logits, torch.tensor([4]), rule, torch.tensor([0])).item() == pytest.approx(1e12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4, 1e9])
def test_a_label_in_third_place(scale: float, dtype: torch.dtype) -> None:
    """The loss is 1 but for the offset, so that is what the derivative is of: no rounding errors take its place."""
    logits = scale * torch.tensor([[0.3, 1.7, 0.9, 0.2]], dtype=dtype)
    _, grad, exponent = ops.scaled_target_grad(logits, "dlr", torch.tensor([0]))
    spread = (logits[0, 1] - logits[0, 0]).double().item()
    size = 1e-12 / spread**2
    assert (grad.double() * 2.0 ** exponent.item()).tolist()[0] == pytest.approx([-size, size, 0, 0], rel=1e-6)
    assert 0.5 <= grad[0, 1] < 1


@each_margin
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", [4, 33, 1000, 1025])
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_row_that_is_not_finite_does_not_touch_its_neighbours(
    bad: float, classes: int, dtype: torch.dtype, rule: str
) -> None:
    logits, labels, targets = rows((3, classes), dtype)
    for place in (0, classes - 1, int(labels[1])):
        spoilt = logits.clone()
        spoilt[1, place] = bad
        for module in (ops, reference):
            grad = module.target_grad(spoilt, rule, labels, targets=targets).dlogits
            _, scaled, exponent = module.scaled_target_grad(spoilt, rule, labels, targets=targets)
            losses = module.row_losses(spoilt, labels, rule, targets)
            assert torch.equal(grad[::2], module.target_grad(logits, rule, labels, targets=targets).dlogits[::2])
            if bad == -INF and place != labels[1]:
                continue  # a class without probability, which counts only if it is among the first few
            assert grad[1].isnan().all() and scaled[1].isnan().all() and exponent[1] == 0
            assert losses[1].isnan() or bad == -INF
        grads = [m.target_grad(spoilt, rule, labels, targets=targets).dlogits for m in (ops, reference)]
        torch.testing.assert_close(*grads, equal_nan=True)
        losses = [m.row_losses(spoilt, labels, rule, targets) for m in (ops, reference)]
        torch.testing.assert_close(*losses, equal_nan=True)


@pytest.mark.parametrize("rule", reference.LOSSES)
def test_masked_classes_change_nothing(rule: str) -> None:
    logits = torch.tensor([[1.0, -INF, 0.5, 3.0, 2.0, -INF]])
    kept, labels, targets = [0, 2, 3, 4], torch.tensor([2]), torch.tensor([3])
    result = ops.row_losses(logits, labels, rule, targets)
    torch.testing.assert_close(result, ops.row_losses(logits[:, kept], labels - 1, rule, targets - 1))
    assert result.isfinite()
    if rule in reference.MARGINS:
        grad = ops.target_grad(logits, rule, labels, targets=targets).dlogits
        assert torch.equal(
            grad[:, kept], ops.target_grad(logits[:, kept], rule, labels - 1, targets=targets - 1).dlogits
        )
        assert (grad[:, [1, 5]] == 0).all()


@pytest.mark.parametrize("rule", ["ce", "log_odds"])
@pytest.mark.parametrize(
    "row", [[NAN, 0.0, 1.0], [0.0, NAN, 1.0], [INF, 0.0, 1.0], [0.0, INF, 1.0], [-INF] * 3], ids=str
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_losses_of_rows_that_are_not_finite(row: list[float], rule: str, dtype: torch.dtype) -> None:
    logits = torch.tensor([row, [1.0, 2.0, 3.0]], dtype=dtype)
    for module in (ops, reference):
        losses = module.row_losses(logits, torch.tensor([0, 0]), rule)
        assert losses[0].isnan() and losses[1].isfinite()
        assert module.row_losses(torch.tensor([[-INF, 0.0]], dtype=dtype), torch.tensor([0]), rule).item() == INF


# --- arguments -------------------------------------------------------------------------------------------------------

FOUR, LABELS = torch.zeros(4, 4), torch.arange(4)
MISTAKES = {
    "labels missing": (lambda: ops.target_grad(FOUR, "dlr"), ValueError, "target_grad: rule 'dlr' needs labels [N]"),
    "targets missing": (
        lambda: ops.scaled_target_grad(FOUR, "targeted_dlr", LABELS),
        ValueError,
        "scaled_target_grad: rule 'targeted_dlr' needs targets [N]",
    ),
    "targets of losses missing": (
        lambda: ops.row_losses(FOUR, LABELS, "targeted_dlr"),
        ValueError,
        "row_losses: rule 'targeted_dlr' needs targets [N]",
    ),
    "target too large": (
        lambda: ops.row_losses(FOUR, LABELS, "targeted_dlr", LABELS + 1),
        ValueError,
        "targets must be in [0, 4), got 4 at row 3",
    ),
    "label too large": (
        lambda: ops.target_grad(FOUR, "margin", LABELS + 1),
        ValueError,
        "labels must be in [0, 4), got 4",
    ),
    "targets dtype": (
        lambda: ops.target_grad(FOUR, "targeted_dlr", LABELS, targets=LABELS.int()),
        TypeError,
        "targets must be int64, got int32",
    ),
    "targets shape": (
        lambda: ops.row_losses(FOUR, LABELS, "targeted_dlr", LABELS[:2]),
        ValueError,
        "targets must be a contiguous tensor of shape [4], got [2]",
    ),
    "rule": (
        lambda: ops.target_grad(FOUR, "hinge", LABELS),
        ValueError,
        "rule must be 'label', 'predicted', 'least_likely', 'random', 'entropy', 'margin', 'dlr' or 'targeted_dlr', "
        "got 'hinge'",
    ),
    "rule of losses": (
        lambda: ops.row_losses(FOUR, LABELS, "label"),
        ValueError,
        "rule must be 'ce', 'log_odds', 'margin', 'dlr' or 'targeted_dlr', got 'label'",
    ),
    "labels of losses": (lambda: ops.row_losses(FOUR, None, "ce"), TypeError, "labels must be a tensor, got NoneType"),
}


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(call, error, message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()


@each_margin
def test_too_few_classes(rule: str) -> None:
    labels = torch.zeros(2, dtype=torch.int64)
    logits = torch.zeros(2, NEEDED[rule] - 1)
    message = rf"rule '{rule}' needs at least {NEEDED[rule]} classes, got {NEEDED[rule] - 1}$"
    with pytest.raises(ValueError, match="target_grad: " + message):
        ops.target_grad(logits, rule, labels, targets=labels)
    with pytest.raises(ValueError, match="row_losses: " + message):
        ops.row_losses(logits, labels, rule, labels)


def test_logits_and_classes_in_any_layout() -> None:
    logits, classes = torch.randn(7, 4).t(), torch.tensor([[0, 1], [2, 3], [4, 5], [6, 0]])  # [4, 7], [4, 2]
    labels, targets = classes.unbind(1)  # not contiguous
    for rule in reference.LOSSES:
        expected = ops.row_losses(logits.contiguous(), labels.clone(), rule, targets.clone())
        assert torch.equal(ops.row_losses(logits, labels, rule, targets), expected)
