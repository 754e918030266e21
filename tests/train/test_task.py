from __future__ import annotations

import math
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastadv import attacks, models
from fastadv.eps import TruncatedNormalEps
from fastadv.pixels import PixelSpace
from fastadv.train import AdversarialTask, FreeTask
from fastadv.train.tasks.adversarial import ALL
from fastadv.train.tasks.soft_labels import mixed_cross_entropy

LN2 = math.log(2)
RAW = PixelSpace.raw()


class Pixels(nn.Module):
    """The logits are the pixels, so adversarial examples can be computed by hand."""

    def forward(self, images: Tensor) -> Tensor:  # [m, K, 1, 1] -> [m, K]
        return images.flatten(1)


def four_images() -> tuple[Tensor, Tensor]:
    rows = [[10.0, 12.0], [20.0, 14.0], [5.0, 5.0], [8.0, 8.0 + math.log(3)]]
    return torch.tensor(rows, dtype=torch.float64).view(4, 2, 1, 1), torch.tensor([0, 0, 1, 1])


def cnn(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return models.create("small_cnn", num_classes=10, in_channels=1, width=0.25, **options)


def batch(m: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(m, 1, 8, 8, generator=generator), torch.randint(10, (m,), generator=generator)


# step l.l. with eps = 1 lifts the least likely pixel by 1 and lowers the other by 1:
# [10, 12] -> [11, 11], of cost ln 2 for class 0; [20, 14] -> [19, 15], of cost ln(1 + e^-4).
@pytest.mark.parametrize(
    ("k", "lambda_", "loss"),
    [
        (0, 0.3, (math.log1p(math.e**2) + math.log1p(math.e**-6) + LN2 + math.log(4 / 3)) / 4),
        (1, 0.3, (0.3 * LN2 + math.log1p(math.e**-6) + LN2 + math.log(4 / 3)) / 3.3),
        (2, 0.3, (0.3 * (LN2 + math.log1p(math.e**-4)) + LN2 + math.log(4 / 3)) / 2.6),
        (2, 0.0, (LN2 + math.log(4 / 3)) / 2),
        (2, 1.0, (LN2 + math.log1p(math.e**-4) + LN2 + math.log(4 / 3)) / 4),
    ],
)
def test_loss_of_algorithm_1(k: int, lambda_: float, loss: float) -> None:
    images, labels = four_images()
    task = AdversarialTask(Pixels(), k=k, lambda_=lambda_, eps=1, space=RAW)
    assert task(images, labels).item() == pytest.approx(loss, rel=1e-12)
    expected = [[11, 11], [19, 15]]
    assert images.flatten(1)[:k].tolist() == expected[:k]
    assert torch.equal(images[k:], four_images()[0][k:])


def test_label_smoothing() -> None:
    images, labels = four_images()
    task = AdversarialTask(Pixels(), k=0, eps=1, space=RAW, label_smoothing=0.5)
    smooth = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)  # targets 3/4 and 1/4 against p = 3/4 and 1/4
    assert task(images[3:], labels[3:]).item() == pytest.approx(smooth, rel=1e-12)


SOFT = torch.tensor([[0.75, 0.25], [1, 0], [0.5, 0.5], [0, 1]])
# Of the pixels [11, 11], [19, 15], [5, 5] and [8, 8 + ln 3], as above: 0.75 ln 2 + 0.25 ln 2, and so on.
SOFT_LOSSES = [LN2, math.log1p(math.e**-4), LN2, math.log(4 / 3)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_soft_labels(dtype: torch.dtype) -> None:
    """Each class is weighted by its probability. Attacks that do not use the true label are unaffected."""
    images, _ = four_images()
    task = AdversarialTask(Pixels(), k=2, lambda_=0.3, eps=1, space=RAW)
    assert task(images, SOFT.to(dtype)).item() == pytest.approx(
        (0.3 * sum(SOFT_LOSSES[:2]) + sum(SOFT_LOSSES[2:])) / 2.6, rel=1e-12
    )
    assert images.flatten(1)[:2].tolist() == [[11, 11], [19, 15]]
    assert task.accuracy() == (1.0, 1.0)  # the first of equal logits and probabilities


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("task", ["adversarial", "free"])
def test_soft_labels_that_are_certain_are_classes(task: str, label_smoothing: float) -> None:
    def run(soft: bool) -> tuple[Tensor, Any]:
        model = cnn()
        images, labels = batch()
        options: dict[str, Any] = {"eps": 6, "space": PixelSpace.unit(), "label_smoothing": label_smoothing}
        one = FreeTask(model, **options) if task == "free" else AdversarialTask(model, k=3, seed=0, **options)
        loss = one(images, nn.functional.one_hot(labels, 10).float() if soft else labels)
        loss.backward()
        return torch.cat([loss.detach()[None], *(p.grad.flatten() for p in model.parameters())]), one.accuracy()

    by_class, expected = run(False)
    by_row, accuracy = run(True)
    torch.testing.assert_close(by_row, by_class)
    assert accuracy == expected


def test_soft_labels_name_no_true_label() -> None:
    """An attack that uses it is refused from the first minibatch, even before adversarial training starts."""
    task = AdversarialTask(Pixels(), attack="fgsm", k=2, eps=1, space=RAW, start_after=5)
    images, _ = four_images()
    with pytest.raises(ValueError, match=r"fgsm uses the true label, which soft labels \[4, 2\] do not give"):
        task(images, SOFT)
    AdversarialTask(Pixels(), attack="fgsm", k=0, eps=1, space=RAW)(images, SOFT)
    with pytest.raises(ValueError, match="the loss has no weight: all 4 examples are adversarial"):
        AdversarialTask(Pixels(), k=4, lambda_=0.0, eps=1, space=RAW)(images, SOFT)


def test_soft_labels_that_are_not_read_ahead_give_nan() -> None:
    """On a GPU, where reading them would wait."""
    logits = torch.zeros(4, 2, requires_grad=True)
    loss = mixed_cross_entropy(logits, 2 * SOFT, 2, 0.3, 0.0)
    assert loss.isnan() and torch.autograd.grad(loss, logits)[0].isnan().all()


@pytest.mark.parametrize(("options", "towards"), [({}, False), ({"attack_options": {"label_smoothing": 0.2}}, True)])
def test_label_smoothing_turns_an_attack_on_a_sure_example(options: dict[str, Any], towards: bool) -> None:
    """As documented: with smoothing 0.2 of two classes, where p > 1 - 0.2 * (1 - 1 / 2) = 0.9."""
    images = torch.tensor([[103.0, 100.0], [102.0, 100.0]]).view(2, 2, 1, 1)  # p = 0.953 and 0.881 of class 0
    task = AdversarialTask(Pixels(), attack="fgsm", k=2, eps=1, space=RAW, label_smoothing=0.2, **options)
    task(images, torch.zeros(2, dtype=torch.int64))
    assert images.flatten(1).tolist() == [[104, 99] if towards else [102, 101], [101, 101]]


def test_gradient_is_that_of_the_loss_alone() -> None:
    model = cnn().double()
    images, labels = batch()
    images = images.double()
    AdversarialTask(model, k=3, eps=16, space=PixelSpace.unit(), seed=1)(images, labels).backward()
    got = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    losses = nn.functional.cross_entropy(model(images), labels, reduction="none")  # of the adversarial images
    ((losses[3:].sum() + 0.3 * losses[:3].sum()) / (5 + 0.9)).backward()
    for mine, parameter in zip(got, model.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad)


@pytest.mark.parametrize("attack", ["step_ll", "fgsm", "iter_ll", "random_sign"])
@pytest.mark.parametrize(("m", "k", "replaced"), [(8, 0, 0), (8, 3, 3), (8, 8, 8), (5, 8, 5), (1, 1, 1), (0, 2, 0)])
def test_first_k_are_replaced_in_place_within_eps(attack: str, m: int, k: int, replaced: int) -> None:
    images, labels = batch(m)
    clean = images.clone()
    task = AdversarialTask(cnn().eval(), attack=attack, k=k, eps=6, space=PixelSpace.unit(), seed=0)
    if m == 0:
        with pytest.raises(ValueError):
            task(images, labels)
        return
    task(images, labels)
    distance = (images - clean).abs().flatten(1).amax(dim=1)  # [m]
    assert (distance[:replaced] > 5 / 255).all()
    assert (distance <= 6 / 255 * (1 + 1e-6)).all()
    assert (distance[replaced:] == 0).all()
    assert images.min() >= 0 and images.max() <= 1


def test_eps_is_drawn_for_each_example() -> None:
    images, labels = torch.full((16, 1, 8, 8), 0.5), torch.zeros(16, dtype=torch.int64)
    AdversarialTask(cnn(), k=16, eps=TruncatedNormalEps(), space=PixelSpace.unit(), seed=0)(images, labels)
    sizes = (images - 0.5).abs().flatten(1).amax(dim=1) * 255
    assert len(sizes.unique()) == 16
    assert sizes.max() <= 16


def test_delayed_start() -> None:
    task = AdversarialTask(cnn(), k=4, eps=6, space=PixelSpace.unit(), start_after=2)
    changed = []
    for seed in range(4):
        images, labels = batch(seed=seed)
        task(images, labels)
        changed.append(not torch.equal(images, batch(seed=seed)[0]))
    assert changed == [False, False, True, True]
    assert task.iteration == 4


def test_a_call_that_fails_does_not_count() -> None:
    task = AdversarialTask(cnn(), k=4, eps=6, space=PixelSpace.unit())
    images, labels = batch()
    with pytest.raises(ValueError, match="pixel range"):
        task(images * 255, labels)
    assert task.iteration == 0


@pytest.mark.parametrize("seed", [None, 5])
def test_state_continues_the_random_draws(seed: int | None) -> None:
    def images_of(task: AdversarialTask, seeds: range) -> list[Tensor]:
        made = []
        for one in seeds:
            images, labels = batch(seed=one)
            task(images, labels)
            made.append(images)
        return made

    options: dict[str, Any] = {"attack": "random_sign", "k": 4, "eps": TruncatedNormalEps(), "space": PixelSpace.unit()}
    task = AdversarialTask(cnn(), seed=seed, start_after=1, **options)
    images_of(task, range(2))
    state, rng = task.state_dict(), torch.get_rng_state()
    expected = images_of(task, range(2, 4))
    other = AdversarialTask(cnn(), seed=99, start_after=1, **options)
    images_of(other, range(1))
    other.load_state_dict(state)
    torch.set_rng_state(rng)
    for wanted, got in zip(expected, images_of(other, range(2, 4)), strict=True):
        assert torch.equal(wanted, got)


@pytest.mark.parametrize("k", [0, 4, 8])
def test_accuracy_of_the_last_minibatch(k: int) -> None:
    images = torch.tensor([[9.0, 0.0]] * 8).view(8, 2, 1, 1)  # class 0, which eps = 1 cannot change
    labels = torch.tensor([0, 0, 0, 1, 0, 0, 1, 1])
    task = AdversarialTask(Pixels(), k=k, eps=1, space=RAW)
    assert task.accuracy() == (None, None)
    task(images, labels)
    assert task.accuracy() == {0: (5 / 8, None), 4: (2 / 4, 3 / 4), 8: (None, 5 / 8)}[k]


@pytest.mark.parametrize("bn", ["eval", "batch"])
@pytest.mark.parametrize("given", [lambda model: model, lambda model: lambda images: model(images)])
def test_batch_statistics_are_updated_once(given: Callable[[nn.Module], Any], bn: str) -> None:
    """By the training pass, not by generation; also if the model is inside a plain function."""
    model = cnn()
    options = {"attack": "iter_ll", "k": 4, "eps": 6, "attack_options": {"bn": bn}}
    AdversarialTask(given(model), space=PixelSpace.unit(), **options)(*batch())
    assert model.training
    counts = [buffer.item() for name, buffer in model.named_buffers() if name.endswith("num_batches_tracked")]
    assert counts and set(counts) == {1}


def test_a_loop_of_ones_own_needs_no_optional_dependency() -> None:
    optional = ["jsonargparse", "yaml", "rich", "safetensors", "tensorboard", "sklearn", "timm", "torchvision"]
    code = f"import sys, fastadv.train; print([name for name in {optional} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.fixture
def process_group() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize("wrap", [nn.parallel.DistributedDataParallel, compiled], ids=["ddp", "compile"])
def test_wrapped_models(wrap: Callable[[nn.Module], nn.Module], process_group: None) -> None:
    plain_images, labels = batch()
    plain = AdversarialTask(cnn(), k=4, eps=6, space=PixelSpace.unit(), seed=0)(plain_images, labels)

    model = wrap(cnn())
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append("wrapper"))
    images, labels = batch()
    loss = AdversarialTask(model, k=4, eps=6, space=PixelSpace.unit(), seed=0)(images, labels)
    loss.backward()
    assert calls == ["wrapper"]  # the training pass; generation bypassed the wrapper
    assert torch.equal(images, plain_images)
    torch.testing.assert_close(loss, plain)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"k": -1}, "k must be at least 0, got"),
        ({"lambda_": -0.1}, "lambda_ must be a number at least 0, got"),
        ({"lambda_": math.nan}, "lambda_ must be a number at least 0, got"),
        ({"start_after": -1}, "start_after must be at least 0, got"),
        ({"lambda_": "x"}, "lambda_ must be a number at least 0, got 'x'"),
        ({"label_smoothing": "x"}, r"label_smoothing must be a number at least 0 and below 1, got 'x'"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be a number at least 0 and below 1, got 1.0"),
        ({"attack": "deepfool"}, "step_ll"),
        ({"eps": -1}, "eps"),
        ({"attack_options": {"bm": "eval"}}, "bm"),
        ({"attack_options": {"eps": 4}}, "attack_options must not set eps: it is an argument of the task"),
        ({"attack_options": {"bn": "eval", "space": RAW}}, "attack_options must not set space"),
        ({"attack_options": {"seed": 1}}, "attack_options must not set seed"),
        ({"attack": "iter_ll", "attack_options": {"alpha": 0}}, "alpha must be positive: without a step no example"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        AdversarialTask(Pixels(), space=RAW, **options)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"k": 2.0}, "k must be an integer, got 2.0"),
        ({"start_after": 0.5}, "start_after must be an integer, got 0.5"),
        ({"attack": attacks.StepLL(Pixels())}, "pass the attack's name or its class, such as StepLL"),
        ({"attack": None}, "an attack is a name or a class, got NoneType"),
    ],
)
def test_options_of_another_kind(options: dict[str, Any], error: str) -> None:
    with pytest.raises(TypeError, match=error):
        AdversarialTask(Pixels(), space=RAW, **options)


def test_an_attack_of_ones_own() -> None:
    class Brighter(attacks.Attack):
        name = "brighter"

        def run_(self, adv: Tensor, labels: Tensor | None, size: attacks.Size, seed: int, offset: int) -> None:
            adv.add_(size.eps)

    images, labels = four_images()
    task = AdversarialTask(Pixels(), attack=Brighter, k=2, eps=3, space=RAW, attack_options={"validate": "never"})
    task(images, labels)
    assert torch.equal(images[:2], four_images()[0][:2] + 3) and torch.equal(images[2:], four_images()[0][2:])
    assert task.attack.validate == "never"


def test_the_state_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="keys iteration and stream, got weight, bias"):
        AdversarialTask(Pixels(), space=RAW).load_state_dict({"weight": 0, "bias": 0})


def seen_twice(task: AdversarialTask, calls: Iterable[Tensor]) -> list[bool]:
    """For each minibatch, whether the task warned."""
    warned = []
    for images in calls:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            task(images, torch.zeros(len(images), dtype=torch.int64))
        warned.append(
            any("already perturbed in place by an earlier call" in str(warning.message) for warning in caught)
        )
    return warned


@pytest.mark.parametrize(
    ("k", "sizes", "warned"),
    [(4, [4, 4], []), (5, [4, 4], [0]), (4, [4, 3], []), (5, [4, 6, 2], [0]), (ALL, [4], []), (0, [4], [])],
)
def test_more_adversarial_examples_than_images(k: int, sizes: list[int], warned: list[int]) -> None:
    """Warns for the first minibatch only: a smaller last one is usual."""
    task = AdversarialTask(Pixels(), k=k, eps=1, space=RAW, start_after=1)
    said = []
    for number, m in enumerate(sizes):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            task(torch.full((m, 2, 1, 1), 100.0), torch.zeros(m, dtype=torch.int64))
        said += [number for one in caught if f"k = {k} is more than the {m} images of the first" in str(one.message)]
    assert said == warned


@pytest.mark.parametrize("k", [0, 2])
def test_a_minibatch_that_comes_back_warns(k: int) -> None:
    """Otherwise a data set in memory would become more adversarial with each epoch."""
    task = AdversarialTask(Pixels(), k=k, eps=1, space=RAW)
    again = k > 0
    pool = torch.full((12, 2, 1, 1), 100.0)
    whole = [pool[:4], pool[4:8], pool[8:]]
    assert seen_twice(task, whole) == [False] * 3
    assert seen_twice(task, [pool[:4], pool[4:8], pool[2:6]]) == [again, again, False]
    assert seen_twice(task, [rows.clone() for rows in whole]) == [False] * 3
    batches = [pool.clone() for _ in range(2)]
    assert seen_twice(task, batches + batches) == [False, False, again, again]


def test_a_refilled_buffer_does_not_warn() -> None:
    task = AdversarialTask(Pixels(), k=2, eps=1, space=RAW)
    buffer = torch.empty(8, 2, 1, 1)

    def fills() -> Iterator[Tensor]:
        for value in (100.0, 120.0):
            buffer.fill_(value)
            yield from buffer.split(4)

    assert seen_twice(task, fills()) == [False] * 4


def test_minibatches_made_in_inference_mode() -> None:
    """They have no version counter; the task works on them all the same."""
    with torch.inference_mode():
        images = torch.full((4, 2, 1, 1), 100.0)
        task = AdversarialTask(Pixels(), attack="fgsm", k=2, eps=1, space=RAW)
        assert seen_twice(task, [images, images]) == [False, False]
    assert images.flatten(1).tolist() == [[98, 102]] * 2 + [[100, 100]] * 2


@pytest.mark.parametrize("k", [0, 2])
@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (lambda x, y: (x.requires_grad_(), y), ValueError, "must not require a gradient"),
        (lambda x, y: (x.to(torch.uint8), y), TypeError, "floating point"),
        (
            lambda x, y: (x.numpy(), y),
            TypeError,
            "images must be floating point, got ndarray; convert it with torch.from_numpy",
        ),
        (lambda x, y: (x.tolist(), y), TypeError, "images must be floating point, got list$"),
        (lambda x, y: (x[0], y[:1]), ValueError, r"\[2\], got \[1\]; make a batch of a single image by images\[None\]"),
        (lambda x, y: (x, torch.eye(4).long()), ValueError, r"got \[4, 4\]; pass labels.argmax\(dim=1\), of one-hot"),
        (lambda x, y: (x, torch.eye(4).int()), TypeError, r"int32 \[4, 4\]: pass soft labels as .* labels.float\(\)"),
        (lambda x, y: (x, y.double()), TypeError, "got torch.float64: pass labels.long"),
        (
            lambda x, y: (x, y + 0.5),
            TypeError,
            r"float32, and not all of its values are whole: .*probabilities \[m, K\]",
        ),
        (lambda x, y: (x, torch.eye(4)[:3]), ValueError, r"one class per image, \[4\], got \[3, 4\]"),
        (lambda x, y: (x, torch.eye(4)), ValueError, r"soft labels must be \[4, 2\], like the logits, got \[4, 4\]"),
        (lambda x, y: (x, torch.ones(4, 2)), ValueError, "rows .* sum to 1, got 1 to 1 in rows that sum to 2 to 2"),
        (lambda x, y: (x, torch.tensor([[-0.5, 1.5]] * 4)), ValueError, "got -0.5 to 1.5 in rows that sum to 1 to 1"),
        (lambda x, y: (x, torch.full((4, 2), math.nan)), ValueError, "soft labels must be probabilities"),
        (lambda x, y: (x, y.int()), TypeError, r"labels must be an int64 tensor, got torch.int32: pass labels.long"),
        (lambda x, y: (x, y.tolist()), TypeError, "labels must be an int64 tensor, got list"),
        (lambda x, y: (x, y[:-1]), ValueError, r"\[4\], got \[3\]"),
        (lambda x, y: (x[0, 0, 0, 0], y), ValueError, r"must have at least one image, got images \[\]"),
        (lambda x, y: (x[:0], y[:0]), ValueError, r"must have at least one image, got images \[0, 2, 1, 1\]"),
        (lambda x, y: (x, y[:, None]), ValueError, r"\[4\], got \[4, 1\]; pass labels.squeeze\(1\)"),
    ],
)
def test_data_that_is_refused(k: int, change: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        AdversarialTask(Pixels(), k=k, eps=1, space=RAW)(*change(*four_images()))
