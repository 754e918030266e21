"""Random draws depend on (seed, index of the example), or on torch.manual_seed, and leave other generators alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fastadv import PixelSpace, TruncatedNormalEps, attacks
from fastadv.utils.rng import RandomStream, RecordedDraws
from tests.attacks.gradients import GRADIENTS
from tests.attacks.models import ConvNet, PixelLogits, batch

RAW = PixelSpace.raw()
EPS = {"number": 8, "distribution": TruncatedNormalEps()}
DRAWS = ["step_rnd", "random_sign", "random_normal", "pgd", "n_fgsm"]  # also with an eps that is a number
STARTS = ["apgd_ce", "apgd_dlr", "apgd_t", "square", "autoattack"]  # for images that are classified correctly
CASES = [(name, eps) for name in GRADIENTS for eps in EPS if name in DRAWS or eps == "distribution"]


def maker(name: str, eps: str) -> Callable[..., attacks.Attack]:
    short = {"alpha": 1, "steps": 2} if name == "pgd" else {}  # or every start ends in the same corner of the ball
    return functools.partial(attacks.create, name, PixelLogits(RAW), eps=EPS[eps], space=RAW, **short)


@pytest.mark.parametrize(("name", "eps"), CASES)
@pytest.mark.parametrize("sizes", [[1] * 12, [4, 4, 4], [5, 7], [0, 11, 0, 1]], ids=str)
def test_the_split_into_batches_does_not_show(sizes: list[int], name: str, eps: str) -> None:
    images, labels = batch(12, RAW, torch.float64)
    whole = maker(name, eps)(seed=7)(images, labels)
    attack = maker(name, eps)(seed=7)
    parts = list(map(attack, images.split(sizes), labels.split(sizes)))
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("name", "eps"), CASES)
def test_examples_calls_and_seeds_differ(name: str, eps: str) -> None:
    images, labels = (tensor[:1].repeat(8, *[1] * (tensor.dim() - 1)) for tensor in batch(1, RAW))
    attack = maker(name, eps)(seed=7)
    results = [attack(images, labels), attack(images, labels), maker(name, eps)(seed=8)(images, labels)]
    # Two may draw the same of 191 classes, or two eps so small that an iterative attack takes one step of 1.
    assert len(torch.cat(results).unique(dim=0)) >= 18


@pytest.mark.parametrize(("name", "eps"), CASES)
def test_seeded_draws_and_other_generators_leave_each_other_alone(name: str, eps: str) -> None:
    images, labels = batch(6, RAW)
    torch.manual_seed(1)
    first = maker(name, eps)(seed=7)(images, labels)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(maker(name, eps)(seed=7)(images, labels), first)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("name", "eps"), CASES)
def test_manual_seed_makes_a_run_repeatable(name: str, eps: str) -> None:
    images, labels = batch(6, RAW)

    def run(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        attack = maker(name, eps)()
        return [attack(images, labels) for _ in range(3)]

    first, again, other = run(1), run(1), run(2)
    assert all(map(torch.equal, first, again))
    assert len(torch.stack(first + other).unique(dim=0)) == 6


@pytest.mark.parametrize(("name", "eps"), CASES)
def test_an_own_generator(name: str, eps: str) -> None:
    images, labels = batch(6, RAW)
    state = torch.get_rng_state()

    def run() -> list[Tensor]:
        attack = maker(name, eps)(generator=torch.Generator().manual_seed(3))
        return [attack(images, labels) for _ in range(2)]

    first, again = run(), run()
    assert all(map(torch.equal, first, again)) and not torch.equal(*first)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", [name for name in attacks.names() if name not in (*DRAWS, *STARTS)])
def test_an_attack_that_draws_nothing_takes_nothing_from_the_default_generator(name: str) -> None:
    """Otherwise an evaluation during training would change the training."""
    state = torch.get_rng_state()
    attacks.create(name, ConvNet(), eps=4)(*batch())
    assert torch.equal(torch.get_rng_state(), state), f"{name} draws random numbers: add it to DRAWS"


@pytest.mark.parametrize(("name", "eps"), CASES)
def test_a_resumed_stream_goes_on_where_it_stood(name: str, eps: str) -> None:
    images, labels = batch(6, RAW)
    attack = maker(name, eps)(seed=7)
    attack(images, labels)
    state = attack.stream.state_dict()
    expected = attack(images, labels)
    resumed = maker(name, eps)(seed=7)
    resumed.stream.load_state_dict(state)
    assert torch.equal(resumed(images, labels), expected)


def test_perturb_and_call_draw_the_same() -> None:
    images, labels = batch(6, RAW)
    attack: Any = maker("pgd", "distribution")(seed=7)
    attack(images, labels)
    expected = attack(images, labels)
    attack.stream.offset = 6
    assert torch.equal(attack.perturb_(images, labels), expected)


def test_pgd_from_the_clean_image_draws_nothing() -> None:
    images, labels = batch()
    state = torch.get_rng_state()
    attack = attacks.create("pgd", ConvNet(), eps=4, random_start=False)
    assert torch.equal(attack(images, labels), attack(images, labels))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_refused_call_takes_nothing_from_the_stream() -> None:
    images, labels = batch()
    attack = attacks.create("step_rnd", ConvNet(), eps=4, seed=0)
    with pytest.raises(ValueError, match="shape"):
        attack(images, labels, eps=torch.ones(5))
    assert attack.stream.offset == 0


@pytest.mark.parametrize("seed", [5, None])
def test_recorded_work_draws_from_where_the_stream_stands(seed: int | None) -> None:
    """Recording takes no numbers; each replay takes them for the recorded examples, like an ordinary call."""
    torch.manual_seed(1)
    stream, draws = RandomStream(seed=seed), RecordedDraws(torch.device("cpu"))
    stream.split(1, 2)
    with stream.recorded(draws):
        pair, offset = stream.take(3)
    assert pair is draws.pair and offset == 0
    found = []
    for _ in range(3):
        stream.replay(draws)
        found.append(tuple(draws.pair.tolist()))
    torch.manual_seed(1)
    other = RandomStream(seed=seed)
    other.split(1, 2)
    assert found == [other.take(3) for _ in range(3)] and stream.state_dict() == other.state_dict()


def test_recorded_work_that_draws_nothing_takes_nothing() -> None:
    stream, draws = RandomStream(seed=5), RecordedDraws(torch.device("cpu"))
    with stream.recorded(draws):
        pass
    stream.replay(draws)
    assert stream.offset == 0
