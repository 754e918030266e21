"""What an attack does besides the model's own passes, operator by operator: counts that no machine's mood can change.

Times are for benchmarks. Here an operator that is added, a pass over the images, a temporary of their size, or a wait
fails by name. tests/simt/on_a_device.py has the launches of kernels, tests/train/test_distributed.py the collectives.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.operators import Operators
from fastadv import PixelSpace, TruncatedNormalEps, attacks
from fastadv.train import AdversarialTask, FreeTask, fast_task
from tests.attacks.models import ConvNet, batch

UNIT = PixelSpace.unit()


def passes(model: torch.nn.Module, images: Tensor) -> Operators:
    """One forward and one backward to the images, as cheap as they can be had."""
    with Operators(images) as counted:
        x = images.detach().requires_grad_()
        logits = model(x)
        torch.autograd.grad(logits, x, torch.ones_like(logits))
    return counted


def besides(counted: Counter[str], own: Counter[str], times: int) -> dict[str, int]:
    """What was counted more often than in ``times`` of the model's own passes."""
    rest = counted.copy()
    rest.subtract({name: times * count for name, count in own.items()})
    return {name: count for name, count in rest.items() if count}


# Of one call at eps = 4: the gradients, and all that comes besides: one choice of target and one step a gradient, the
# copy that is returned, and for several steps the clean images. detach makes no copy. The model's own pass has a
# ones_like, which an attack has not. Momentum is PyTorch's own arithmetic, in place.
STEP, CHOICE, NOISE = "fastadv::sign_step_", "fastadv::target_grad", "fastadv::noise_step_"
ONE_STEP = {CHOICE: 1, "clone": 1, "ones_like": -1}
OVER_ITS_MEAN = ("promote_types", "linalg_vector_norm", "select", "div", "gt", "scalar_tensor", "where", "div_")
MOMENTUM = {**dict.fromkeys(OVER_ITS_MEAN, 10), "mul_": 9, "add_": 9}
TABLE: dict[str, tuple[int, dict[str, int]]] = {
    **dict.fromkeys(
        ("fgsm", "fgsm_pred", "fast_entropy", "step_ll", "step_rnd"), (1, {**ONE_STEP, STEP: 1})
    ),
    **dict.fromkeys(("fast_grad_l2", "fast_grad_linf"), (1, {**ONE_STEP, "fastadv::normalized_step_": 1})),
    **dict.fromkeys(("iter_basic", "iter_ll"), (5, {CHOICE: 5, STEP: 5, "clone": 2, "ones_like": -5})),
    "pgd": (10, {CHOICE: 10, STEP: 10, NOISE: 1, "clone": 2, "ones_like": -10}),
    "mi_fgsm": (10, {CHOICE: 10, STEP: 10, "clone": 2, "ones_like": -10, **MOMENTUM}),
    **dict.fromkeys(("random_sign", "random_normal"), (0, {NOISE: 1, "clone": 1})),
}  # fmt: skip
# Of these, what moves no images: that of logits, or of a number an example.
SMALL = {CHOICE, "ones_like", *OVER_ITS_MEAN} - {"linalg_vector_norm", "div_"}


def test_the_table_is_complete() -> None:
    assert set(TABLE) == set(attacks.names())


def second_call(name: str, **options: Any) -> tuple[Operators, Operators]:
    """(what a call runs once everything has been looked at, the model's own passes)."""
    model = ConvNet().eval()
    images, labels = batch(6)
    attack = attacks.create(name, model, eps=4, space=UNIT, seed=1, **options)
    attack(images, labels)
    with Operators(images) as counted:
        attack(images, labels)
    return counted, passes(model, images)


@pytest.mark.parametrize("name", TABLE)
def test_operators_besides_the_models_own(name: str) -> None:
    gradients, expected = TABLE[name]
    counted, own = second_call(name)
    found = besides(counted.names, own.names, gradients)
    found.pop("detach", None)
    assert found == expected
    assert counted.names["convolution"] == gradients * own.names["convolution"]
    assert counted.names["convolution_backward"] == gradients * own.names["convolution_backward"]
    assert counted.weight_gradients == 0


@pytest.mark.parametrize("name", TABLE)
def test_full_size_work_besides_the_models_own(name: str) -> None:
    """Passes over images are those of the table; new images are the result, and for several steps the clean ones."""
    gradients, expected = TABLE[name]
    counted, own = second_call(name)
    passes_over_images = {operator: count for operator, count in expected.items() if operator not in SMALL}
    assert besides(counted.moving, own.moving, gradients) == passes_over_images
    assert besides(counted.full_size, own.full_size, gradients) == {"clone": 2 if gradients > 1 else 1}


@pytest.mark.parametrize("name", [*attacks.names()])
def test_nothing_is_waited_for(name: str) -> None:
    counted, _ = second_call(name)
    assert +counted.waits == {}


def test_a_drawn_eps_waits_for_its_largest_on_the_host_alone() -> None:
    """The number of iterations: read from numbers that were drawn on the host, wherever the images are."""
    model, (images, _) = ConvNet().eval(), batch(6)
    for name, reads in (("step_ll", 0), ("iter_ll", 1)):
        attack = attacks.create(name, model, eps=TruncatedNormalEps(), space=UNIT, seed=1)
        attack(images)
        with Operators(images) as counted:
            attack(images)
        assert counted.waits["_local_scalar_dense"] == reads


@pytest.mark.parametrize("fold_bn", [False, True], ids=["as it is", "folded"])
def test_folding_takes_the_batch_norms_out_of_every_pass(fold_bn: bool) -> None:
    counted, own = second_call("iter_ll", fold_bn=fold_bn)
    (batch_norm,) = (name for name in own.names if name.endswith("batch_norm"))
    assert counted.names[batch_norm] == (0 if fold_bn else 5 * own.names[batch_norm])
    assert counted.names[f"{batch_norm}_backward"] == (0 if fold_bn else 5 * own.names[f"{batch_norm}_backward"])


def second_step(task: Any, model: torch.nn.Module, shown: Tensor, images: Tensor, labels: Tensor) -> Operators:
    """What a call and its backward pass run, once everything has been looked at; counted are tensors like ``shown``."""
    for _ in range(2):
        model.zero_grad()
        copy = images.clone()
        with Operators(shown) as counted:
            task(copy, labels).backward()
    return counted


def test_one_training_step() -> None:
    """Algorithm 1 costs the attack on k examples, one pass of the loss, and nothing else; the copy is not made."""
    model, (images, labels) = ConvNet().train(), batch(6)
    adversarial, plain = (
        second_step(
            AdversarialTask(model, attack="step_ll", k=k, eps=4, space=UNIT, seed=1), model, images[:3], images, labels
        )
        for k in (3, 0)
    )
    own = passes(model.eval(), images[:3])
    found = besides(adversarial.names - plain.names, own.names, 1)
    found.pop("detach", None)
    found.pop("slice", None)
    assert found == {CHOICE: 1, STEP: 1, "ones_like": -1}
    assert besides(adversarial.full_size, plain.full_size + own.full_size, 1) == {}


def test_one_step_of_fast_training() -> None:
    """One forward and one backward to the images alone, and from the random start the clean images once more."""
    model, (images, labels) = ConvNet().train(), batch(6)
    plain = second_step(AdversarialTask(model, k=0, space=UNIT), model, images, images, labels)
    fast = second_step(fast_task(model, eps=4, space=UNIT, seed=1), model, images, images, labels)
    own = passes(model.eval(), images)
    found = besides(fast.names - plain.names, own.names, 1)
    found.pop("detach", None)
    found.pop("slice", None)
    assert found == {CHOICE: 1, STEP: 1, "fastadv::noise_step_": 1, "clone": 1, "ones_like": -1}
    assert besides(fast.full_size, plain.full_size + own.full_size, 1) == {"clone": 1}
    assert +fast.waits == {}


def test_one_step_of_free_training() -> None:
    """Not one pass more than training on clean images, whose backward pass now gives the images' gradient, too.

    Of the images' size there are what is shown and that gradient; the perturbation is there from the first call on.
    """
    model, (images, labels) = ConvNet().train(), batch(6)
    plain = second_step(AdversarialTask(model, k=0, space=UNIT), model, images, images, labels)
    free = second_step(FreeTask(model, eps=4, space=UNIT), model, images, images, labels)
    found = besides(free.names, plain.names, 1)
    found.pop("detach", None)
    found.pop("slice", None)
    assert found == {"add": 1, "sub": 1, STEP: 2}
    assert besides(free.full_size, plain.full_size, 1) == {"add": 1, "convolution_backward": 1}
    assert +free.waits == {}
    assert model.features[0].weight.grad is not None
