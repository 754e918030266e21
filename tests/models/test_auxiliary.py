"""Networks with auxiliary logits: their outputs, training by Algorithm 1, and attacks."""

from __future__ import annotations

import functools
import math
from collections import namedtuple
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import GoogLeNetOutputs, InceptionOutputs

from fastadv import PixelSpace, attacks, models
from fastadv.train import AdversarialTask, TrainConfig
from fastadv.utils.model_outputs import split_logits

SPACE, RAW = PixelSpace.symmetric(), PixelSpace.raw()
ONE, TWO, THREE = (torch.full((1, 2), value) for value in (1.0, 2.0, 3.0))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these networks are too small to be worth a second one
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("output", "logits", "auxiliary"),
    [
        (ONE, ONE, []),
        (InceptionOutputs(ONE, TWO), ONE, [TWO]),
        (InceptionOutputs(ONE, None), ONE, []),
        (GoogLeNetOutputs(ONE, TWO, THREE), ONE, [TWO, THREE]),
        (namedtuple("Mine", ["logits"])(ONE), ONE, []),
        (namedtuple("Mine", ["logits", "aux1"])(ONE, TWO), ONE, [TWO]),
        (namedtuple("Mine", ["aux_logits", "logits"])(ONE, TWO), TWO, [ONE]),
        (namedtuple("Mine", ["features", "logits"])(ONE, TWO), TWO, []),
        ({"logits": ONE}, ONE, []),
        ({"loss": None, "aux": TWO, "logits": ONE, 3: THREE, "aux_loss": THREE.sum()}, ONE, [TWO]),
        (SimpleNamespace(logits=ONE, aux_logits=TWO, features=THREE), ONE, [TWO]),
    ],
)
def test_outputs_are_split_into_logits_and_auxiliary_logits(
    output: Any, logits: Tensor, auxiliary: list[Tensor]
) -> None:
    got, others = split_logits(output)
    assert got is logits and [id(other) for other in others] == [id(aux) for aux in auxiliary]


@pytest.mark.parametrize(
    "output",
    [
        (ONE, TWO),
        [ONE],
        {"out": ONE},
        {"logits": [1.0, 2.0]},
        None,
        namedtuple("Features", ["scores", "features"])(ONE, TWO),
        SimpleNamespace(logits=None),
    ],
)
def test_other_outputs_are_refused(output: Any) -> None:
    with pytest.raises(TypeError, match=f"logits .N, K., or a named tuple, .* got {type(output).__name__}"):
        split_logits(output)


# --- the loss --------------------------------------------------------------------------------------------------------


class PixelHeads(nn.Module):
    """The logits are the image's pixels. One auxiliary head halves them; another doubles them and swaps the classes."""

    def __init__(self, outputs: type = InceptionOutputs) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, images: Tensor) -> Any:  # [m, K, 1, 1] -> [m, K], or a named tuple of such
        logits = images.flatten(1)
        heads = (logits, logits / 2, -2 * logits)
        return self.outputs(*heads[: len(self.outputs._fields)]) if self.training else logits


def pixel_images() -> tuple[Tensor, Tensor]:
    rows = [[100.0, 104.0], [100.0, 102.0], [100.0, 100.0 + 2 * math.log(3)]]
    return torch.tensor(rows, dtype=torch.float64).view(3, 2, 1, 1), torch.tensor([0, 1, 1])


def cost(margin: float) -> float:
    """Cross-entropy of two classes, where the label's logit is higher by ``margin``."""
    return math.log1p(math.exp(-margin))


# The first image is of class 0, and class 1 leads by 4: by 2 after step l.l. with eps = 1.
@pytest.mark.parametrize(
    ("outputs", "aux_weight", "scales"),
    [
        (InceptionOutputs, 0.4, {1: 1, 0.5: 0.4}),
        (InceptionOutputs, 0.0, {1: 1}),
        (InceptionOutputs, 2.0, {1: 1, 0.5: 2}),
        (GoogLeNetOutputs, 0.3, {1: 1, 0.5: 0.3, -2: 0.3}),
    ],
)
@pytest.mark.parametrize("k", [0, 1])
def test_the_loss_of_algorithm_1_at_every_head(
    outputs: type, aux_weight: float, scales: dict[float, float], k: int
) -> None:
    margins = [-2.0 if k else -4.0, 2.0, 2 * math.log(3)]
    weights = [0.3 if k else 1.0, 1.0, 1.0]
    loss = sum(
        weight * sum(w * cost(scale * margin) for w, margin in zip(weights, margins, strict=True)) / sum(weights)
        for scale, weight in scales.items()
    )
    images, labels = pixel_images()
    task = AdversarialTask(PixelHeads(outputs), k=k, lambda_=0.3, eps=1, space=RAW, aux_weight=aux_weight)
    assert task(images, labels).item() == pytest.approx(loss, rel=1e-12)


def test_the_default_is_inceptions_and_label_smoothing_is_that_of_both() -> None:
    images, labels = pixel_images()
    task = AdversarialTask(PixelHeads(), k=0, eps=1, space=RAW, label_smoothing=0.1)
    assert task.aux_weight == TrainConfig().aux_weight == 0.4
    logits = images.flatten(1)
    expected = functional.cross_entropy(logits, labels, label_smoothing=0.1)
    expected += 0.4 * functional.cross_entropy(logits / 2, labels, label_smoothing=0.1)
    torch.testing.assert_close(task(images, labels), expected)
    assert "aux_weight=0.4" in repr(task)


def test_accuracy_is_that_of_the_logits() -> None:
    images, labels = pixel_images()
    task = AdversarialTask(PixelHeads(GoogLeNetOutputs), k=1, eps=1, space=RAW)
    task(images, labels)
    assert task.accuracy() == (1.0, 0.0)  # the last head has every class the other way round


@pytest.mark.parametrize("aux_weight", [-0.1, math.nan])
def test_weights_that_are_refused(aux_weight: float) -> None:
    with pytest.raises(ValueError, match="aux_weight must be a number at least 0"):
        AdversarialTask(PixelHeads(), space=RAW, aux_weight=aux_weight)
    with pytest.raises(ValueError, match="aux_weight must be a number at least 0"):
        TrainConfig(aux_weight=aux_weight)


def test_outputs_that_are_refused() -> None:
    images, labels = pixel_images()
    with pytest.raises(TypeError, match=r"the model must return logits .* got tuple"):
        AdversarialTask(lambda x: (x, x), k=0, space=RAW)(images, labels)  # type: ignore[arg-type]


# --- networks --------------------------------------------------------------------------------------------------------


def minibatch(n: int = 4, size: int = 75) -> tuple[Tensor, Tensor]:
    pixels = torch.randint(0, 256, (n, 3, size, size), generator=torch.Generator().manual_seed(0))
    return SPACE.from_pixels(pixels), torch.arange(n)


def inception(**options: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return models.create("inception_v3", num_classes=5, width=1 / 16, **options)


def test_gradients_of_inception_are_those_of_the_loss() -> None:
    model = inception(dropout=0.0).double()
    images, labels = minibatch()
    images = images.double()
    task = AdversarialTask(model, k=2, lambda_=0.3, eps=4, space=SPACE, label_smoothing=0.1, seed=0)
    task(images, labels).backward()
    got = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    loss = torch.zeros((), dtype=torch.float64)
    for weight, logits in zip((1, 0.4), model(images), strict=True):  # on the images made adversarial
        costs = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=0.1)
        loss = loss + weight * (0.3 * costs[:2].sum() + costs[2:].sum()) / 2.6
    loss.backward()
    for mine, parameter in zip(got, model.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad)


@pytest.mark.parametrize("name", ["torchvision/googlenet", "timm/resnet18"])
def test_one_step_of_other_networks(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.create(name, num_classes=5)
    images, labels = minibatch(size=64)
    task = AdversarialTask(model, k=2, eps=4, space=SPACE, seed=0, aux_weight=0.3)
    task(images, labels).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert task.hits().examples == (2, 2)


@pytest.fixture
def process_group() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_inception_in_a_data_parallel_wrapper(process_group: None) -> None:
    gradients = []
    for wrap in (lambda model: model, nn.parallel.DistributedDataParallel):
        model, (images, labels) = inception(dropout=0.0), minibatch()
        AdversarialTask(wrap(model), k=2, eps=4, space=SPACE, seed=0)(images, labels).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, wrapped in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, wrapped)


# --- attacks ---------------------------------------------------------------------------------------------------------


class OpposedHeads(nn.Module):
    """The auxiliary logits pull in the opposite direction of the logits, twice as strongly."""

    def forward_with_aux(self, images: Tensor) -> InceptionOutputs:  # [N, K, 1, 1] -> two of [N, K]
        return InceptionOutputs(self(images), -2 * self(images))

    def forward(self, images: Tensor) -> Tensor:  # [N, K, 1, 1] -> [N, K]
        return images.flatten(1)


# On equal pixels every probability is 1/2, so that dJ/dx of the label's pixel is -1/2 + aux_weight * 2 * 1/2, and the
# entropy's 0 at both heads. The least likely, the predicted class: the first of two equal ones.
@pytest.mark.parametrize(
    ("name", "aux_weight", "expected"),
    [
        ("fgsm", 0.0, [99.0, 101.0]),
        ("fgsm", 0.4, [99.0, 101.0]),
        ("fgsm", 0.5, [100.0, 100.0]),
        ("fgsm", 0.6, [101.0, 99.0]),
        ("step_ll", 0.4, [101.0, 99.0]),
        ("step_ll", 0.6, [99.0, 101.0]),
        ("fgsm_pred", 0.6, [101.0, 99.0]),
        ("fast_entropy", 0.6, [100.0, 100.0]),
    ],
)
def test_an_attack_follows_both_heads(name: str, aux_weight: float, expected: list[float]) -> None:
    images, labels = torch.full((1, 2, 1, 1), 100.0), torch.tensor([0])
    attack = attacks.create(name, OpposedHeads(), eps=1, space=RAW, aux_weight=aux_weight)
    assert attack(images, labels).flatten().tolist() == expected
    assert f"aux_weight={aux_weight}" in repr(attack)


def entropy(logits: Tensor, _: Tensor) -> Tensor:
    return torch.distributions.Categorical(logits=logits).entropy().sum()


CROSS_ENTROPY = functools.partial(functional.cross_entropy, reduction="sum", label_smoothing=0.1)


def inception_of_two_opinions() -> nn.Module:
    """As after some training: BatchNorm knows such images, and one head's gradient is about as large as the other's."""
    model = inception().double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.AuxLogits.fc.weight.mul_(1000)
        model(minibatch(16)[0].double())
    return model.eval()


@pytest.mark.parametrize(
    ("name", "cost", "sign", "steps", "target"),
    [
        ("fgsm", CROSS_ENTROPY, 1, 1, lambda logits, labels: labels),
        ("fgsm_pred", CROSS_ENTROPY, 1, 1, lambda logits, labels: logits.argmax(1)),
        ("step_ll", CROSS_ENTROPY, -1, 1, lambda logits, labels: logits.argmin(1)),
        ("iter_ll", CROSS_ENTROPY, -1, 3, lambda logits, labels: logits.argmin(1)),
        ("fast_entropy", entropy, 1, 1, lambda logits, labels: labels),
    ],
)
def test_the_cost_of_both_heads_of_inception(
    name: str, cost: Callable[[Tensor, Tensor], Tensor], sign: int, steps: int, target: Callable[..., Tensor]
) -> None:
    """J(logits, y) + 0.4 J(auxiliary logits, y), y chosen from the logits of the clean image."""
    model = inception_of_two_opinions()
    clean, labels = minibatch(2)
    x = clean = clean.double()
    y, alpha = target(model(clean), labels), 3 / 127.5 / steps
    for _ in range(steps):
        x = x.detach().requires_grad_()
        logits, aux = model.forward_with_aux(x)
        (grad,) = torch.autograd.grad(cost(logits, y) + 0.4 * cost(aux, y), x)
        x = (x + sign * alpha * grad.sign()).clamp(-1, 1)
    options: dict[str, Any] = {"eps": 3, "space": SPACE, "label_smoothing": 0.1}
    options |= {"alpha": 1, "steps": 3} if steps > 1 else {}
    adv = attacks.create(name, model, aux_weight=0.4, **options)(clean, labels)
    assert int(((adv - x).abs() > 1e-9).sum()) <= 3
    without = attacks.create(name, model, **options)(clean, labels)
    assert int(((without - x).abs() > 1e-9).sum()) > 1000


@pytest.mark.parametrize("bn", ["eval", "batch"])
def test_one_forward_and_one_backward_for_both_heads(bn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, events, grad = inception(), [], torch.autograd.grad
    model.Conv2d_1a_3x3.register_forward_hook(lambda *_: events.append("forward"))
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *args, **kwargs: events.append("backward") or grad(*args, **kwargs)
    )
    buffers = [buffer.clone() for buffer in model.buffers()]
    attacks.create("step_ll", model, eps=2, space=SPACE, bn=bn, aux_weight=0.4)(minibatch(2)[0])
    assert events == ["forward", "backward"]
    assert all(torch.equal(mine, before) for mine, before in zip(model.buffers(), buffers, strict=True))
    assert all(module.training for module in model.modules())


def test_algorithm_1_with_the_cost_of_both_heads(process_group: None) -> None:
    """Also through a wrapper: the method is the wrapped module's."""
    images, labels = minibatch()
    options: dict[str, Any] = {"space": SPACE, "eps": 2, "label_smoothing": 0.1}
    expected = attacks.create("step_ll", inception(), aux_weight=0.4, **options)(images[:2])
    model = nn.parallel.DistributedDataParallel(inception())
    of_attack = {"aux_weight": 0.4, "label_smoothing": 0.1}
    AdversarialTask(model, k=2, attack_options=of_attack, **options)(images, labels)
    assert torch.equal(images[:2], expected)


class Headless(nn.Module):
    def forward_with_aux(self, images: Tensor) -> Tensor:
        return images.flatten(1)


@pytest.mark.parametrize(
    ("model", "aux_weight", "said"),
    [
        (PixelHeads(), 0.4, "aux_weight=0.4 needs a model with a method forward_with_aux.*got PixelHeads"),
        (torch.compile(PixelHeads(), backend="eager"), 0.4, "needs a model with a method.*got PixelHeads"),
        (lambda images: images, 0.4, "needs a model with a method forward_with_aux.*got function"),
        (OpposedHeads(), -0.1, "aux_weight must be a number at least 0, got -0.1"),
        (OpposedHeads(), math.nan, "aux_weight must be a number at least 0, got nan"),
        (OpposedHeads(), math.inf, "aux_weight must be a number at least 0, got inf"),
        (Headless(), 0.4, "step_ll: aux_weight is positive, but forward_with_aux returned no auxiliary logits"),
    ],
)
def test_models_and_weights_that_an_attack_refuses(model: Any, aux_weight: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        attacks.create("step_ll", model, eps=1, space=RAW, aux_weight=aux_weight)(torch.full((1, 2, 1, 1), 100.0))


def test_an_attack_on_an_inception_without_auxiliary_head() -> None:
    images = minibatch(2)[0]
    before = images.clone()
    with pytest.raises(ValueError, match="no auxiliary head: create it with aux=True"):
        attacks.create("step_ll", inception(aux=False), eps=1, space=SPACE, aux_weight=0.4).perturb_(images)
    assert torch.equal(images, before)
