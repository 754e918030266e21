"""capture=True: replaying a recorded iteration gives the same images, or a warning says why it is not possible.

On the CPU a tape takes the place of CUDA graphs; tests/gpu runs the graphs themselves.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.inception import InceptionOutputs

from fastadv import PixelSpace, TruncatedNormalEps, attacks
from fastadv.attacks.engine import cuda_graph_recorder
from tests.attacks.gradients import GRADIENTS
from tests.attacks.models import ConvNet, batch
from tests.attacks.tape import Tape, TapeRecorder, tensors_in

GRADIENT_ATTACKS = [name for name in GRADIENTS if issubclass(attacks.get(name), attacks.GradientAttack)]


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[TapeRecorder]:
    """The recorders that attacks create, here tapes."""
    made: list[TapeRecorder] = []

    def create(device: torch.device) -> TapeRecorder:
        made.append(TapeRecorder(device))
        return made[-1]

    monkeypatch.setattr(cuda_graph_recorder, "create_recorder", create)
    return made


def replays(recorders: list[TapeRecorder]) -> int:
    return sum(tape.replays for one in recorders for tape in one.tapes)


def recordings(recorders: list[TapeRecorder]) -> int:
    return sum(len(one.tapes) for one in recorders)


def both(name: str, model: Callable[..., Any], **options: Any) -> tuple[attacks.Attack, attacks.Attack]:
    """(captured, eager)."""
    return tuple(attacks.create(name, model, seed=3, capture=capture, **options) for capture in (True, False))


EPS = {"number": 4, "distribution": TruncatedNormalEps(sigma=4, upper=8), "per example": torch.arange(1.0, 7)}


@pytest.mark.parametrize("eps", EPS.values(), ids=EPS)
@pytest.mark.parametrize("name", GRADIENT_ATTACKS)
def test_the_same_images(recorders: list[TapeRecorder], name: str, eps: Any) -> None:
    """New images, labels and random numbers in each call; the first call is eager."""
    captured, eager = both(name, ConvNet(), eps=eps)
    for seed in range(4):
        images, labels = batch(6, seed=seed)
        assert torch.equal(captured(images, labels), eager(images, labels))
    iterative = GRADIENTS[name] > 1  # its first step is recorded apart from the others
    assert recordings(recorders) == (2 if iterative else 1)
    assert replays(recorders) >= 3 * (5 if iterative else 1)


@pytest.mark.parametrize("bn", ["eval", "batch"])
@pytest.mark.parametrize("space", [PixelSpace.unit(), PixelSpace.imagenet()], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_same_images_in_any_dtype_and_layout(
    recorders: list[TapeRecorder], dtype: torch.dtype, space: PixelSpace, bn: str
) -> None:
    model = ConvNet().to(dtype).train()
    captured, eager = both("mi_fgsm", model, eps=6, space=space, bn=bn)
    for seed in range(3):
        images, labels = batch(6, space, dtype, seed=seed)
        images = images.contiguous(memory_format=torch.channels_last)
        assert torch.equal(captured(images, labels), eager(images, labels))
    assert replays(recorders) > 0


def test_the_same_images_under_autocast(recorders: list[TapeRecorder]) -> None:
    captured, eager = both("iter_ll", ConvNet(), eps=4)
    with torch.autocast("cpu", torch.bfloat16):
        results = [[attack(batch(6, seed=seed)[0]) for seed in range(3)] for attack in (captured, eager)]
    assert all(map(torch.equal, *results)) and replays(recorders) > 0
    captured(batch(6)[0])
    assert recordings(recorders) == 2  # without autocast it is another iteration, seen once


def test_sizes_and_steps_are_read_anew(recorders: list[TapeRecorder]) -> None:
    captured, eager = both("iter_basic", ConvNet(), eps=4)
    images, labels = batch()
    for eps in (4, 4, 7, torch.full((6,), 5.0), TruncatedNormalEps()):
        assert torch.equal(captured(images, labels, eps=eps), eager(images, labels, eps=eps))
    for attack in (captured, eager):
        attack.eps, attack.alpha, attack.steps = 3.0, 2.0, 2
    assert torch.equal(captured(images, labels), eager(images, labels))
    assert recordings(recorders) == 2


def test_options_that_are_fixed_are_captured_again(recorders: list[TapeRecorder]) -> None:
    captured, eager = both("step_ll", ConvNet(), eps=4)
    images, _ = batch()
    for smoothing in (0.0, 0.2):
        captured.label_smoothing = eager.label_smoothing = smoothing
        for _ in range(3):
            assert torch.equal(captured(images), eager(images))
    assert recordings(recorders) == 2 and replays(recorders) == 4


def test_training_shows_in_the_next_replay(recorders: list[TapeRecorder]) -> None:
    model = ConvNet()
    captured, eager = both("step_ll", model, eps=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for seed in range(4):
        images, labels = batch(6, seed=seed)
        assert torch.equal(captured(images), eager(images))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()  # BatchNorm's statistics move, too
        optimizer.step()
    assert recordings(recorders) == 1 and replays(recorders) == 3


def test_moved_weights_are_captured_again_a_few_times(recorders: list[TapeRecorder]) -> None:
    model = ConvNet()
    captured, eager = both("step_ll", model, eps=4)
    images, _ = batch()
    captured(images)
    for _ in range(3):
        assert torch.equal(captured(images), eager(images))
        model.head.weight = nn.Parameter(model.head.weight + 1)
    with pytest.warns(
        UserWarning, match="step_ll runs without capture=True: the memory of the model's weights changes"
    ):
        assert torch.equal(captured(images), eager(images))
    assert recordings(recorders) == 3
    assert torch.equal(captured(images), eager(images))


MORE_SHAPES = (
    "step_ll runs without capture=True: there are more than 4 shapes of images, and only those used last are kept"
)


@pytest.mark.filterwarnings("ignore:step_ll runs without capture=True")
@pytest.mark.parametrize(
    ("sizes", "recorded", "replayed"),
    [
        ((1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 1, 1), 6, 6),  # the first had to go, and is captured again
        ((1, 1, 2, 1, 3, 1, 4, 1, 5, 1, 6, 1), 1, 6),  # one that comes again and again stays
        ((1, 2, 3, 4, 5) * 2, 0, 0),  # each has gone before it comes again
        ((1, 2, 3, 4) * 2, 4, 4),
    ],
)
def test_shapes_that_were_used_last_are_kept(
    recorders: list[TapeRecorder], sizes: tuple[int, ...], recorded: int, replayed: int
) -> None:
    captured, eager = both("step_ll", ConvNet(), eps=4)
    for n in sizes:
        images, _ = batch(n)
        assert torch.equal(captured(images), eager(images))
    assert replays(recorders) == replayed and recordings(recorders) == recorded


@pytest.mark.parametrize(("shapes", "said"), [(4, 0), (7, 1)])
def test_more_shapes_than_are_kept_warn_once(recorders: list[TapeRecorder], shapes: int, said: int) -> None:
    captured, _ = both("step_ll", ConvNet(), eps=4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for n in range(1, shapes + 1):
            captured(batch(n)[0])
    assert [str(one.message) for one in caught] == [MORE_SHAPES] * said


def test_several_sizes_of_one_step_are_not_captured_and_warn(recorders: list[TapeRecorder]) -> None:
    captured, eager = both("step_ll", ConvNet(), eps=4)
    images, _ = batch()
    why = (
        "step_ll runs without capture=True: at_each computes one gradient for all sizes, so there is nothing to replay"
    )
    with pytest.warns(UserWarning, match=why) as caught:
        for _ in range(2):
            assert all(map(torch.equal, captured.at_each(images, eps=[2, 8]), eager.at_each(images, eps=[2, 8])))
    assert len(caught) == 1 and recordings(recorders) == 0


class OnAGpu(NamedTuple):
    """Stands in for images on a GPU, for which an attack captures."""

    is_cuda: bool = True


def test_what_fast_leaves_out_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "fastadv")
    compiled: Any = attacks.create("step_ll", ConvNet(), fast=True, compile=True)
    alone: Any = attacks.create("step_ll", ConvNet(), fast=True)
    assert [attack._captures(OnAGpu()) for attack in (compiled, compiled, alone)] == [False, False, True]
    assert caplog.messages == ["step_ll: fast=True skips capture: it cannot be combined with compile=True"]


def test_fast_sizes_of_one_step_are_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level("INFO", "fastadv")
    attack = attacks.create("step_ll", ConvNet(), fast=True)
    monkeypatch.setattr(attack, "_captures", lambda images: True)  # as on a GPU
    for _ in range(2):
        list(attack.at_each(batch()[0], eps=[2, 8]))
    why = "at_each computes one gradient for all sizes, so there is nothing to replay"
    assert caplog.messages == [f"step_ll: fast=True skips capture: {why}"]


def test_no_trace_on_the_model(recorders: list[TapeRecorder]) -> None:
    model = ConvNet().train()
    model.features[1].eval()  # a frozen BatchNorm
    buffers = [buffer.clone() for buffer in model.buffers()]
    captured, _ = both("pgd", model, eps=4, bn="batch")
    for seed in range(3):
        images, labels = batch(6, seed=seed)
        before = images.clone()
        captured(images, labels)
        assert torch.equal(images, before)
    assert replays(recorders) > 0
    assert all(map(torch.equal, model.buffers(), buffers))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert model.training and not model.features[1].training and model.features[4].training


class TwoHeads(ConvNet):
    def forward_with_aux(self, images: Tensor) -> InceptionOutputs:  # [N, 3, 8, 8] -> two of [N, K]
        logits = self(images)
        return InceptionOutputs(logits, logits.flip(1))


def test_the_cost_of_auxiliary_logits(recorders: list[TapeRecorder]) -> None:
    captured, eager = both("iter_ll", TwoHeads(), eps=4, aux_weight=0.4)
    for seed in range(3):
        images, _ = batch(6, seed=seed)
        assert torch.equal(captured(images), eager(images))
    assert replays(recorders) > 0


def test_in_place(recorders: list[TapeRecorder]) -> None:
    captured, eager = both("iter_ll", ConvNet(), eps=4)
    for seed in range(3):
        images, _ = batch(6, seed=seed)
        expected = eager(images)
        assert captured.perturb_(images[:6]) is not None and torch.equal(images, expected)


def full_size(tape: Tape, images: Tensor) -> int:
    """Count the tensors of the images' size that a recording's operators create."""
    made = 0
    for _, args, kwargs, outputs in tape.steps:
        places = {tensor.untyped_storage().data_ptr() for tensor in tensors_in((args, kwargs))}
        made += sum(out.shape == images.shape and out.untyped_storage().data_ptr() not in places for out in outputs)
    return made


@pytest.mark.parametrize("name", ["step_ll", "iter_basic", "iter_ll", "pgd"])
def test_no_full_size_tensor_beyond_the_gradient_and_a_copy(recorders: list[TapeRecorder], name: str) -> None:
    """A whole step creates as many as the model's passes, plus the copy of the images for the model."""
    model = ConvNet().eval()
    images, labels = batch()
    with Tape() as passes:
        x = images.requires_grad_()
        logits = model(x)
        torch.autograd.grad(logits, x, torch.ones_like(logits))
    captured, _ = both(name, model, eps=4)
    for _ in range(2):
        captured(images.detach(), labels)
    assert full_size(passes, images) > 0
    tapes = recorders[0].tapes
    assert [full_size(tape, images) for tape in tapes] == [full_size(passes, images) + 1] * len(tapes)


# --- what cannot be captured -----------------------------------------------------------------------------------------


class Reads(nn.Module):
    """A model that reads its own activations."""

    def __init__(self, look: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.net, self.look = ConvNet(), look

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, 8, 8] -> [N, K]
        self.look(images.detach())
        return self.net(images)


WAITS: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "item": (lambda x: x.sum().item(), "_local_scalar_dense"),
    "if": (lambda x: 1 if x.sum() > 0 else 0, "_local_scalar_dense"),
    "mask": (lambda x: x[x > 0.5], "aten.index.Tensor"),
    "nonzero": (lambda x: x.nonzero(), "aten.nonzero"),
    "equal": (lambda x: torch.equal(x, x + 1), "aten.equal"),
    "unique": (lambda x: x.unique(), "unique"),
    "another device": (lambda x: x.to("meta"), "moves data between cpu and meta"),
    "an error of its own": (lambda x: [][len(x)], "list index out of range"),
}


@pytest.mark.parametrize(("look", "reason"), WAITS.values(), ids=WAITS)
def test_a_model_that_waits_runs_without(
    recorders: list[TapeRecorder], look: Callable[[Tensor], object], reason: str
) -> None:
    model = Reads(lambda x: None)
    captured, eager = both("iter_ll", model, eps=4)
    images, _ = batch()
    captured(images)
    eager(images)
    calls = [0]

    def fails_in_rehearsal(x: Tensor) -> None:
        calls[0] += 1
        if calls[0] == 1 or not reason.startswith("list"):
            look(x)

    model.look = fails_in_rehearsal
    with pytest.warns(UserWarning, match=f"iter_ll runs without capture=True: .*{reason}"):
        result = captured(images)
    assert torch.equal(result, eager(images)) and not recordings(recorders)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        captured(images)


META = torch.device("meta")
ON_THE_DEVICE: dict[str, tuple[Callable[[], object], str]] = {
    "numbers": (lambda: torch.tensor([1.0, 2.0], device=META), "lift_fresh"),
    "mask": (lambda: torch.empty(3, device=META)[torch.empty(3, dtype=torch.bool, device=META)], "aten.index.Tensor"),
    "write by mask": (
        lambda: torch.empty(3, device=META).index_put_(
            (torch.empty(3, dtype=torch.bool, device=META),), torch.empty((), device=META)
        ),
        "index_put_",
    ),
    "copy": (lambda: torch.ones(3).to(META), "moves data between cpu and meta"),
}


@pytest.mark.parametrize(("work", "reason"), ON_THE_DEVICE.values(), ids=ON_THE_DEVICE)
def test_what_waits_for_a_device(work: Callable[[], object], reason: str) -> None:
    """The meta device, which computes nothing, stands for one that the host waits for."""
    with pytest.raises(cuda_graph_recorder.NotCapturable, match=reason), cuda_graph_recorder.refuse_waits(META):
        work()


def test_reading_host_memory_does_not_wait() -> None:
    with cuda_graph_recorder.refuse_waits(META):
        assert torch.tensor(3).item() == 3 and torch.arange(3).tolist() == [0, 1, 2]
        assert torch.ones(3)[torch.tensor([True, False, True])].sum() == 2


def test_weights_may_move_now_and_then(recorders: list[TapeRecorder]) -> None:
    model = ConvNet()
    captured, eager = both("step_ll", model, eps=4)
    images, _ = batch()
    captured(images)
    for _ in range(5):
        for _ in range(11):
            assert torch.equal(captured(images), eager(images))
        model.head.weight = nn.Parameter(model.head.weight + 1)
    assert recordings(recorders) == 5


def test_a_first_call_that_fails_is_not_the_first(recorders: list[TapeRecorder]) -> None:
    """The model's outputs have yet to be checked, by an eager run."""
    model = Reads(lambda x: [][0])
    captured, eager = both("iter_ll", model, eps=4)
    images, _ = batch()
    with pytest.raises(IndexError):
        captured(images)
    model.look = lambda x: None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(torch.equal(captured(images), eager(images)) for _ in range(3))
    assert recordings(recorders) == 2


def test_indexing_by_integers_is_captured(recorders: list[TapeRecorder]) -> None:
    captured, eager = both("iter_ll", Reads(lambda x: x[torch.arange(3)]), eps=4)
    images, _ = batch()
    assert all(torch.equal(captured(images), eager(images)) for _ in range(3)) and replays(recorders) > 0


def test_a_function_runs_without(recorders: list[TapeRecorder]) -> None:
    model = ConvNet().eval()
    captured, eager = both("fgsm", lambda x: model(x), eps=4)
    images, labels = batch()
    with pytest.warns(
        UserWarning, match="fgsm runs without capture=True: a function is not an nn.Module: pass the module itself"
    ):
        result = captured(images, labels)
    assert torch.equal(result, eager(images, labels))


def test_the_cpu_runs_without() -> None:
    captured, eager = both("fgsm", ConvNet(), eps=4)
    images, labels = batch()
    with pytest.warns(UserWarning, match="fgsm runs without capture=True: CUDA graphs need a GPU.*on cpu"):
        result = captured(images, labels)
    assert torch.equal(result, eager(images, labels))


def test_an_error_of_the_model_is_raised(recorders: list[TapeRecorder]) -> None:
    """The eager run after the failed capture raises; the images are unchanged."""
    model = Reads(lambda x: None)
    captured, _ = both("iter_ll", model, eps=4)
    images, _ = batch()
    captured(images)
    before = images.clone()

    def fail(x: Tensor) -> None:
        raise ArithmeticError("a fault of the model")

    model.look = fail
    with pytest.warns(UserWarning, match="a fault of the model"), pytest.raises(ArithmeticError):
        captured.perturb_(images)
    assert torch.equal(images, before)


def test_noise_has_nothing_to_capture() -> None:
    with pytest.raises(ValueError, match="random_sign has no option capture"):
        attacks.create("random_sign", ConvNet(), capture=True)
