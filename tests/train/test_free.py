"""FreeTask: perturbations computed by hand, their bounds, and what they must not depend on."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fastadv import PixelSpace, TruncatedNormalEps, ops
from fastadv.train import AdversarialTask, FreeTask
from tests.attacks.models import SPACES, ConvNet, assert_in_range, batch
from tests.train.test_task import RAW, Pixels, compiled

UNIT = PixelSpace.unit()


def shown_to(model: nn.Module) -> list[Tensor]:
    """Record the model's inputs from now on."""
    shown: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0].detach().clone()))
    return shown


def train(task: FreeTask, images: Tensor, labels: Tensor, replays: int = 1) -> None:
    for _ in range(replays):
        task(images, labels).backward()


# --- by hand ---------------------------------------------------------------------------------------------------------


def pixels(*rows: tuple[float, float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).view(-1, 2, 1, 1)


def test_perturbations_by_hand() -> None:
    """The logits are the pixels: for class 0 the first one falls by alpha and the second one rises, however far."""
    model = Pixels()
    task, shown = FreeTask(model, eps=2.5, alpha=1, space=RAW), shown_to(model)
    first, second = pixels((100, 110), (7, 7)), pixels((50, 60))
    train(task, first, torch.tensor([0, 1]), replays=4)
    train(task, second, torch.tensor([1]), replays=2)  # an uneven last minibatch
    train(task, first, torch.tensor([0, 1]))
    expected = [
        *([[100, 110], [7, 7]], [[99, 111], [8, 6]], [[98, 112], [9, 5]], [[97.5, 112.5], [9.5, 4.5]]),
        *([[47.5, 62.5]], [[48.5, 61.5]]),  # carried over from the first image, then reversed
        [[99.5, 110.5], [9.5, 4.5]],  # carried over from the second image
    ]
    assert [images.flatten(1).tolist() for images in shown] == expected
    assert first.flatten().tolist() == [100, 110, 7, 7] and second.flatten().tolist() == [50, 60]


def test_a_step_starts_inside_the_pixel_range() -> None:
    """Not from -4, the perturbation of a black pixel in Algorithm 1: the pixel would move only a step later."""
    model = Pixels()
    task, shown = FreeTask(model, eps=4, space=RAW), shown_to(model)
    for label in (0, 0, 1, 1):
        train(task, pixels((1, 254)), torch.tensor([label]))
    assert [images.flatten().tolist() for images in shown] == [[1, 254], [0, 255], [0, 255], [4, 251]]


def test_loss_is_the_mean_cross_entropy_of_what_is_shown() -> None:
    task = FreeTask(Pixels(), eps=1, space=RAW, label_smoothing=0.5)
    images, labels = pixels((8, 8 + math.log(3))), torch.tensor([1])
    smooth = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)  # targets 3/4 and 1/4 against p = 3/4 and 1/4
    with torch.no_grad():
        assert task(images, labels).item() == pytest.approx(smooth, rel=1e-12)
    train(task, images, labels)
    one_closer = math.log1p(math.exp(2 - math.log(3)))  # class 1's logit fell by 1 and class 0's rose
    other = math.log1p(math.exp(math.log(3) - 2))
    assert task(images, labels).item() == pytest.approx(0.75 * one_closer + 0.25 * other, rel=1e-12)


@pytest.mark.parametrize(
    ("space", "eps", "expected"),
    [
        (PixelSpace(2.0, 0.5), 8, (190.0, 222.0)),  # 97 and 113 pixels, less 2, over 0.5
        (PixelSpace(2.0, 0.25, -200, 300), 8, (380.0, 444.0)),
        (PixelSpace(1.5, 0.5, 0.0, 200.0), 1, (195.0, 219.0)),  # eps ends the step
        (PixelSpace(0.5, 0.5, 0.0, 1.0), 8, None),  # the range does
    ],
)
def test_spaces_of_a_small_std(space: PixelSpace, eps: float, expected: tuple[float, float] | None) -> None:
    """Pixels of 100 and 110, or 0 and 1: the first falls by 3, the second rises by 3."""
    model = Pixels()
    task, shown = FreeTask(model, eps=eps, alpha=3, space=space), shown_to(model)
    images = space.from_pixels(pixels((100, 110) if expected else (0, 1)), torch.float64)
    train(task, images, torch.tensor([0]), replays=2)
    assert shown[1].flatten().tolist() == list(expected or (-1.0, 1.0))


# --- written out -----------------------------------------------------------------------------------------------------


def test_agrees_with_the_algorithm_written_out() -> None:
    """Several minibatches, including an uneven one, with weight updates: both networks see and learn the same."""
    space, eps = PixelSpace.imagenet(), 12
    minibatches = [batch(n, space, torch.float64, seed=n) for n in (6, 6, 4, 6)]
    networks = [ConvNet().double().eval(), ConvNet().double().eval()]
    optimizers = [torch.optim.SGD(network.parameters(), lr=0.1) for network in networks]
    task, shown = FreeTask(networks[0], eps=eps, space=space), shown_to(networks[0])
    std = torch.tensor(space.std, dtype=torch.float64).view(3, 1, 1)
    low, high = (torch.tensor(bound, dtype=torch.float64).view(3, 1, 1) for bound in space.bounds(torch.float64))
    delta = torch.zeros(6, 3, 8, 8, dtype=torch.float64)
    for images, labels in minibatches:
        for _ in range(3):
            optimizers[0].zero_grad()
            task(images, labels).backward()
            optimizers[0].step()

            m = len(images)
            x = (images + delta[:m]).clamp(low, high).requires_grad_()  # [m, 3, 8, 8]
            torch.testing.assert_close(shown[-1], x.detach(), rtol=0, atol=1e-14)
            optimizers[1].zero_grad()
            cross_entropy(networks[1](x), labels).backward()
            optimizers[1].step()
            assert x.grad is not None
            delta[:m] = (x.detach() - images + eps / std * x.grad.sign()).clamp(-eps / std, eps / std)
    for mine, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)
    assert len(shown) == 12 and not torch.equal(shown[-1], minibatches[-1][0])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", SPACES)
def test_ball_and_pixel_range_hold_to_the_last_bit(name: str, dtype: torch.dtype, layout: torch.memory_format) -> None:
    """In half precision, too: images are rounded in the same way after a step of any length."""
    space, model = SPACES[name], ConvNet().to(dtype)
    images, labels = batch(6, space, dtype)
    images = images.contiguous(memory_format=layout)
    task, shown = FreeTask(model, eps=7.3, alpha=3.1, space=space), shown_to(model)
    train(task, images, labels, replays=4)
    other, labels = batch(5, space, dtype, seed=1)
    train(task, other.contiguous(memory_format=layout), labels)
    ends = [
        ops.sign_step_(clean.clone(), clean.clone(), torch.ones_like(clean), sign * 1e4, 7.3, space)
        for clean in (images, other)
        for sign in (-1, 1)
    ]
    for seen, (least, most) in zip(shown, [ends[:2]] * 4 + [ends[2:]], strict=True):
        assert (seen >= least).all() and (seen <= most).all()
        assert_in_range(seen, space)
        assert seen.is_contiguous(memory_format=layout)
    assert (shown[3] == ends[0]).any() and (shown[3] == ends[1]).any()


# --- what nothing depends on -----------------------------------------------------------------------------------------


def replayed(wrap: Callable[[nn.Module], nn.Module], factor: float = 1.0, **options: Any) -> list[Tensor]:
    """A network's inputs in three replays and one more minibatch, and the last gradients of its weights."""
    network = ConvNet().eval()
    shown = shown_to(network.features)
    task = FreeTask(wrap(network), eps=6, space=UNIT, **options)
    images, labels = batch()
    for _ in range(3):
        (factor * task(images, labels)).backward()
    other, labels = batch(seed=1)
    network.zero_grad()
    task(other, labels).backward()
    return shown + [parameter.grad for parameter in network.parameters()]  # type: ignore[return-value]


@pytest.fixture
def process_group() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("wrap", [nn.parallel.DistributedDataParallel, compiled], ids=["ddp", "compile"])
def test_wrapped_models(wrap: Callable[[nn.Module], nn.Module], process_group: None) -> None:
    for got, expected in zip(replayed(wrap), replayed(lambda network: network), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


def test_the_scale_of_the_loss_does_not_matter() -> None:
    scaled, plain = replayed(lambda network: network, factor=1024.0), replayed(lambda network: network)
    assert all(torch.equal(got, expected) for got, expected in zip(scaled, plain, strict=True))


def test_autocast() -> None:
    """The passes run in bfloat16; perturbations and images stay in float32."""
    perturbations = []
    for enabled in (True, False):
        model = ConvNet().eval()
        task, shown = FreeTask(model, eps=6, space=UNIT), shown_to(model.features[1])
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = task(*batch())
        loss.backward()
        assert shown[0].dtype == (torch.bfloat16 if enabled else torch.float32)
        perturbations += task.state_dict()["perturbations"]
    half, full = perturbations  # [6, 3, 8, 8]
    assert half.dtype == full.dtype == torch.float32
    assert (half == full).float().mean() > 0.95 and (full.abs() > 5.999 / 255).all()


# --- what it leaves alone --------------------------------------------------------------------------------------------


def test_a_call_leaves_no_trace_besides_the_weights_gradients() -> None:
    model = ConvNet()
    model.head.eval()
    images, labels = batch()
    before = images.clone()
    modes = [module.training for module in model.modules()]
    train(FreeTask(model, eps=6, space=UNIT), images, labels, replays=3)
    assert torch.equal(images, before) and images.grad is None and not images.requires_grad
    assert [module.training for module in model.modules()] == modes
    updates = [buffer.item() for name, buffer in model.named_buffers() if name.endswith("num_batches_tracked")]
    assert updates == [3, 3]  # once in each iteration


def test_the_images_gradient_is_not_kept() -> None:
    """A loss keeps its graph alive, in most loops until the next loss is computed."""
    model = ConvNet()
    inputs: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    loss = FreeTask(model, eps=6, space=UNIT)(*batch())
    loss.backward()
    assert inputs[0].requires_grad and inputs[0].grad is None


def test_gradients_of_the_weights_are_those_of_the_loss_alone() -> None:
    model = ConvNet().double().eval()
    shown = shown_to(model)
    images, labels = batch(dtype=torch.float64)
    task = FreeTask(model, eps=6, space=UNIT)
    train(task, images, labels)
    model.zero_grad()
    train(task, images, labels)
    got = [parameter.grad.clone() for parameter in model.parameters()]  # type: ignore[union-attr]
    model.zero_grad()
    cross_entropy(model(shown[1]), labels).backward()
    for mine, parameter in zip(got, model.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad)


def test_a_call_without_a_backward_pass_moves_nothing() -> None:
    model = ConvNet().eval()
    task, shown = FreeTask(model, eps=6, space=UNIT), shown_to(model)
    images, labels = batch()
    train(task, images, labels)
    with torch.no_grad():
        for _ in range(2):
            task(images, labels)
    assert not torch.equal(shown[1], images) and torch.equal(shown[1], shown[2])


def test_accuracy_counts_every_example_as_adversarial() -> None:
    images = torch.tensor([[9.0, 0.0]] * 8).view(8, 2, 1, 1)
    task = FreeTask(Pixels(), eps=1, space=RAW)
    assert task.accuracy() == (None, None)
    task(images, torch.tensor([0, 0, 0, 1, 0, 0, 1, 1]))
    assert task.accuracy() == (None, 5 / 8)


# --- accumulation and state ------------------------------------------------------------------------------------------


def test_each_accumulated_minibatch_has_perturbations_of_its_own() -> None:
    model = Pixels()
    task, shown = FreeTask(model, eps=4, alpha=1, accumulate=2, space=RAW), shown_to(model)
    one, other = (pixels((100, 100)), torch.tensor([0])), (pixels((50, 50)), torch.tensor([1]))
    for minibatch in (one, other) * 3:
        (task(*minibatch) / 2).backward()
    assert [images.flatten().tolist() for images in shown] == [
        *([100, 100], [50, 50], [99, 101], [51, 49], [98, 102], [52, 48])
    ]


def test_state_continues_the_perturbations() -> None:
    images, labels = batch()
    model = ConvNet().eval()
    shown = shown_to(model)
    task, other = (FreeTask(model, eps=6, alpha=2, accumulate=2, space=UNIT) for _ in range(2))
    train(task, images, labels, replays=3)
    state = task.state_dict()
    train(task, images, labels, replays=3)  # a state is a copy: it does not change with its task
    expected = shown[3:]
    shown.clear()
    train(other, *batch(seed=1))
    shown.clear()
    for _ in range(2):  # or with a task that it was loaded into
        other.load_state_dict(state)
        train(other, images, labels, replays=3)
    assert all(torch.equal(got, wanted) for got, wanted in zip(shown, expected * 2, strict=True))


def test_state_of_another_accumulation() -> None:
    """When a run continues with another number of processes, missing perturbations start at 0."""
    images, labels = batch()
    task, more, fewer = (FreeTask(ConvNet(), eps=6, accumulate=n, space=UNIT) for n in (2, 3, 1))
    train(task, images, labels, replays=2)
    first, second = task.state_dict()["perturbations"]
    for other in (more, fewer):
        other.load_state_dict(task.state_dict())
    for got, wanted in zip(more.state_dict()["perturbations"], [first, second, None], strict=True):
        assert got is wanted is None or torch.equal(got, wanted)
    [only] = fewer.state_dict()["perturbations"]
    assert torch.equal(only, first) and not torch.equal(first, second)


def test_a_larger_minibatch_brings_perturbations_of_zero() -> None:
    model = ConvNet().eval()
    task, shown = FreeTask(model, eps=6, space=UNIT), shown_to(model)
    images, labels = batch()
    train(task, images[:2], labels[:2])
    train(task, images, labels)
    assert not torch.equal(shown[1][:2], images[:2]) and torch.equal(shown[1][2:], images[2:])


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"eps": 0}, ValueError, "eps must be positive: without a perturbation this is standard training"),
        ({"eps": -1}, ValueError, "eps must be zero or more and finite"),
        ({"eps": math.nan}, ValueError, "eps"),
        ({"eps": TruncatedNormalEps()}, TypeError, "one number for all examples.*got TruncatedNormalEps"),
        ({"eps": torch.ones(4)}, TypeError, "one number for all examples.*got Tensor"),
        ({"alpha": 0}, ValueError, "alpha must be positive: without a step no example"),
        ({"accumulate": 0}, ValueError, "accumulate must be an integer of at least 1, got 0"),
        ({"accumulate": 2.0}, ValueError, "accumulate must be an integer of at least 1, got 2.0"),
        ({"accumulate": True}, ValueError, "accumulate must be an integer of at least 1, got True"),
        ({"aux_weight": -1}, ValueError, "aux_weight must be a number at least 0, got -1"),
        ({"label_smoothing": 1}, ValueError, r"label_smoothing must be a number at least 0 and below 1, got 1"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        FreeTask(Pixels(), **{"eps": 8, "space": RAW, **options})


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (lambda x, y: (x.requires_grad_(), y), ValueError, "must not require a gradient"),
        (lambda x, y: (x.to(torch.uint8), y), TypeError, "floating point"),
        (lambda x, y: (x, y.int()), TypeError, "labels must be an int64 tensor"),
        (lambda x, y: (x, y[:-1]), ValueError, r"\[6\], got \[5\]"),
        (lambda x, y: (x[:0], y[:0]), ValueError, r"must have at least one image, got images \[0, 3, 8, 8\]"),
        (lambda x, y: (300 * x, y), ValueError, "outside the pixel range"),
    ],
)
def test_data_that_is_refused(change: Any, kind: type[Exception], said: str) -> None:
    task = FreeTask(ConvNet(), eps=8, space=UNIT)
    with pytest.raises(kind, match=said):
        task(*change(*batch()))
    assert task.iteration == 0 and task.state_dict()["perturbations"] == [None]


BACKWARDS: dict[str, tuple[int, Callable[[Tensor, nn.Module], object]]] = {
    "whole": (0, lambda loss, model: loss.backward()),
    "of a multiple": (0, lambda loss, model: (8 * loss).backward()),
    "for weights alone": (1, lambda loss, model: loss.backward(inputs=list(model.parameters()))),
    "torch.autograd.grad": (1, lambda loss, model: torch.autograd.grad(loss, list(model.parameters()))),
    "none": (1, lambda loss, model: None),
}


@pytest.mark.parametrize(("warned", "backward"), BACKWARDS.values(), ids=BACKWARDS)
def test_a_perturbation_without_updates_warns_once(warned: int, backward: Callable[[Tensor, nn.Module], Any]) -> None:
    task = FreeTask(ConvNet(), eps=8, space=UNIT, accumulate=2)
    images, labels = batch()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            backward(task(images, labels) + task(images, labels), task.model)
    assert [warning.filename for warning in caught] == [__file__] * warned
    assert all("Call backward() on the returned loss before" in str(warning.message) for warning in caught)
    assert any(bool(delta.any()) for delta in task.state_dict()["perturbations"]) == (not warned)


def test_an_occasional_loss_without_backward_does_not_warn() -> None:
    task = FreeTask(ConvNet(), eps=8, space=UNIT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            task(*batch())
            train(task, *batch(), replays=2)


@pytest.mark.parametrize(("of_the_rest", "said"), [(0.0, 6), (math.inf, 0), (1.0, 0)])
def test_images_without_a_gradient_warn_once(of_the_rest: float, said: int) -> None:
    """But not for the gradients that a GradScaler meets before it has found its scale."""
    model = ConvNet()
    factors = of_the_rest * torch.arange(1.0, 6)
    task = FreeTask(lambda x: model(x.round()) + factors * x.mean((1, 2, 3))[:, None], eps=8, space=UNIT)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            task(*batch()).backward()
    messages = [str(warning.message) for warning in caught]
    assert [f"free training: the gradient is zero or not finite for {said} of 6" in m for m in messages] == [True] * (
        said > 0
    )


def test_images_of_another_shape_are_refused() -> None:
    task = FreeTask(ConvNet(), eps=8, space=UNIT)
    train(task, *batch())
    with pytest.raises(ValueError, match=r"those before, \[3, 8, 8\], whose.*got \[3, 10, 10\]"):
        task(*batch(shape=(3, 10, 10)))


def test_an_eps_on_another_scale_warns() -> None:
    with pytest.warns(UserWarning, match="less than one grey level"):
        FreeTask(Pixels(), eps=8 / 255, space=UNIT)


@pytest.mark.parametrize(
    ("state", "got"),
    [
        (AdversarialTask(Pixels(), space=RAW).state_dict(), "iteration, stream"),
        ({}, "none"),
        ({1: 2}, "1"),
        (None, "NoneType"),
        (["iteration", "perturbations"], "list"),
    ],
)
def test_the_state_of_something_else_is_refused(state: Any, got: str) -> None:
    with pytest.raises(ValueError, match=f"a FreeTask's state has the keys iteration and perturbations, got {got}$"):
        FreeTask(Pixels(), eps=8, space=RAW).load_state_dict(state)
