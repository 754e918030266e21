"""Images and labels that attacks accept: dtypes, spaces, layouts, shapes, batches; all results are in range."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fastadv import PixelSpace, attacks
from tests.attacks.gradients import SEARCHES, STOPPING
from tests.attacks.models import CLASSES, DTYPES, SPACES, ConvNet, assert_in_range, batch

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
NEED_LABELS = [name for name in attacks.names() if attacks.get(name).needs_labels]
LABEL_FREE = [name for name in attacks.names() if name not in NEED_LABELS]


def last_place(images: Tensor, space: PixelSpace) -> float:
    """Return one ulp of the largest inputs, in pixel values."""
    bounds = space.bounds(images.dtype)
    largest = max(abs(bound) * std for side in bounds for bound, std in zip(side, space.std, strict=True))
    return torch.finfo(images.dtype).eps * largest


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", attacks.names())
def test_inside_the_ball_and_the_range(name: str, dtype: torch.dtype, space: PixelSpace, layout) -> None:
    images, labels = batch(4, space, dtype)
    images = images.contiguous(memory_format=layout)
    eps = torch.tensor([0.0, 1.5, 4.0, 12.0], dtype=torch.float64)
    model = ConvNet().to(dtype, memory_format=layout)
    adv = attacks.create(name, model, eps=eps, space=space, seed=0)(images, labels)
    assert adv.dtype == dtype and adv.is_contiguous(memory_format=layout)
    assert_in_range(adv, space)
    change = (space.to_pixels(adv.double()) - space.to_pixels(images.double())).flatten(1)  # [N, C * H * W]
    size, rounding = change.abs().amax(1), last_place(images, space)
    if name == "n_fgsm":
        eps *= 3  # noise of 2 eps, and a step of eps
    if name == "fast_grad_l2":
        size, rounding = change.norm(2, dim=1), rounding * math.sqrt(change.shape[1])
    assert (size <= eps + rounding).all()
    assert (change[0] == 0).all() and (name in STOPPING or (change[1:] != 0).any(1).all())


@pytest.mark.parametrize("name", attacks.names())
def test_perturb_gives_the_same_in_place(name: str) -> None:
    images, labels = batch()
    model = ConvNet()
    expected = attacks.create(name, model, eps=4, seed=0)(images, labels)
    assert torch.equal(images, batch()[0])
    address = images.data_ptr()
    assert attacks.create(name, model, eps=4, seed=0).perturb_(images, labels) is images
    assert images.data_ptr() == address
    assert torch.equal(images, expected)


@pytest.mark.parametrize("name", attacks.names())
def test_perturb_replaces_some_rows(name: str) -> None:
    """As in Algorithm 1, the first k examples of a minibatch become adversarial in place."""
    images, labels = batch(6)
    model = ConvNet().eval()
    if name in STOPPING:
        labels = model(images).argmax(dim=1)
    attacks.create(name, model, eps=4, seed=0).perturb_(images[:4], labels[:4])
    clean = batch(6)[0]
    assert torch.equal(images[4:], clean[4:])
    assert name in SEARCHES or (images[:4] != clean[:4]).flatten(1).any(1).all()


@pytest.mark.parametrize(
    "rearrange",
    [
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: torch.stack((x, x), dim=-1)[..., 0],
        lambda x: torch.cat((x, x), dim=3)[..., :8],
    ],
    ids=["transposed", "strided", "slice"],
)
@pytest.mark.parametrize("call", ["__call__", "perturb_"])
@pytest.mark.parametrize("name", attacks.names())
def test_any_strides(name: str, call: str, rearrange: Callable[[Tensor], Tensor]) -> None:
    images, labels = batch(dtype=torch.float64)
    make = functools.partial(attacks.create, name, ConvNet().double(), eps=4, seed=0)
    adv = getattr(make(), call)(rearrange(images), labels)
    torch.testing.assert_close(adv, make()(images, labels), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(4,), (3, 8), (3, 2, 4, 4)], ids=str)
@pytest.mark.parametrize("name", [name for name in attacks.names() if name not in ("square", "autoattack")])
def test_any_number_of_dimensions(name: str, shape: tuple[int, ...]) -> None:
    images, labels = batch(3, PixelSpace.raw(), shape=shape)
    model = lambda x: x.flatten(1)[:, :CLASSES] * torch.linspace(-0.01, 0.01, min(CLASSES, x[0].numel()))  # noqa: E731
    labels = model(images).argmax(dim=1) if name in STOPPING else labels % 4
    adv = attacks.create(name, model, eps=120 if name in SEARCHES else 4, space=PixelSpace.raw(), seed=0)(
        images, labels
    )
    assert adv.shape == images.shape and not torch.equal(adv, images)


@pytest.mark.parametrize("name", attacks.names())
def test_batches_of_any_size(name: str) -> None:
    """An uneven last batch and an empty one; an example's perturbation does not depend on its batch."""
    images, labels = batch(10, dtype=torch.float64)
    model, forwards = ConvNet().double(), []
    model.register_forward_hook(lambda *_: forwards.append(1))
    whole = attacks.create(name, model, eps=4, seed=0)(images, labels)
    attack = attacks.create(name, model, eps=4, seed=0)
    parts = [attack(images[rows], labels[rows]) for rows in (slice(0, 4), slice(4, 8), slice(8, 10))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-12)
    forwards.clear()
    empty = attack(images[:0], labels[:0])
    assert empty.shape == (0, 3, 8, 8) and empty.dtype == torch.float64 and not forwards
    assert attack.perturb_(images[:0], labels[:0]).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8], ids=str)
@pytest.mark.parametrize("name", NEED_LABELS)
def test_labels_of_any_integer_dtype(name: str, dtype: torch.dtype) -> None:
    images, labels = batch()
    make = functools.partial(attacks.create, name, ConvNet(), eps=4, seed=0)
    assert torch.equal(make()(images, labels.to(dtype)), make()(images, labels))


@pytest.mark.parametrize(
    "labels",
    [None, torch.zeros(6, dtype=torch.int64), torch.full((6,), -1), torch.zeros(2, 5), torch.rand(6), [0] * 6],
    ids=["none", "zeros", "out of range", "soft", "floating", "list"],
)
@pytest.mark.parametrize("name", LABEL_FREE)
def test_label_free_methods_ignore_labels(name: str, labels: Any) -> None:
    assert not attacks.get(name).needs_labels
    images, true = batch()
    make = functools.partial(attacks.create, name, ConvNet(), eps=4, seed=0)
    assert torch.equal(make()(images, labels), make()(images, true))
    assert torch.equal(make().perturb_(images.clone(), labels), make()(images))


DESCENDING = {"step_ll", "step_rnd", "iter_ll"}


@pytest.mark.parametrize("name", LABEL_FREE)
def test_labels_that_could_be_meant_as_targets_are_not_ignored_without_a_word(name: str) -> None:
    images, labels = batch()
    attack = attacks.create(name, ConvNet(), eps=4, seed=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        attack(images)
        for call in (attack, attack.perturb_, lambda x, y: list(attack.at_each(x, y, eps=[2]))):
            call(images.clone(), labels)
    assert [warning.filename for warning in caught] == [__file__] * (name in DESCENDING)
    assert all(f"{name} ignores the labels that it is called with" in str(warning.message) for warning in caught)
