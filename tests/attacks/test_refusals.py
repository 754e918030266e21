"""Images outside the space, and every other mistake, raise an error that names it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastadv import PixelSpace, attacks
from tests.attacks.models import CLASSES, DTYPES, SPACES, ConvNet, assert_in_range, batch

NAN, INF = float("nan"), float("inf")
IMAGES, LABELS = batch()
OUTSIDE = torch.full((6, 3, 8, 8), 100.0)  # of the unit space


@pytest.mark.parametrize(
    ("validate", "refused"),
    [("first", [True, True, False, False]), ("always", [True, True, False, True]), ("never", [False] * 4)],
)
@pytest.mark.parametrize("call", ["__call__", "perturb_"])
def test_images_outside_the_space(validate: str, refused: list[bool], call: str) -> None:
    """The first batch is the first that passes: a repeated mistake raises again."""
    attack = attacks.create("step_ll", ConvNet(), eps=4, validate=validate)
    results = []
    for images in (OUTSIDE.clone(), OUTSIDE.clone(), batch()[0], OUTSIDE.clone()):
        try:
            getattr(attack, call)(images)
        except ValueError as error:
            assert "outside the pixel range" in str(error) and "PixelSpace" in str(error)
            results.append(True)
        else:
            results.append(False)
    assert results == refused


def test_an_empty_batch_is_not_the_first() -> None:
    attack = attacks.create("step_ll", ConvNet(), eps=4)
    attack(OUTSIDE[:0])
    with pytest.raises(ValueError, match="outside the pixel range"):
        attack(OUTSIDE)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_the_ends_of_the_range_are_inside(space: PixelSpace, dtype: torch.dtype) -> None:
    """Whether they were normalised by this package or in the dtype itself."""
    pixels = torch.tensor([0.0, 255.0]).repeat(96).view(1, 3, 8, 8)
    mean, std = (torch.tensor(values, dtype=dtype).view(-1, 1, 1) for values in (space.mean, space.std))
    for images in (space.from_pixels(pixels, dtype), (pixels.to(dtype) - mean) / std):
        adv = attacks.create("random_sign", ConvNet(), space=space, validate="always")(images)
        assert_in_range(adv, space)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"eps": -1}, ValueError, "eps must be zero or more and finite.*got -1"),
        ({"eps": NAN}, ValueError, "eps must be zero or more and finite.*got nan"),
        ({"eps": INF}, ValueError, "eps must be zero or more and finite.*got inf"),
        ({"eps": torch.tensor(-1.0)}, ValueError, "eps must be zero or more and finite.*got -1"),
        ({"eps": None}, TypeError, "eps must be a number.*got NoneType"),
        ({"eps": "16"}, TypeError, "eps must be a number.*got str"),
        ({"eps": [8, 16]}, TypeError, "eps must be a number.*got list"),
        ({"alpha": -1}, ValueError, "alpha must be zero or more.*got -1"),
        ({"alpha": "1"}, ValueError, "alpha must be zero or more.*got '1'"),
        ({"eps": True}, TypeError, "eps must be a number.*got bool"),
        ({"alpha": torch.ones(6)}, ValueError, r"alpha must be zero or more.*got a tensor \[6\]"),
        ({"alpha": NAN}, ValueError, "alpha must be zero or more.*got nan"),
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"steps": 2.5}, TypeError, "steps must be an integer, got 2.5"),
        ({"steps": True}, TypeError, "steps must be an integer, got True"),
        ({"decay": "1"}, ValueError, "decay must be zero or more.*got '1'"),
        ({"decay": -0.5}, ValueError, "decay must be zero or more.*got -0.5"),
        ({"decay": NAN}, ValueError, "decay must be zero or more.*got nan"),
        ({"label_smoothing": 1.0}, ValueError, r"label_smoothing must be a number at least 0 and below 1, got 1.0"),
        ({"label_smoothing": -0.1}, ValueError, r"label_smoothing must be a number at least 0 and below 1, got -0.1"),
        ({"label_smoothing": "0.1"}, ValueError, r"label_smoothing must be a number at least 0 and below 1, got '0.1'"),
        ({"aux_weight": "0.4"}, ValueError, "aux_weight must be a number at least 0, got '0.4'"),
        ({"fast": "no"}, ValueError, "fast must be true or false, got 'no'"),
        ({"fold_bn": "no"}, ValueError, "fold_bn must be true or false, got 'no'"),
        ({"compile": 1}, ValueError, "compile must be true or false, got 1"),
        ({"capture": None}, ValueError, "capture must be true or false, got None"),
        ({"bn": "train"}, ValueError, "bn must be one of eval, batch, got 'train'"),
        ({"validate": "sometimes"}, ValueError, "validate must be one of first, always, never, got 'sometimes'"),
        ({"space": "unit"}, TypeError, "space must be a PixelSpace.*got str"),
        ({"seed": 1, "generator": torch.Generator()}, ValueError, "seed or generator, not both"),
        ({"seed": 1.5}, TypeError, "seed must be an integer, got 1.5"),
        ({"generator": 3}, TypeError, "generator must be a torch.Generator, got int"),
        ({"model": None}, TypeError, "model must be a module or a callable, got NoneType"),
        ({"model": ConvNet}, TypeError, "model must be .* a callable, got the class ConvNet: create it first"),
    ],
)
def test_refused_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        attacks.create("mi_fgsm", **{"model": ConvNet(), **options})


@pytest.mark.parametrize("name", ["iter_basic", "iter_ll", "pgd", "mi_fgsm"])
def test_steps_of_no_length_stand_still(name: str) -> None:
    still = {"random_start": False} if name == "pgd" else {}
    adv = attacks.create(name, ConvNet(), eps=4, alpha=0, **still)(IMAGES, LABELS)
    assert torch.equal(adv, IMAGES)


@pytest.mark.parametrize(
    ("images", "labels", "options", "error", "message"),
    [
        (IMAGES.tolist(), LABELS, {}, TypeError, "images must be a float32.*got list"),
        ((255 * IMAGES).to(torch.uint8), LABELS, {}, TypeError, "got torch.uint8; convert uint8 pixels with"),
        (IMAGES.to(torch.complex64), LABELS, {}, TypeError, "got torch.complex64"),
        (IMAGES.to(torch.float8_e4m3fn), LABELS, {}, TypeError, "got torch.float8_e4m3fn"),
        (IMAGES.flatten(), LABELS, {}, ValueError, r"images must have shape \[N, C, ...\], got \[1152\]"),
        (255 * IMAGES, LABELS, {}, ValueError, r"outside the pixel range.*\[0, 65025\]"),
        (2 * IMAGES - 1, LABELS, {}, ValueError, "outside the pixel range"),
        (NAN * IMAGES, LABELS, {}, ValueError, "values that are not finite"),
        (IMAGES[0], LABELS[:3], {"space": PixelSpace.imagenet()}, ValueError, r"3 channels.*images\[None\]"),
        (IMAGES[:, :1], LABELS, {"space": PixelSpace.imagenet()}, ValueError, "3 channels"),
        (IMAGES, None, {}, ValueError, r"fgsm uses the true label: call it with labels \[N\]"),
        (IMAGES[:0], None, {}, ValueError, "fgsm uses the true label"),
        (IMAGES, LABELS.float(), {}, TypeError, r"of class indices, got torch.float32 \[6\]: pass labels.long\(\)$"),
        (IMAGES, LABELS + 0.5, {}, TypeError, r"got torch.float32 \[6\], and not all of its values are whole numbers$"),
        (IMAGES, LABELS.float()[:, None], {}, TypeError, r"\[6, 1\]: pass labels.long\(\).squeeze\(1\)$"),
        (IMAGES, torch.rand(6, 5), {}, TypeError, r"\[6, 5\]: pass one class per image, labels.argmax\(dim=1\)$"),
        (IMAGES, torch.eye(6), {}, TypeError, r"\[6, 6\]: pass one class per image, labels.argmax\(dim=1\)$"),
        (IMAGES, torch.eye(6) > 0, {}, TypeError, r"pass one class per image, labels.long\(\).argmax\(dim=1\)$"),
        (IMAGES, LABELS > 2, {}, TypeError, r"of class indices, got torch.bool \[6\]: pass labels.long\(\)$"),
        (IMAGES, LABELS.to(torch.complex64), {}, TypeError, r"of class indices, got torch.complex64 \[6\]$"),
        (IMAGES, LABELS.tolist(), {}, TypeError, r"of class indices, got list: pass torch.tensor\(labels\)$"),
        (IMAGES, LABELS.numpy(), {}, TypeError, r"of class indices, got ndarray: pass torch.from_numpy\(labels\)$"),
        (IMAGES, LABELS[:-1], {}, ValueError, r"labels must have shape \[6\], got \[5\]"),
        (IMAGES, LABELS[:, None], {}, ValueError, r"must have shape \[6\], got \[6, 1\]; pass labels.squeeze\(1\)"),
        (IMAGES, torch.eye(6).long(), {}, ValueError, r"got \[6, 6\]; pass labels.argmax\(dim=1\), of one-hot rows"),
        (IMAGES.double(), LABELS, {}, ValueError, r"fgsm: .* are torch.float64 and its weights torch.float32: .*\(\S"),
        (
            IMAGES,
            LABELS + CLASSES,
            {},
            ValueError,
            r"^fgsm: labels must be in \[0, 5\), the model's 5 classes, got \d$",
        ),
        (IMAGES, LABELS + CLASSES, {"validate": "never"}, ValueError, r"^fgsm: labels must be in \[0, 5\)"),
        (
            IMAGES,
            LABELS - CLASSES,
            {},
            ValueError,
            r"^fgsm: labels must be in \[0, 5\), the model's 5 classes, got -\d$",
        ),
        (IMAGES, LABELS, {"eps": torch.ones(5)}, ValueError, r"eps per example must have shape \[6\], got \[5\]"),
        (IMAGES, LABELS, {"eps": torch.ones(6, 1)}, ValueError, r"must have shape \[6\], got \[6, 1\]"),
        (IMAGES, LABELS, {"eps": -torch.ones(6)}, ValueError, r"eps.*got \[-1"),
        (IMAGES, LABELS, {"eps": NAN * torch.ones(6)}, ValueError, r"eps.*got \[nan"),
    ],
)
def test_refused_calls(images: Any, labels: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    attack = attacks.create("fgsm", ConvNet(), **{"eps": 4, **options})
    with pytest.raises(error, match=message):
        attack(images, labels)


@pytest.mark.parametrize(
    ("model", "got"),
    [
        (lambda x: x.flatten(2), r"a tensor \[6, 3, 64\]"),
        (lambda x: (x.flatten(1), None), r"tuple; pass lambda x: model\(x\)\[0\] in the model's place"),
        (lambda x: x.flatten(1).detach(), "a tensor .* without a gradient"),
        (torch.no_grad()(ConvNet().eval()), "a tensor .* without a gradient"),
        (lambda x: x[:3].flatten(1), r"a tensor \[3, 192\]"),
        (lambda x: x.flatten(0, 1).flatten(1), r"a tensor \[18, 64\]"),
    ],
    ids=["rank 3", "tuple", "detached", "no_grad", "fewer rows", "more rows"],
)
@pytest.mark.parametrize("name", ["fgsm", "step_ll"])
def test_refused_models(name: str, model: Callable[[Tensor], Any], got: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}: the model must return differentiable logits \[.*, got {got}"):
        attacks.create(name, model, eps=4)(IMAGES, LABELS)


@pytest.mark.parametrize(
    ("model", "got"),
    [
        (lambda x: x.flatten(2), r"a tensor \[6, 3, 64\]$"),
        (lambda x: x.flatten(1).numpy(), "ndarray; convert it with torch.from_numpy$"),
    ],
    ids=["rank 3", "numpy"],
)
def test_models_that_square_refuses(model: Callable[[Tensor], Any], got: str) -> None:
    """It needs no gradient, so the message does not ask for one."""
    with pytest.raises(ValueError, match=rf"square: the model must return logits \[6, K\], got {got}"):
        attacks.create("square", model, eps=4, queries=2)(IMAGES, LABELS)


def test_random_start_is_true_or_false() -> None:
    """As a string, "false" would be true."""
    with pytest.raises(ValueError, match="random_start must be true or false, got 'false'"):
        attacks.create("pgd", ConvNet(), random_start="false")


@pytest.mark.parametrize("options", [{}, {"compile": True}, {"fold_bn": True}], ids=["plain", "compile", "fold_bn"])
def test_labels_out_of_range_in_a_later_batch(options: dict[str, Any], used: Any) -> None:
    attack = attacks.create("iter_basic", ConvNet(), eps=4, **options)
    for _ in range(2):
        attack(IMAGES, LABELS)
    with pytest.raises(ValueError, match=r"^iter_basic: labels must be in \[0, 5\), the model's 5 classes, got \d$"):
        attack(IMAGES, LABELS + CLASSES)
    with pytest.raises(ValueError, match=r"^iter_basic: labels must be in \[0, 5\), the model's 5 classes, got \d$"):
        list(attack.at_each(IMAGES, LABELS + CLASSES, eps=[4]))


def test_another_failure_of_the_model_is_its_own() -> None:
    with pytest.raises(RuntimeError, match=r"expected input.* to have 3 channels"):
        attacks.create("step_ll", ConvNet(), eps=4)(IMAGES[:, :1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        attacks.create("step_ll", ConvNet(), eps=4)(IMAGES.bfloat16())  # which autocast puts right


TRANSFORMS: dict[str, Callable[[Any], Any]] = {
    "grad": lambda attack: torch.func.grad(lambda x: attack(x, LABELS).sum())(IMAGES),
    "grad of weights": lambda attack: torch.func.grad(lambda w: w * attack(IMAGES, LABELS).sum())(torch.ones(())),
    "vmap": lambda attack: torch.func.vmap(lambda x: attack(x[None], LABELS[:1]))(IMAGES),
    "vmap of a step": lambda attack: list(torch.func.vmap(lambda x: attack.at_each(x, LABELS, eps=[4]))(IMAGES[None])),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("name", ["fgsm", "iter_ll"])
def test_inside_a_transform_of_torch_func(name: str, transform: Callable[[Any], Any]) -> None:
    with pytest.raises(RuntimeError, match=rf"{name} cannot run inside torch.func.grad, vmap .*: make the adversarial"):
        transform(attacks.create(name, ConvNet(), eps=4))


def test_images_that_require_grad_are_not_mutated() -> None:
    images = IMAGES.clone().requires_grad_()
    with pytest.raises(ValueError, match=r"must not require grad: pass images.detach\(\)"):
        attacks.create("step_ll", ConvNet(), eps=4).perturb_(images)
    assert torch.equal(images, IMAGES)


def test_a_single_image_without_a_batch_dimension() -> None:
    """Convolutions accept it, and return one row."""
    with pytest.raises(ValueError, match=r"logits \[3, K\].*images\[None\]"):
        attacks.create("step_ll", lambda x: x.sum(0).flatten()[None])(IMAGES[0])
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    with pytest.raises(ValueError, match=r"fgsm: the model fails .* by images\[None\] \(.*cannot be multiplied"):
        attacks.create("fgsm", pooled)(IMAGES[0], LABELS[:3])
    with pytest.raises(ValueError, match=r"labels must have shape \[3\], got \[1\].*images\[None\]"):
        attacks.create("fgsm", ConvNet())(IMAGES[0], LABELS[:1])


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda x: ConvNet().eval()(x).softmax(1), "look like probabilities"),
        (lambda x: ConvNet().eval()(x) * INF, "not all finite"),
        (lambda x: ConvNet().eval()(x) * torch.tensor([1, 1, 1, 1, NAN]), "not all finite"),
        (lambda x: ConvNet().eval()(x), None),
        (lambda x: ConvNet().eval()(x).log_softmax(1), None),
    ],
    ids=["softmax", "infinite", "one NaN", "logits", "log-softmax"],
)
@pytest.mark.parametrize("name", ["fgsm", "iter_ll"])
def test_suspicious_outputs_warn_once(name: str, model: Callable[[Tensor], Tensor], said: str | None) -> None:
    attack = attacks.create(name, model, eps=4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            attack(IMAGES, attack.true_labels(LABELS * 0))
    assert [warning.filename for warning in caught] == [__file__] * (said is not None)
    assert all(name in str(warning.message) and str(said) in str(warning.message) for warning in caught)


def test_logits_with_a_gradient_that_does_not_reach_the_images() -> None:
    with pytest.raises(ValueError, match="step_ll: the model's logits do not depend on the images"):
        attacks.create("step_ll", lambda x: ConvNet().eval()(torch.zeros_like(x)))(IMAGES)
