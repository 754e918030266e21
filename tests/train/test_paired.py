"""PairedTask against the method written out, and what it asks of the network."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.models.inception import InceptionOutputs

from benchmarks.operators import Operators
from fastadv import PixelSpace, attacks
from fastadv.attacks import OneStepAttack
from fastadv.train import AdversarialTask, PairedTask
from tests.attacks.models import ConvNet, batch
from tests.train import runs
from tests.train.group import succeeded, together
from tests.train.test_task import RAW, SOFT, Pixels, four_images

SPACE = PixelSpace.imagenet()
EPS = 8
ONE_STEP = sorted(name for name in attacks.names() if issubclass(attacks.get(name), OneStepAttack) and name != "n_fgsm")


def network(dropout: float = 0.0) -> nn.Module:
    net = ConvNet().double().train()
    net.features[-1].p = dropout
    return net


def images_and_labels(n: int = 6) -> tuple[Tensor, Tensor]:
    return batch(n, SPACE, torch.float64)


def normalized(pixels: Tensor) -> Tensor:  # [N, 3, H, W]
    mean, std = (torch.tensor(of, dtype=torch.float64).view(3, 1, 1) for of in (SPACE.mean, SPACE.std))
    return (pixels - mean) / std


def pixels_of(images: Tensor) -> Tensor:  # [N, 3, H, W]
    mean, std = (torch.tensor(of, dtype=torch.float64).view(3, 1, 1) for of in (SPACE.mean, SPACE.std))
    return images * std + mean


def gradients(net: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in net.parameters()]


def assert_same(ours: nn.Module, theirs: nn.Module) -> None:
    """The same gradients and running statistics."""
    torch.testing.assert_close(gradients(ours), gradients(theirs), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(list(ours.buffers()), list(theirs.buffers()), rtol=1e-12, atol=0)


# --- the method, written out -----------------------------------------------------------------------------------------


# FGSM with eps = 1 lowers the label's pixel by 1 and lifts the other: [10, 12] of class 0 -> [9, 13], [5, 5] of class 1
# -> [6, 4]. The clean costs are ln(1 + e^2) and ln 2, the adversarial ones ln(1 + e^4) and ln(1 + e^2).
@pytest.mark.parametrize("lambda_", [0.3, 1.0])
def test_by_hand(lambda_: float) -> None:
    images, labels = four_images()
    images, labels = images[[0, 2]], labels[[0, 2]]
    task = PairedTask(Weighted(), attack="fgsm", lambda_=lambda_, eps=1, space=RAW)
    loss = task.backward(images, labels)
    clean = math.log1p(math.e**2) + math.log(2)
    adversarial = math.log1p(math.e**4) + math.log1p(math.e**2)
    assert loss.item() == pytest.approx((clean + lambda_ * adversarial) / (2 + 2 * lambda_), rel=1e-12)
    assert images.flatten(1).tolist() == [[9, 13], [6, 4]]
    assert task.accuracy() == (0.0, 0.0)  # of equal logits, the first class


class Weighted(Pixels):
    """The logits are the pixels, times a parameter that is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:  # [m, K, 1, 1] -> [m, K]
        return self.one * super().forward(images)


def attacked_cost(name: str, logits: Tensor, labels: Tensor) -> Tensor:
    """What each method increases, of logits [k, K]."""
    if name in ("fgsm", "fast_grad_l2", "fast_grad_linf"):
        return cross_entropy(logits, labels)
    if name == "fgsm_pred":
        return cross_entropy(logits, logits.argmax(dim=1))
    if name == "fast_entropy":
        return -(logits.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert name == "step_ll"
    return -cross_entropy(logits, logits.argmin(dim=1))


def written_out(net: nn.Module, name: str, images: Tensor, labels: Tensor, lambda_: float, smoothing: float) -> Tensor:
    """The gradients of both halves by plain PyTorch; returns the adversarial images [k, 3, 8, 8]."""
    x = images.clone().requires_grad_()
    logits = net(x)  # [k, K]
    (grad,) = torch.autograd.grad(attacked_cost(name, logits, labels), x, retain_graph=True)
    (cross_entropy(logits, labels, label_smoothing=smoothing) / (1 + lambda_)).backward()
    norm = {"fast_grad_l2": 2, "fast_grad_linf": math.inf}.get(name)
    step = grad.sign()
    pixels = grad / torch.tensor(SPACE.std, dtype=torch.float64).view(3, 1, 1)  # the gradient to the pixel values
    if norm is not None:
        step = pixels / torch.linalg.vector_norm(pixels, norm, (1, 2, 3), keepdim=True)
    adv = pixels_of(images) + EPS * step
    adv = normalized(adv.clamp(0, 255))
    loss = cross_entropy(net(adv), labels, label_smoothing=smoothing)
    (loss * (lambda_ / (1 + lambda_))).backward()
    return adv


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", [name for name in ONE_STEP if name != "step_rnd"])
def test_agrees_with_the_method_written_out(name: str, smoothing: float) -> None:
    """Over three iterations of SGD, for every method; with smoothing the attacked cost has none."""
    ours, theirs = network(), network()
    task = PairedTask(ours, attack=name, lambda_=0.5, eps=EPS, space=SPACE, label_smoothing=smoothing)
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.05) for net in (ours, theirs)]
    for n in (6, 4, 5):
        images, labels = images_and_labels(n)
        expected = images.clone()
        for optimizer in optimizers:
            optimizer.zero_grad()
        expected = written_out(theirs, name, expected, labels, 0.5, smoothing)
        task.backward(images, labels)
        torch.testing.assert_close(images, expected, rtol=0, atol=1e-12)
        assert_same(ours, theirs)
        for optimizer in optimizers:
            optimizer.step()


def test_step_rnd_draws_what_algorithm_1_draws() -> None:
    """The same class and size for each example, at the first iteration of a network without BatchNorm and dropout."""
    made = []
    for kind in ("paired", "algorithm 1"):
        net, (images, labels) = network().eval(), images_and_labels()
        options: dict[str, Any] = {"attack": "step_rnd", "space": SPACE, "seed": 3}
        if kind == "paired":
            PairedTask(net, **options).backward(images, labels)
        else:
            AdversarialTask(net, k=6, **options)(images, labels)
        made.append(images)
    torch.testing.assert_close(made[0], made[1], rtol=0, atol=1e-12)


def test_smoothing_of_the_attacked_cost() -> None:
    """Given the task's own smoothing, FGSM follows the training loss, and leads a confident example to its class."""
    images = torch.tensor([[103.0, 100.0], [102.0, 100.0]], dtype=torch.float64).view(2, 2, 1, 1)  # p = 0.953, 0.881
    options = {"label_smoothing": 0.2}
    PairedTask(Weighted(), eps=1, space=RAW, label_smoothing=0.2, attack_options=options).backward(
        images, torch.zeros(2, dtype=torch.int64)
    )
    assert images.flatten(1).tolist() == [[104, 99], [101, 101]]


def test_soft_labels() -> None:
    images, _ = four_images()
    task = PairedTask(Weighted(), attack="step_ll", lambda_=1.0, eps=1, space=RAW)
    loss = task.backward(images, SOFT)
    # Step l.l. gives [11, 11], [19, 15], [6, 4] and, of equal least likely classes the first, [9, 7 + ln 3].
    halves = [Weighted()(of).log_softmax(dim=1) for of in (four_images()[0], images)]
    expected = sum(-(SOFT * half).sum(dim=1).mean() for half in halves) / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    with pytest.raises(ValueError, match=r"fgsm uses the true label, which soft labels \[4, 2\] do not give"):
        PairedTask(Weighted(), attack="fgsm", eps=1, space=RAW).backward(four_images()[0], SOFT)


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.head = network(), nn.Linear(192, 5).double()

    def forward(self, images: Tensor) -> Any:  # [N, 3, 8, 8]
        return InceptionOutputs(self.net(images), self.head(images.flatten(1)))

    forward_with_aux = forward


def test_auxiliary_logits() -> None:
    """They are in the loss, and so in what FGSM follows."""
    torch.manual_seed(0)
    ours = TwoHeads()
    theirs = copy.deepcopy(ours)
    images, labels = images_and_labels()
    x = images.clone().requires_grad_()

    def loss_of(shown: Tensor) -> Tensor:
        logits, aux = theirs(shown)
        return (cross_entropy(logits, labels) + 0.4 * cross_entropy(aux, labels)) / 2

    loss_of(x).backward()
    adv = normalized((pixels_of(images) + EPS * x.grad.sign()).clamp(0, 255))
    loss_of(adv).backward()
    PairedTask(ours, attack="fgsm", lambda_=1.0, eps=EPS, space=SPACE).backward(images, labels)
    torch.testing.assert_close(images, adv, rtol=0, atol=1e-12)
    assert_same(ours, theirs)


# --- what it costs ---------------------------------------------------------------------------------------------------


class Rows:
    """Counts the rows that pass through a layer, forward and backward."""

    def __init__(self, layer: nn.Module) -> None:
        self.forward = self.backward = 0
        layer.register_forward_hook(self._forward)

    def _forward(self, _: nn.Module, given: tuple[Tensor], output: Tensor) -> None:
        self.forward += len(output)
        output.register_hook(self._backward)

    def _backward(self, to_output: Tensor) -> None:
        self.backward += len(to_output)


@pytest.mark.parametrize(("attack", "extra"), [("fgsm", 0), ("fast_grad_l2", 0), ("step_ll", 1), ("fast_entropy", 1)])
def test_rows(attack: str, extra: int) -> None:
    """2k rows forward and backward for 2k trained; another cost takes k rows more, backward to the images alone."""
    net, (images, labels) = network(), images_and_labels(6)
    task = PairedTask(net, attack=attack, eps=EPS, space=SPACE)
    task.backward(images.clone(), labels)  # the first minibatch is looked at
    rows = Rows(net.features[0])
    task.backward(images.clone(), labels)
    assert (rows.forward, rows.backward) == (12, 12 + 6 * extra)


@pytest.mark.parametrize("attack", ["fgsm", "step_ll"])
def test_operators(attack: str) -> None:
    """Besides the passes of two clean halves there is the attack, and no gradient of a weight more."""
    net, (images, labels) = network(), images_and_labels(6)
    task = PairedTask(net, attack=attack, eps=EPS, space=SPACE, attack_options={"validate": "first"})
    for _ in range(2):
        copy_of = images.clone()
        with Operators(images) as ours:
            task.backward(copy_of, labels)
    clean = PairedTask(net, eps=EPS, space=SPACE, start_after=9)
    with Operators(images) as half:
        clean.backward(images, labels)
    layers = sum(isinstance(module, nn.Conv2d) for module in net.modules())
    assert ours.names["convolution"] == 2 * half.names["convolution"] == 2 * layers
    assert ours.weight_gradients == 2 * half.weight_gradients
    assert ours.names["convolution_backward"] == 2 * layers + (layers if attack == "step_ll" else 0)
    assert ours.names["fastadv::sign_step_"] == 1
    # What the model is given, and the gradient to the images, by one backward pass or two.
    made = {"clone": 1, "convolution_backward": 1 if attack == "fgsm" else 2}
    assert +ours.full_size == Counter(made) + half.full_size
    assert +ours.waits == {}


def test_gradients_travel_once() -> None:
    """Two processes: one all-reduce an iteration, and the gradients of one process with both halves."""
    for attack in ("fgsm", "step_ll"):
        for seen in succeeded(together(2, runs.paired_iterations, attack)):
            assert seen["sent"] == Counter({("gloo:all_reduce", seen["parameters"]): 1})
            torch.testing.assert_close(seen["gradients"], seen["alone"], rtol=1e-9, atol=1e-12)


def test_accumulation_over_processes() -> None:
    """In the caller's own no_sync() nothing travels."""
    for sent in succeeded(together(2, runs.paired_without_sync)):
        assert sent == Counter()


# --- with the rest of PyTorch ----------------------------------------------------------------------------------------


def test_split_statistics_are_those_of_the_clean_half() -> None:
    shared, split, clean = network(), network(), network()
    images, labels = images_and_labels()
    PairedTask(split, eps=EPS, space=SPACE, bn="split").backward(images.clone(), labels)
    PairedTask(shared, eps=EPS, space=SPACE).backward(images.clone(), labels)
    clean(images)
    torch.testing.assert_close(list(split.buffers()), list(clean.buffers()), rtol=0, atol=0)
    assert not torch.equal(split.features[1].running_mean, shared.features[1].running_mean)
    assert shared.features[1].num_batches_tracked == 2
    torch.testing.assert_close(gradients(split), gradients(shared), rtol=0, atol=0)
    assert all(module.track_running_stats for module in split.modules() if isinstance(module, nn.BatchNorm2d))


def test_backward_fn_scales_and_accumulates() -> None:
    """Each half goes through it once; a factor on the loss does not turn the step."""
    plain, scaled = network(), network()
    images, labels = images_and_labels()
    adversarial = images.clone()
    loss = PairedTask(plain, eps=EPS, space=SPACE).backward(adversarial, labels)
    calls = []

    def backward_fn(loss: Tensor) -> None:
        calls.append(loss.item())
        (256 * loss).backward()

    again = images.clone()
    assert PairedTask(scaled, eps=EPS, space=SPACE).backward(again, labels, backward_fn) == loss
    assert torch.equal(again, adversarial)
    assert sum(calls) == pytest.approx(loss.item(), rel=1e-12)
    torch.testing.assert_close(gradients(scaled), [256 * grad for grad in gradients(plain)], rtol=1e-12, atol=0)


@pytest.mark.parametrize("attack", ["fgsm", "step_ll"])
def test_grad_scaler_and_autocast(attack: str) -> None:
    """float16, with a scale that overflows at first, whose gradients move neither images nor weights."""
    net = ConvNet().train()
    images, labels = batch(6, SPACE, torch.float32)
    task = PairedTask(net, attack=attack, eps=EPS, space=SPACE)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    for _ in range(30):
        optimizer.zero_grad()
        shown = images.clone()
        with torch.autocast("cpu", dtype=torch.float16):
            task.backward(shown, labels, lambda loss: scaler.scale(loss).backward())
        scaler.step(optimizer)
        scaler.update()
        assert shown.isfinite().all()
    assert not torch.equal(shown, images)
    assert scaler.get_scale() < 2.0**40
    assert all(parameter.isfinite().all() for parameter in net.parameters())
    assert not all(map(torch.equal, before, net.parameters()))


@pytest.mark.parametrize("attack", ["fgsm", "step_ll"])
def test_bfloat16_autocast_is_near_float32(attack: str) -> None:
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        net, (images, labels) = ConvNet().train(), batch(6, SPACE, torch.float32)
        net.features[-1].p = 0.0
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is torch.bfloat16):
            PairedTask(net, attack=attack, eps=EPS, space=SPACE).backward(images, labels)
        found.append(torch.cat([grad.flatten() for grad in gradients(net)]))
    assert nn.functional.cosine_similarity(found[0], found[1], dim=0) > 0.98


@pytest.mark.parametrize("attack", ["fgsm", "step_ll"])
def test_compiled(attack: str) -> None:
    """FGSM is as it is without; another cost has a pass of its own, on the network as it is."""
    eager, (images, labels) = network(), images_and_labels()
    compiled = copy.deepcopy(eager)
    one, two = images.clone(), images.clone()
    first = PairedTask(eager, attack=attack, eps=EPS, space=SPACE).backward(one, labels)
    wrapped = torch.compile(compiled, backend="aot_eager")
    second = PairedTask(wrapped, attack=attack, eps=EPS, space=SPACE).backward(two, labels)
    torch.testing.assert_close(one, two, rtol=0, atol=1e-12)
    torch.testing.assert_close(first, second, rtol=1e-9, atol=0)
    assert_same(eager, compiled)


def test_channels_last_stays() -> None:
    net, (images, labels) = network().to(memory_format=torch.channels_last), images_and_labels()
    images = images.contiguous(memory_format=torch.channels_last)
    seen = []
    net.register_forward_pre_hook(
        lambda _, given: seen.append(given[0].is_contiguous(memory_format=torch.channels_last))
    )
    PairedTask(net, eps=EPS, space=SPACE).backward(images, labels)
    assert seen == [True, True] and images.is_contiguous(memory_format=torch.channels_last)


def test_a_model_that_overwrites_its_input() -> None:
    class Overwrites(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, images: Tensor) -> Tensor:
            return self.net(images.mul_(0.5))

    class Copies(Overwrites):
        def forward(self, images: Tensor) -> Tensor:
            return self.net(images * 0.5)

    found = []
    for kind in (Overwrites, Copies):
        model, (images, labels) = kind(), images_and_labels()
        PairedTask(model, eps=EPS, space=SPACE).backward(images, labels)
        found.append((images, gradients(model)))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_dropout_draws_for_each_half() -> None:
    torch.manual_seed(0)
    net, (images, labels) = network(dropout=0.5), images_and_labels()
    masks = []
    net.features[-1].register_forward_hook(lambda module, given, output: masks.append(output == 0))
    PairedTask(net, eps=EPS, space=SPACE).backward(images, labels)
    assert len(masks) == 2 and not torch.equal(masks[0], masks[1])


# --- state, start, mistakes ------------------------------------------------------------------------------------------


def test_start_after() -> None:
    net, (images, labels) = network(), images_and_labels()
    task = PairedTask(net, eps=EPS, space=SPACE, start_after=1)
    clean = images.clone()
    loss = task.backward(clean, labels)
    assert torch.equal(clean, images)
    assert loss == pytest.approx(cross_entropy(network()(images), labels).item(), rel=1e-12)
    assert task.accuracy().adversarial is None
    task.backward(clean, labels)
    assert not torch.equal(clean, images) and task.iteration == 2


def test_resumes_exactly() -> None:
    def run(task: PairedTask, count: int) -> list[Tensor]:
        made = []
        for _ in range(count):
            images, labels = images_and_labels()
            task.backward(images, labels)
            made.append(images)
        return made

    options: dict[str, Any] = {"attack": "step_rnd", "space": SPACE, "seed": 5}
    whole = run(PairedTask(network().eval(), **options), 4)
    first = PairedTask(network().eval(), **options)
    run(first, 2)
    second = PairedTask(network().eval(), **options)
    second.load_state_dict(first.state_dict())
    assert second.iteration == 2
    torch.testing.assert_close(run(second, 2), whole[2:], rtol=0, atol=0)
    with pytest.raises(ValueError, match="PairedTask's state has the keys iteration and stream, got step"):
        second.load_state_dict({"step": 1})


def test_a_minibatch_that_comes_again_is_warned_of() -> None:
    images, labels = images_and_labels()
    task = PairedTask(network(), eps=EPS, space=SPACE)
    task.backward(images, labels)
    with pytest.warns(UserWarning, match="perturbations would accumulate"):
        task.backward(images, labels)


def test_called_like_the_other_tasks() -> None:
    images, labels = images_and_labels()
    with pytest.raises(TypeError, match=r"call loss = task\.backward\(images, labels\)"):
        PairedTask(network(), eps=EPS, space=SPACE)(images, labels)


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"attack": "pgd"}, ValueError, "attack must be a one-step method.*got pgd"),
        ({"attack": "random_sign"}, ValueError, "attack must be a one-step method.*got random_sign"),
        ({"attack": "n_fgsm"}, ValueError, "starts from the clean image.*got n_fgsm"),
        ({"attack": "fgms"}, ValueError, "fgsm"),
        ({"bn": "both"}, ValueError, "bn must be one of shared, split"),
        ({"lambda_": -1}, ValueError, "lambda_"),
        ({"start_after": -1}, ValueError, "start_after"),
        ({"start_after": 1.5}, TypeError, "start_after"),
        ({"label_smoothing": 1}, ValueError, "label_smoothing"),
        ({"aux_weight": -1}, ValueError, "aux_weight"),
        ({"attack_options": {"fast": True}}, ValueError, "attack_options must not set fast: the gradient comes from"),
        ({"attack_options": {"eps": 4}}, ValueError, "attack_options must not set eps"),
        ({"k": 4}, TypeError, "k"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        PairedTask(Pixels(), **{"eps": 8, "space": RAW, **options})


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients(context: Callable[[], AbstractContextManager[None]]) -> None:
    task = PairedTask(ConvNet(), eps=8, space=PixelSpace.unit())
    images, labels = batch(4)
    before = images.clone()
    with context(), pytest.raises(RuntimeError, match="needs gradients: call it outside no_grad and inference_mode"):
        task.backward(images, labels)
    assert torch.equal(images, before)


def test_a_model_that_ignores_its_images() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = nn.Parameter(torch.zeros(2, dtype=torch.float64))

        def forward(self, images: Tensor) -> Tensor:
            return self.logits.expand(len(images), 2)

    images, labels = four_images()
    with pytest.raises(ValueError, match="the model's logits must depend on the images"):
        PairedTask(Constant(), eps=1, space=RAW).backward(images, labels)


@pytest.mark.parametrize("attack", ["fgsm", "step_ll"])
def test_a_backward_fn_that_does_not_run_backward(attack: str) -> None:
    images, labels = images_and_labels()
    with pytest.raises(ValueError, match=r"backward_fn must call \.backward\(\) on the loss"):
        PairedTask(network(), attack=attack, eps=EPS, space=SPACE).backward(images, labels, lambda loss: None)


class Margin(attacks.FGSM):
    """An own loss, whose direction is turned around, and turned back by its step."""

    name = "margin"
    needs_labels = True

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:  # [N, K], [N] -> [N]
        true = logits.gather(1, target[:, None])  # [N, 1]
        return (logits.scatter(1, target[:, None], -math.inf).amax(dim=1, keepdim=True) - true)[:, 0]

    def direction(self, grad: Tensor, previous: Tensor | None) -> Tensor:
        return -grad

    def step_(self, adv: Tensor, clean: Tensor, grad: Tensor, alpha: Any, eps: Any) -> None:
        super().step_(adv, clean, -grad, alpha, eps)


def test_an_attack_of_your_own() -> None:
    net, (images, labels) = network(), images_and_labels()
    x = images.clone().requires_grad_()
    (grad,) = torch.autograd.grad(Margin(net).loss(net(x), labels).sum(), x)
    PairedTask(network(), attack=Margin, eps=EPS, space=SPACE).backward(images, labels)
    expected = normalized((pixels_of(x.detach()) + EPS * grad.sign()).clamp(0, 255))
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-12)


class TwoSteps(attacks.FGSM):
    name = "two_steps"

    def step_sizes(self, size: Any) -> Any:
        return [1.0, 1.0]


def test_several_steps_are_refused() -> None:
    with pytest.raises(ValueError, match=r"attack must be a one-step method.*got two_steps"):
        PairedTask(network(), attack=TwoSteps, eps=EPS, space=SPACE)


def test_probabilities_are_warned_of() -> None:
    images, labels = images_and_labels()
    with pytest.warns(UserWarning, match="look like probabilities"):
        PairedTask(nn.Sequential(network(), nn.Softmax(1)), eps=EPS, space=SPACE).backward(images, labels)


def test_static_graph_is_refused() -> None:
    for said in succeeded(together(2, runs.paired_with_static_graph)):
        assert "must not have static_graph=True" in said


def test_zero_gradients_are_warned_of() -> None:
    class Rounds(Weighted):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images.round())

    images, labels = four_images()
    with pytest.warns(UserWarning, match="the gradient is zero or not finite for 4 of 4 images"):
        PairedTask(Rounds(), eps=1, space=RAW).backward(images, labels)
