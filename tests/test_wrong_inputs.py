"""Mistakes of new users: refused with one line that says what is expected and what was given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.inception import InceptionOutputs

from fastadv import PixelSpace, TruncatedNormalEps, attacks, data
from fastadv.evaluate import evaluate, evaluate_each
from fastadv.train import AdversarialTask, FreeTask, fast_task
from fastadv.train.validation import accuracy
from fastadv.utils.model_outputs import split_logits

UNIT = PixelSpace.unit()
IMAGES, LABELS = torch.full((6, 3, 2, 2), 0.5), torch.arange(6) % 5
WIDE = torch.full((6, 3, 8, 8), 0.5)
PIXELS = (255 * IMAGES).to(torch.uint8)
ONE_HOT = nn.functional.one_hot(LABELS, 5)
SET = data.ImageSet(PIXELS, LABELS, tuple("abcde"))
PAIRS = "batches must be pairs of tensors, images .m, C, H, W. and labels .m., got "


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 5))


def one_output() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 1))


def task() -> AdversarialTask:
    return AdversarialTask(network(), space=UNIT)


def clean(*batch: Any, space: Any = UNIT) -> Any:
    return evaluate(network(), [batch], space=space)


def convolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 5, 8), nn.Flatten())


def count(model: nn.Module, images: torch.Tensor) -> Any:
    return evaluate(model, [(images, LABELS)], space=UNIT)


def attack(images: torch.Tensor) -> Any:
    return attacks.create("step_ll", convolution())(images)


def standard(images: torch.Tensor, labels: torch.Tensor) -> Any:
    return AdversarialTask(network(), k=0, space=UNIT)(images, labels)


Case = tuple[Callable[[], Any], type[Exception], str]

EVALUATE: list[Case] = [
    (lambda: clean(IMAGES.numpy(), LABELS), TypeError, PAIRS + "ndarray, Tensor"),
    (lambda: clean(IMAGES, LABELS.tolist()), TypeError, PAIRS + "Tensor, list"),
    (lambda: clean(IMAGES, None), TypeError, PAIRS + "Tensor, NoneType"),
    (lambda: clean(IMAGES, LABELS, LABELS), TypeError, PAIRS + "Tensor, Tensor, Tensor"),
    (lambda: evaluate(network(), IMAGES, space=UNIT), TypeError, PAIRS + "Tensor"),
    (lambda: evaluate(network(), [{"image": IMAGES}], space=UNIT), TypeError, PAIRS + "dict"),
    (
        lambda: clean(IMAGES, LABELS[:, None]),
        ValueError,
        r"per image, \[6\], got .*int64 \[6, 1\]; pass labels.squeeze",
    ),
    (lambda: clean(IMAGES, ONE_HOT), ValueError, r"got torch.int64 \[6, 5\]; pass labels.argmax\(dim=1\)"),
    (lambda: clean(IMAGES, ONE_HOT.float() / 2), ValueError, r"one per image, \[6\], got torch.float32 \[6, 5\]$"),
    (lambda: clean(PIXELS, LABELS), TypeError, "must be model inputs, got torch.uint8: convert pixels with PixelSpace"),
    (lambda: clean(IMAGES, LABELS, space="unit"), TypeError, "space must be a PixelSpace, .* got str"),
    (lambda: clean(IMAGES, LABELS, space=None), TypeError, "space must be a PixelSpace, .* got NoneType"),
    (lambda: clean(IMAGES, LABELS.float()), ValueError, r"labels must be class indices, .* got torch.float32 \[6\]"),
    (lambda: clean(IMAGES, LABELS > 1), ValueError, r"labels must be class indices, .* got torch.bool \[6\]"),
    (lambda: clean(IMAGES, LABELS.sum()), ValueError, r"labels must be class indices, .* got torch.int64 \[\]"),
    (lambda: evaluate(nn.Linear, [], space=UNIT), TypeError, "got the class Linear: create it first"),
    (lambda: evaluate("resnet18", [], space=UNIT), TypeError, "model must be a module or a callable, got str"),
    (
        lambda: evaluate_each(network(), [], attack="fgsm", eps=4, space=UNIT),
        TypeError,
        r"eps must be a sequence of sizes, such as \[2, 4, 8\], got int",
    ),
    (
        lambda: evaluate(network(), [], attack="fgsm", eps=[4, 8], space=UNIT),
        TypeError,
        r"eps must be one number here, got \[4, 8\]: evaluate_each takes several",
    ),
    (
        lambda: evaluate(network(), [(IMAGES, LABELS)], attack="fgsm", eps=torch.ones(6), space=UNIT),
        TypeError,
        "fgsm: eps must be numbers here, each for all images",
    ),
]
MISMATCHES: list[Case] = [
    (
        lambda: clean(IMAGES.double(), LABELS),
        ValueError,
        "^the model fails .* are torch.float64 and its weights torch.float32",
    ),
    (
        lambda: standard(IMAGES.half(), LABELS),
        ValueError,
        "^the model fails .* are torch.float16 and its weights torch.float32",
    ),
    (lambda: attack(WIDE.bfloat16()), ValueError, "^step_ll: the model fails .* are torch.bfloat16 and its weights"),
    (lambda: attack(WIDE.permute(0, 2, 3, 1)), ValueError, r"got \[6, 8, 8, 3\]: pass images.permute\(0, 3, 1, 2\)"),
    (lambda: count(convolution(), WIDE.permute(0, 2, 3, 1)), ValueError, r"images.permute\(0, 3, 1, 2\) \(Given"),
    (lambda: standard(IMAGES[0], LABELS[:3]), ValueError, r"make a batch of a single image by images\[None\]"),
    (lambda: clean(IMAGES[0], LABELS[:3]), ValueError, r"make a batch of a single image by images\[None\]"),
    (lambda: count(network().to("meta"), IMAGES), ValueError, "are on cpu and its weights on meta: move one by"),
]
SPACES: list[Case] = [
    (lambda: PixelSpace("0", "1"), TypeError, "mean must be a number, or a number per channel, got '0'"),
    (lambda: PixelSpace([0, "1"], 1), TypeError, r"mean must be a number, or a number per channel, got \[0, '1'\]"),
    (lambda: PixelSpace("x", 1), TypeError, "mean must be a number, or a number per channel, got 'x'"),
    (lambda: PixelSpace(0, None), TypeError, "std must be a number, or a number per channel, got None"),
    (lambda: PixelSpace(0, 1, "a", 9), ValueError, "lower must be below upper and both finite, got lower='a', upper=9"),
    (lambda: PixelSpace.normalized("x", 1), TypeError, "mean must be a number"),
    (
        lambda: PixelSpace.normalized((123.7, 116.3, 103.5), (58.4, 57.1, 57.4)),
        ValueError,
        r"is not on a \[0, 1\] scale: for constants in pixel values, use PixelSpace\(mean, std\)",
    ),
    (
        lambda: UNIT.from_pixels(PIXELS.numpy()),
        TypeError,
        "pixels must be a tensor .*got ndarray: convert it with torch.from_numpy",
    ),
    (lambda: UNIT.from_pixels([1, 2]), TypeError, r"pixels must be a tensor \[N, C, H, W\], got list$"),
    (lambda: UNIT.to_uint8(IMAGES.numpy()), TypeError, "images must be a tensor .*got ndarray"),
    (lambda: UNIT.check(IMAGES.numpy()), TypeError, "images must be a tensor .*got ndarray"),
    (lambda: TruncatedNormalEps(sigma="x"), ValueError, "sigma must be positive and finite, got 'x'"),
    (lambda: TruncatedNormalEps(upper=torch.ones(3)), ValueError, r"upper must be positive .* got a tensor \[3\]"),
]
DATA: list[Case] = [
    (lambda: data.ImageSet(PIXELS.numpy(), LABELS, ("a",) * 5), TypeError, "images must be a tensor, got ndarray"),
    (lambda: data.ImageSet(PIXELS, LABELS.tolist(), ("a",) * 5), TypeError, "labels must be a tensor, got list"),
    (lambda: data.ImageSet(PIXELS, LABELS, 5), TypeError, "classes must be class names, .* got 5"),
    (lambda: data.TensorLoader(PIXELS, 2, space=UNIT), TypeError, "takes an ImageSet.* got Tensor and PixelSpace"),
    (lambda: data.TensorLoader(SET, 2, space="unit"), TypeError, "and a PixelSpace, got ImageSet and str"),
    (lambda: data.TensorLoader(SET, 2, space=UNIT, flip="no"), ValueError, "flip must be true or false, got 'no'"),
    (lambda: data.TensorLoader(SET, "2", space=UNIT), TypeError, "batch_size must be an integer, got '2'"),
    (lambda: data.TensorLoader(SET, 2.5, space=UNIT), TypeError, "batch_size must be an integer, got 2.5"),
    (lambda: data.TensorLoader(SET, True, space=UNIT), TypeError, "batch_size must be an integer, got True"),
    (lambda: data.TensorLoader(SET, 8, space=UNIT), ValueError, r"choose a smaller batch_size \(--minibatch\)"),
    (
        lambda: data.TorchvisionLoader("DIR", 2, space=UNIT, train=True),
        TypeError,
        "files, scan.* got str and PixelSpace",
    ),
    (lambda: data.TorchvisionLoader(PIXELS, 2, space=UNIT, train=True), TypeError, "got Tensor and PixelSpace"),
    (lambda: data.TorchvisionLoader({}, 2, space=UNIT, train=True), TypeError, "got dict and PixelSpace"),
    (lambda: data.TorchvisionLoader(SET, 2, space=UNIT, train=True), TypeError, "got ImageSet and PixelSpace"),
    (lambda: data.scan("nowhere"), FileNotFoundError, "nowhere"),
]
ATTACKS: list[Case] = [
    (lambda: attacks.FGSM(network(), 8 / 255), TypeError, r"FGSM\(model, eps=8\). eps is in pixel .*: 8, not 8/255$"),
    (
        lambda: attacks.PGD(network(), 8 / 255, 2 / 255, 10),
        TypeError,
        r"PGD takes a model, and its options as keywords",
    ),
    (lambda: attacks.RandomSign(network(), 8), TypeError, r"RandomSign\(model, eps=8\)"),
]
ONE_CLASS = r"logits \[\d, 1\], of one class.*torch.cat\(\[torch.zeros_like\(z\), z\], 1\)"
ONE_OUTPUT: list[Case] = [
    *(
        (
            lambda name=name: attacks.create(name, one_output())(IMAGES, 0 * LABELS),
            ValueError,
            f"^{name}: .*{ONE_CLASS}",
        )
        for name in attacks.names()
        if not name.startswith("random_")
    ),
    (lambda: attacks.create("iter_ll", one_output(), fast=True)(IMAGES), ValueError, ONE_CLASS),
    (lambda: attacks.create("fgsm", one_output()).at_each(IMAGES, LABELS, eps=[4]).__next__(), ValueError, ONE_CLASS),
    (lambda: AdversarialTask(one_output(), k=0, space=UNIT)(IMAGES, 0 * LABELS), ValueError, ONE_CLASS),
    (lambda: AdversarialTask(one_output(), k=3, space=UNIT)(IMAGES, 0 * LABELS), ValueError, ONE_CLASS),
    (lambda: FreeTask(one_output(), eps=8, space=UNIT)(IMAGES, 0 * LABELS), ValueError, ONE_CLASS),
    (lambda: fast_task(one_output(), eps=8, space=UNIT)(IMAGES, 0 * LABELS), ValueError, ONE_CLASS),
    (lambda: evaluate(one_output(), [(IMAGES, 0 * LABELS)], space=UNIT), ValueError, ONE_CLASS),
    (lambda: accuracy(one_output(), [(IMAGES, 0 * LABELS)]), ValueError, ONE_CLASS),
    (lambda: split_logits(InceptionOutputs(torch.ones(6, 2), torch.ones(6, 1))), ValueError, ONE_CLASS),
]
TASKS: list[Case] = [
    (lambda: FreeTask(nn.Linear, eps=8, space=UNIT), TypeError, "got the class Linear: create it first"),
    (lambda: FreeTask(network(), eps=8, space="unit"), TypeError, "space must be a PixelSpace, .* got str"),
    (lambda: FreeTask(network(), eps=8, space=UNIT)(IMAGES.double(), LABELS), ValueError, "are torch.float64 and its"),
    (lambda: AdversarialTask(nn.Linear, space=UNIT), TypeError, "got the class Linear: create it first"),
    (lambda: AdversarialTask(network(), k=True, space=UNIT), TypeError, "k must be an integer, got True"),
    (
        lambda: AdversarialTask(network(), space=UNIT, attack_options=["bn"]),
        TypeError,
        "attack_options must map names to values, got list",
    ),
    (lambda: task().load_state_dict(None), ValueError, "has the keys iteration and stream, got NoneType"),
    (lambda: task().load_state_dict([1]), ValueError, "has the keys iteration and stream, got list"),
]


@pytest.mark.parametrize(
    ("call", "kind", "said"), [*EVALUATE, *MISMATCHES, *SPACES, *DATA, *ATTACKS, *ONE_OUTPUT, *TASKS]
)
def test_refused_by_one_line(call: Callable[[], Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said) as error:
        call()
    assert "\n" not in str(error.value)


def test_numbers_of_numpy_are_numbers() -> None:
    AdversarialTask(network(), k=np.int64(2), lambda_=np.float32(0.3), eps=np.float64(4), space=UNIT)
    assert TruncatedNormalEps(sigma=np.float32(8)).sigma == 8
    assert PixelSpace(np.float32(0), np.array([1.0, 1.0])) == PixelSpace([0, 0], torch.ones(2)) == PixelSpace(0, [1, 1])
    assert data.TensorLoader(SET, np.int64(2), space=UNIT).batches.batch_size == 2


def test_scan_takes_a_path_as_text(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "cats").mkdir(parents=True)
        (tmp_path / split / "cats" / "1.jpg").write_bytes(b"x")
    assert [len(source) for source in data.scan(str(tmp_path)).values()] == [1, 1]


def test_a_lack_of_memory_stays_one() -> None:
    """Callers that respond with a smaller batch must be able to recognise it, whatever the images are."""

    def full(images: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        attacks.create("step_ll", full)(IMAGES[0])


def test_evaluate_takes_the_packages_own_loaders() -> None:
    model = network()
    loader = data.TensorLoader(SET, 4, space=UNIT, shuffle=False, drop_last=False)
    batches = [(UNIT.from_pixels(PIXELS), LABELS)]
    assert evaluate(model, loader, space=UNIT) == evaluate(model, batches, space=UNIT)
