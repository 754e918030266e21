"""Every wrong argument raises ValueError or TypeError with what was expected and given, and nothing is written."""

from __future__ import annotations

import re

import pytest
import torch

from fastadv import PixelSpace, ops

NAN = float("nan")


def images(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.full(shape or (2, 3, 4, 4), 7, dtype=dtype)


X, G = images(), images()

WRONG_STEPS = {
    "grad shape": (
        (X, X, images(2, 3, 4, 5), 1, 8),
        ValueError,
        "grad must have adv's shape [2, 3, 4, 4], got [2, 3, 4, 5]",
    ),
    "clean shape": ((X, images(1, 3, 4, 4), G, 1, 8), ValueError, "clean must have adv's shape"),
    "grad dtype": ((X, X, G.double(), 1, 8), TypeError, "grad must have adv's dtype float32, got float64"),
    "integer images": ((images(dtype=torch.uint8), X, G, 1, 8), TypeError, "images must be float32"),
    "not a tensor": (([1.0], X, G, 1, 8), TypeError, "adv must be a tensor, got list"),
    "grad None": ((X, X, None, 1, 8), TypeError, "grad must be a tensor, got NoneType"),
    "scalar": ((torch.tensor(1.0), torch.tensor(2.0), torch.tensor(1.0), 1, 8), ValueError, "batch dimension"),
    "grad is adv": ((X, X, X, 1, 8), ValueError, "grad must not share memory with adv"),
    "grad overlaps": ((images(4, 3)[:3], images(3, 3), None, 1, 8), ValueError, "grad must not share memory with adv"),
    "device": ((X, X, G.to("meta"), 1, 8), ValueError, "grad must be on cpu"),
    "requires grad": ((images().requires_grad_(), X, G, 1, 8), ValueError, "must not require grad"),
    "negative eps": ((X, X, G, 1, -8), ValueError, "eps must be zero or more, got -8"),
    "NaN eps": ((X, X, G, 1, NAN), ValueError, "eps must be zero or more, got nan"),
    "NaN alpha": ((X, X, G, NAN, 8), ValueError, "alpha must be finite, got nan"),
    "infinite alpha": ((X, X, G, float("inf"), 8), ValueError, "alpha must be finite, got inf"),
    "negative eps of an example": ((X, X, G, 1, torch.tensor([1.0, -1.0])), ValueError, "got -1 for example 1"),
    "NaN eps of an example": ((X, X, G, 1, torch.tensor([NAN, 1.0])), ValueError, "got nan for example 0"),
    "number of eps": ((X, X, G, 1, torch.ones(3)), ValueError, "tensor of shape [2], got shape [3]"),
    "number of alphas": ((X, X, G, torch.ones(2, 1), 8), ValueError, "alpha must be a number or a contiguous tensor"),
    "NaN alpha of an example": ((X, X, G, torch.tensor([NAN, 1.0]), 8), ValueError, "got nan for example 0"),
    "NaN alpha tensor": ((X, X, G, torch.tensor(NAN), 8), ValueError, "alpha must be finite, got nan"),
    "eps on another device": ((X, X, G, 1, torch.ones(2, device="meta")), ValueError, "eps must be on cpu"),
    "alpha as text": ((X, X, G, "1", 8), TypeError, "alpha must be a number or a tensor of shape [N], got str"),
    "eps in a list": ((X, X, G, 1, [8, 8]), TypeError, "eps must be a number or a tensor of shape [N], got list"),
    "complex eps": ((X, X, G, 1, torch.ones(2) * 1j), TypeError, "eps must be real, got torch.complex64"),
    "space by name": (
        (X, X, G, 1, 8, "unit"),
        TypeError,
        "space must be a PixelSpace, e.g. PixelSpace.unit(), got str",
    ),
    "channels": (
        (images(2, 4, 4, 4), images(2, 4, 4, 4), images(2, 4, 4, 4), 1, 8, PixelSpace.imagenet()),
        ValueError,
        "a space of 3 channels",
    ),
}


@pytest.mark.parametrize(("arguments", "error", "message"), WRONG_STEPS.values(), ids=WRONG_STEPS)
@pytest.mark.parametrize("op", ["sign", "l2"])
def test_wrong_steps(op: str, arguments, error, message: str) -> None:
    arguments = list(arguments)
    if message.startswith("grad must not share") and arguments[2] is None:
        base = images(4, 3)
        arguments[0], arguments[2] = base[:3], base[1:]
    before = arguments[0].clone() if isinstance(arguments[0], torch.Tensor) else None
    with pytest.raises(error, match=re.escape(message)):
        if op == "sign":
            ops.sign_step_(*arguments)
        else:
            ops.normalized_step_(*arguments[:5], "l2", *arguments[5:])
    if before is not None:
        assert torch.equal(arguments[0].detach(), before.detach())


LOGITS, LABELS = torch.zeros(4, 5), torch.arange(4)
PIXELS = images(dtype=torch.uint8)

OTHER_MISTAKES = {
    "norm": (
        lambda: ops.normalized_step_(X, X, G.clone(), 1, 8, "l1"),
        ValueError,
        "norm must be 'l2' or 'linf', got 'l1'",
    ),
    "norm by number": (
        lambda: ops.normalized_step_(X, X, G.clone(), 1, 8, 2),
        TypeError,
        "fastadv.normalized_step_: norm must be of type str, got 2",
    ),
    "noise seed": (lambda: ops.noise_step_(X, X, 8, "sign", 1.5), TypeError, "seed must be of type int, got 1.5"),
    "seed of 65 bits": (lambda: ops.noise_step_(X, X, 8, "sign", 2**63), ValueError, "seed must fit into 64 bits"),
    "stream dtype": (lambda: ops.sample_eps(2, seed=torch.ones(2)), TypeError, "rng_state must be int64, got float32"),
    "stream shape": (
        lambda: ops.target_grad(LOGITS, "random", seed=torch.tensor(3)),
        ValueError,
        "a contiguous tensor of shape [2], got shape []",
    ),
    "stream device": (
        lambda: ops.noise_step_(X, X, 8, "sign", torch.ones(2, dtype=torch.int64, device="meta")),
        ValueError,
        "rng_state must be on cpu",
    ),
    "noise kind": (lambda: ops.noise_step_(X, X, 8, "gauss", 1), ValueError, "kind must be 'sign'"),
    "noise offset": (lambda: ops.noise_step_(X, X, 8, "sign", 1, -1), ValueError, "offset must be zero or more"),
    "noise eps": (lambda: ops.noise_step_(X, X, -8, "sign", 1), ValueError, "eps must be zero or more"),
    "pixels dtype": (lambda: ops.from_pixels(X), TypeError, "pixels must be uint8, got float32"),
    "pixels not a tensor": (lambda: ops.from_pixels([1]), TypeError, "pixels must be a tensor, got list"),
    "pixels scalar": (lambda: ops.from_pixels(PIXELS[0, 0, 0, 0]), ValueError, "images must have a batch dimension"),
    "dtype of images": (lambda: ops.from_pixels(PIXELS, dtype=torch.int32), TypeError, "images must be float32"),
    "space of pixels": (lambda: ops.from_pixels(PIXELS, space="unit"), TypeError, "space must be a PixelSpace"),
    "channels of pixels": (
        lambda: ops.from_pixels(PIXELS[:, :2], space=PixelSpace.imagenet()),
        ValueError,
        "a space of 3 channels needs images [N, 3, ...], got [2, 2, 4, 4]",
    ),
    "single image": (
        lambda: ops.from_pixels(PIXELS[0], space=PixelSpace.imagenet()),
        ValueError,
        "got [3, 4, 4]; make a batch of a single image by images[None]",
    ),
    "images of pixels": (
        lambda: ops.from_pixels_(images(2, 3, 4, 5), PIXELS),
        ValueError,
        "pixels must have the shape of images [2, 3, 4, 5], got [2, 3, 4, 4]",
    ),
    "images dtype": (lambda: ops.from_pixels_(PIXELS, PIXELS), TypeError, "images must be float32"),
    "images grad": (
        lambda: ops.from_pixels_(images().requires_grad_(), PIXELS),
        ValueError,
        "images is mutated in place and must not require grad",
    ),
    "pixels device": (lambda: ops.from_pixels_(X, PIXELS.to("meta")), ValueError, "pixels must be on cpu, got meta"),
    "pixels in images": (
        lambda: ops.from_pixels_(X, X.view(torch.uint8).flatten()[:96].view(2, 3, 4, 4)),
        ValueError,
        "pixels must not share memory with images",
    ),
    "mirrored in images": (
        lambda: ops.from_pixels_(X, PIXELS, X.view(torch.uint8).flatten()[:2]),
        ValueError,
        "mirrored must not share memory with images",
    ),
    "mirrored dtype": (
        lambda: ops.from_pixels(PIXELS, torch.tensor([0, 1])),
        TypeError,
        "mirrored must be bool or uint8, got int64",
    ),
    "mirrored shape": (
        lambda: ops.from_pixels(PIXELS, torch.ones(3, dtype=torch.bool)),
        ValueError,
        "mirrored must be a contiguous tensor of shape [2], got shape [3]",
    ),
    "mirrored not a tensor": (
        lambda: ops.from_pixels(PIXELS, [True, False]),
        TypeError,
        "mirrored must be a tensor, got list",
    ),
    "mirrored device": (
        lambda: ops.from_pixels(PIXELS, torch.ones(2, dtype=torch.bool, device="meta")),
        ValueError,
        "mirrored must be on cpu, got meta",
    ),
    "mirrored without a width": (
        lambda: ops.from_pixels(PIXELS[:, :, 0, 0], torch.ones(2, dtype=torch.bool)),
        ValueError,
        "mirrored needs images [N, C, ..., W], got [2, 3]",
    ),
    "sample n": (lambda: ops.sample_eps(-1, seed=1), ValueError, "n must be zero or more"),
    "sample sigma": (lambda: ops.sample_eps(1, 0.0, seed=1), ValueError, "sigma must be positive"),
    "sample upper": (lambda: ops.sample_eps(1, 8.0, NAN, seed=1), ValueError, "upper must be positive"),
    "eps shape": (lambda: ops.truncated_normal_(torch.ones(2, 2), seed=1), ValueError, "of shape [N], got [2, 2]"),
    "eps dtype": (lambda: ops.truncated_normal_(LABELS.clone(), seed=1), TypeError, "eps must be float32"),
    "eps grad": (lambda: ops.truncated_normal_(torch.ones(2, requires_grad=True), seed=1), ValueError, "require grad"),
    "rule": (lambda: ops.target_grad(LOGITS, "worst"), ValueError, "rule must be 'label'"),
    "labels missing": (lambda: ops.target_grad(LOGITS, "label"), ValueError, "rule 'label' needs labels"),
    "labels dtype": (
        lambda: ops.target_grad(LOGITS, "label", LABELS.int()),
        TypeError,
        "labels must be int64, got int32",
    ),
    "labels shape": (lambda: ops.target_grad(LOGITS, "label", LABELS[:3]), ValueError, "of shape [4], got [3]"),
    "label too large": (lambda: ops.target_grad(LOGITS, "label", LABELS + 2), ValueError, "in [0, 5), got 5 at row 3"),
    "label negative": (lambda: ops.target_grad(LOGITS, "label", LABELS - 1), ValueError, "in [0, 5), got -1 at row 0"),
    "smoothing": (
        lambda: ops.target_grad(LOGITS, "predicted", None, 1.0),
        ValueError,
        "label_smoothing must be in [0, 1)",
    ),
    "logits shape": (lambda: ops.target_grad(torch.zeros(4), "predicted"), ValueError, "logits must have shape [N, K]"),
    "no classes": (lambda: ops.target_grad(torch.zeros(4, 0), "predicted"), ValueError, "K >= 1"),
    "logits dtype": (lambda: ops.target_grad(LOGITS.int(), "predicted"), TypeError, "logits must be float32"),
    "k too large": (
        lambda: ops.mixed_cross_entropy(LOGITS, LABELS, 5),
        ValueError,
        "k must be in [0, m] = [0, 4], got 5",
    ),
    "k is no integer": (
        lambda: ops.mixed_cross_entropy(LOGITS, LABELS, 2.0),
        TypeError,
        "k must be of type int, got 2",
    ),
    "k negative": (lambda: ops.mixed_cross_entropy(LOGITS, LABELS, -1), ValueError, "k must be in"),
    "lambda": (lambda: ops.mixed_cross_entropy(LOGITS, LABELS, 2, -0.1), ValueError, "lambda_ must be zero or more"),
    "beta": (lambda: ops.trades_loss(LOGITS, LOGITS, LABELS, -1.0), ValueError, "beta must be zero or more"),
    "beta infinite": (lambda: ops.trades_loss(LOGITS, LOGITS, LABELS, float("inf")), ValueError, "finite, got inf"),
    "no rows": (
        lambda: ops.trades_loss(LOGITS[:0], LOGITS[:0], LABELS[:0]),
        ValueError,
        "logits must have at least one row, got [0, 5]",
    ),
    "adv logits shape": (
        lambda: ops.trades_loss(LOGITS, LOGITS[:, :4], LABELS),
        ValueError,
        "adv_logits must have the shape of logits, [4, 5], got [4, 4]",
    ),
    "adv logits dtype": (
        lambda: ops.trades_loss(LOGITS, LOGITS.double(), LABELS),
        TypeError,
        "adv_logits must be float32, like logits, got float64",
    ),
    "label too large for TRADES": (
        lambda: ops.trades_loss(LOGITS, LOGITS, LABELS + 2),
        ValueError,
        "labels must be in [0, 5), got 5 at row 3",
    ),
    "clean logits shape": (
        lambda: ops.scaled_kl_grad(LOGITS, LOGITS[:3]),
        ValueError,
        "clean_logits must have the shape of logits, [4, 5], got [3, 5]",
    ),
    "clean logits dtype": (
        lambda: ops.scaled_kl_grad(LOGITS, LOGITS.half()),
        TypeError,
        "clean_logits must be float32, like logits, got float16",
    ),
    "clean logits missing": (
        lambda: ops.scaled_kl_grad(LOGITS, None),
        TypeError,
        "clean_logits must be a tensor, got NoneType",
    ),
    "no weight": (lambda: ops.mixed_cross_entropy(LOGITS, LABELS, 4, 0.0), ValueError, "the loss has no weight"),
}


@pytest.mark.parametrize(("call", "error", "message"), OTHER_MISTAKES.values(), ids=OTHER_MISTAKES)
def test_other_mistakes(call, error, message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_amounts_do_not_share_memory_with_adv() -> None:
    adv = torch.tensor([1.0, 2.0, 3.0, 4.0])
    with pytest.raises(ValueError, match="eps must not share memory with adv"):
        ops.sign_step_(adv, torch.ones(4), torch.ones(4), 1.0, adv)
    assert adv.tolist() == [1, 2, 3, 4]


def test_more_channels_than_kernels_carry() -> None:
    wide = PixelSpace([0.0] * 33, [1.0] * 32 + [2.0])
    x = images(1, 33, 2, 2)
    with pytest.raises(ValueError, match="at most 32 channels"):
        ops.sign_step_(x, x, images(1, 33, 2, 2), 1, 8, wide)
    with pytest.raises(ValueError, match="at most 32 channels"):
        ops.from_pixels(images(1, 33, 2, 2, dtype=torch.uint8), space=wide)


def test_mutation_shows_to_autograd() -> None:
    """A tensor saved for a backward and stepped in between is an error, not a wrong gradient."""
    x, weight = images(), torch.ones(2, 3, 4, 4, requires_grad=True)
    product = (x * weight).sum()
    ops.sign_step_(x, x, G.clone(), 1, 8)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_arguments_are_left_alone() -> None:
    clean, grad, eps = images(), torch.randn(2, 3, 4, 4), torch.tensor([3.0, 4.0])
    copies = [tensor.clone() for tensor in (clean, grad, eps)]
    ops.sign_step_(images(), clean, grad, 1.0, eps)
    ops.normalized_step_(images(), clean, grad, 1.0, eps, "l2")
    assert all(torch.equal(a, b) for a, b in zip((clean, grad, eps), copies, strict=True))


def test_memory_that_runs_out_is_torchs_error() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="no memory for a result"):
        ops.sample_eps(2**50, seed=1)
