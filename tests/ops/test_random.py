"""Philox, the truncated normal and draws from them, against published vectors and SciPy's distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from fastadv import _C, TruncatedNormalEps, ops, reference

# Known answers of Philox 4x32-10 from the authors' Random123 distribution: counter, key, words.
PHILOX_VECTORS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), PHILOX_VECTORS)
def test_philox_known_answers(counter, key, words) -> None:
    seed = key[0] | key[1] << 32
    assert _C.testing.philox(*counter, seed) == words
    assert tuple(reference.philox(torch.tensor(counter), seed).tolist()) == words


def test_operators_draw_from_philox() -> None:
    """The first sign bits of example 3 of a stream are those of the block that its counter names."""
    words = _C.testing.philox(0, 3, 0, reference.PURPOSE_NOISE, 99)
    adv = torch.zeros(1, 128)
    ops.noise_step_(adv, torch.full((1, 128), 100.0), 1.0, "sign", seed=99, offset=3)
    expected = [99.0 if words[e // 32] >> e % 32 & 1 else 101.0 for e in range(128)]
    assert adv[0].tolist() == expected


@pytest.mark.parametrize(("sigma", "upper"), [(8.0, 16.0), (1.0, 0.1), (1.0, 5.0), (3.0, 40.0)])
def test_eps_follow_the_truncated_normal(sigma: float, upper: float) -> None:
    eps = ops.sample_eps(1_000_000, sigma, upper, seed=2).double().numpy()
    assert eps.min() >= 0 and eps.max() <= upper
    distribution = stats.truncnorm(0, upper / sigma, scale=sigma)
    assert stats.kstest(eps, distribution.cdf).pvalue > 1e-3


@pytest.mark.parametrize("kind", reference.NOISES)
def test_noise_follows_its_distribution(kind: str) -> None:
    clean = torch.full((4, 250_000), 100.0, dtype=torch.float64)
    noise = (ops.noise_step_(clean.clone(), clean, 8.0, kind, seed=3) - clean).flatten().numpy()
    if kind == "sign":
        assert abs(noise.mean()) < 8 * 4 / math.sqrt(noise.size)  # four standard errors
        return
    distribution = {
        "truncated_normal": stats.truncnorm(-2, 2, scale=4),
        "normal": stats.norm(scale=8),
        "uniform": stats.uniform(-8, 16),
    }[kind]
    assert stats.kstest(noise, distribution.cdf).pvalue > 1e-3
    assert abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 4e-3


@pytest.mark.parametrize("bound", [0.01, 0.5, 2.0, 5.0, 10.0])
def test_quantiles_are_exact_into_the_tails(bound: float) -> None:
    """From the smallest of 2^31 fractions to the largest, to a relative error of a few float32 roundings."""
    top = 2**31 - 1
    magnitudes = [0, 1, 1000, 2**20, 2**28, 2**30, top - 2**28, top - 2**20, top - 1000, top - 1, top]
    for magnitude in magnitudes:
        fraction = (magnitude + 0.5) / 2**31
        exact = stats.norm.isf(0.5 * ((1 - fraction) + fraction * math.erfc(bound / math.sqrt(2))))
        drawn = _C.testing.half_normal_quantile(magnitude, bound)
        assert drawn == pytest.approx(min(exact, bound), rel=1e-6, abs=1e-15), magnitude


def test_draws_do_not_depend_on_split_threads_or_other_generators() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    whole = ops.sample_eps(10_000, seed=4, offset=10)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(100)
    parts = [ops.sample_eps(n, seed=4, offset=10 + start) for start, n in ((0, 1), (1, 4095), (4096, 5904))]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(whole, torch.from_numpy(_C.testing.sample_eps(10_000, 8.0, 16.0, seed=4, offset=10)))
    assert torch.equal(whole[:5], TruncatedNormalEps().sample(5, seed=4, offset=10))


def test_a_stream_in_a_tensor_is_that_of_its_numbers() -> None:
    stream, clean = torch.tensor([4, 10]), torch.full((3, 2, 5, 5), 100.0)
    assert torch.equal(ops.sample_eps(50, seed=stream, offset=7), ops.sample_eps(50, seed=4, offset=17))
    assert torch.equal(
        ops.truncated_normal_(torch.empty(9), seed=stream), ops.truncated_normal_(torch.empty(9), seed=4, offset=10)
    )
    for kind in reference.NOISES:
        results = [
            ops.noise_step_(clean.clone(), clean, 8.0, kind, seed, offset) for seed, offset in ((stream, 1), (4, 11))
        ]
        assert torch.equal(*results)
    logits = torch.randn(20, 7)
    assert torch.equal(
        ops.target_grad(logits, "random", seed=stream).target,
        ops.target_grad(logits, "random", seed=4, offset=10).target,
    )


def test_streams_differ() -> None:
    draws = {tuple(ops.sample_eps(4, seed=seed).tolist()) for seed in (0, 1, 2**32, 2**63 - 1, -1)}
    assert len(draws) == 5


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_truncated_normal_fills_any_dtype(dtype: torch.dtype) -> None:
    expected = ops.sample_eps(1000, seed=6)
    eps = torch.empty(1000, dtype=dtype)
    assert ops.truncated_normal_(eps, seed=6) is eps
    assert torch.equal(eps, expected.to(dtype))


def test_without_a_seed_the_default_generator_decides() -> None:
    torch.manual_seed(7)
    first, second = ops.sample_eps(4), ops.sample_eps(4)
    torch.manual_seed(7)
    assert torch.equal(ops.sample_eps(4), first) and not torch.equal(first, second)


def test_against_the_reference() -> None:
    torch.testing.assert_close(
        ops.sample_eps(100_000, seed=8), reference.sample_eps(100_000, seed=8), rtol=1e-6, atol=1e-6
    )
