"""Images outside their space: the same rule for every batch, wherever it comes from, and what the message says."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fastadv import PixelSpace, attacks
from fastadv.evaluate import evaluate
from fastadv.evaluate.label_leaking import leaking
from fastadv.evaluate.transfer import transfer
from fastadv.pixels import range_watch
from fastadv.pixels.range_check import channel_extremes
from fastadv.train import AdversarialTask, FreeTask
from tests.attacks.models import DTYPES, SPACES

UNIT = PixelSpace.unit()
LABELS = torch.zeros(4, dtype=torch.int64)
INSIDE = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)).clamp_(0.1, 0.9)
OVERSHOT = INSIDE.clone()
OVERSHOT[2, 1, 3, 4] = 1 + 10 / 255  # as bicubic interpolation leaves it beside an edge
WRONG = INSIDE * 4 - 2


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(75, 5))


def called(make: Callable[[nn.Module], Any]) -> Callable[[list[Tensor]], None]:
    def run(batches: list[Tensor]) -> None:
        call = make(network())
        for images in batches:
            call(images.clone(), LABELS)

    return run


def pairs(batches: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [(images, LABELS) for images in batches]


def transferred(space: PixelSpace, batches: list[Tensor]) -> None:
    transfer(network(), [(network(), space)], pairs(batches), attack="fgsm", eps=[4], space=space)


EVALUATIONS: dict[str, Callable[[PixelSpace, list[Tensor]], object]] = {
    "evaluate": lambda space, batches: evaluate(network(), pairs(batches), attack="fgsm", eps=4, space=space),
    "transfer": transferred,
    "leaking": lambda space, batches: leaking(network(), pairs(batches), eps=[4], space=space),
}
USERS: dict[str, Callable[[list[Tensor]], object]] = {
    "attack": called(lambda model: attacks.create("iter_ll", model, eps=4)),
    "perturb_": called(lambda model: attacks.create("fgsm", model, eps=4).perturb_),
    "at_each": called(lambda model: partial(attacks.create("fgsm", model).at_each, eps=[4])),
    "task": called(lambda model: AdversarialTask(model, k=4, eps=4, space=UNIT)),
    "free": called(lambda model: FreeTask(model, eps=4, space=UNIT)),
    "clean": lambda batches: evaluate(network(), pairs(batches), space=UNIT),
    **{name: partial(evaluation, UNIT) for name, evaluation in EVALUATIONS.items()},
}


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("user", USERS.values(), ids=USERS)
@pytest.mark.filterwarnings("ignore:a perturbation was not updated")
def test_one_rule_for_all_batches(user: Callable[[list[Tensor]], object], before: int) -> None:
    first, number = [INSIDE] * before, before + 1
    clamp = r"10 beyond it. Bicubic and Lanczos .* images.clamp_\(0, 1\). Otherwise pass the PixelSpace that matches"
    for images, advice in ((OVERSHOT, clamp), (WRONG, "408 beyond it. Pass the PixelSpace that matches")):
        with pytest.raises(ValueError, match=rf"^the images of (batch|\w+ call) {number} are outside .*, {advice}"):
            user([*first, images])
    user([*first, OVERSHOT.clamp(0, 1)])


@pytest.mark.parametrize(
    "make",
    [
        lambda model: attacks.create("random_sign", model, eps=4),
        lambda model: AdversarialTask(model, k=4, eps=4, space=UNIT),
        lambda model: FreeTask(model, eps=4, space=UNIT),
    ],
    ids=["attack", "task", "free"],
)
def test_within_code_that_is_compiled(make: Callable[[nn.Module], Any]) -> None:
    """By the second call the compiler takes the number of calls for one that varies."""
    run = called(lambda model: torch.compile(make(model).__call__, backend="eager"))
    with pytest.raises(ValueError, match=r"^the images of \w+ call 3 are outside"):
        run([INSIDE, INSIDE, OVERSHOT])


@pytest.mark.parametrize("user", ["evaluate", "transfer", "leaking"])
def test_an_evaluation_looks_once_at_each_batch(user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    monkeypatch.setattr(
        range_watch, "channel_extremes", lambda images, space: seen.append(images) or channel_extremes(images, space)
    )
    with pytest.warns(UserWarning, match="as if they were on a") as said:
        EVALUATIONS[user](PixelSpace.raw(), [INSIDE, INSIDE])
    assert len(seen) == 2 and len(said) == 1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_the_least_and_the_most_of_each_channel(space: PixelSpace, dtype: torch.dtype, layout: Any) -> None:
    """Found where they lie: a value beyond one channel's range may be within another's."""
    images = space.from_pixels(torch.full((2, 3, 4, 5), 100.0), dtype).contiguous(memory_format=layout)
    space.check(images)
    for channel in range(3):
        for pixel, excess in ((-9.0, 9), (255 + 12.0, 12)):
            overshot, c = images.clone(), 0 if space.uniform else channel
            overshot[1, channel, 2, 3] = (pixel - space.mean[c]) / space.std[c]
            with pytest.raises(ValueError, match=rf"{excess}(\.\d+)? beyond it\. Bicubic"):
                space.check(overshot)


def test_normalised_images_are_not_told_to_be_clamped() -> None:
    """To clamp them would set half of their values to zero."""
    images = torch.linspace(-2.1, 2.6, 12).view(1, 3, 2, 2)
    with pytest.raises(ValueError, match=r"beyond it\. Pass the PixelSpace that matches") as error:
        PixelSpace.raw().check(images)
    assert "clamp" not in str(error.value)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("space", [*SPACES.values(), PixelSpace(0.0, 1.0, 0.0, 1.0)], ids=str)
def test_the_advice_helps(space: PixelSpace, dtype: torch.dtype) -> None:
    """What it says to clamp to, where one pair of numbers does, lies inside the space."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (space.mean, space.std))
    images = ((torch.full((1, 3, 1, 1), 1.1 * space.upper) - mean) / std).to(dtype)
    with pytest.raises(ValueError, match="outside the pixel range") as caught:
        space.check(images)
    if space.uniform:
        lower, upper = str(caught.value).partition("images.clamp_(")[2].partition(")")[0].split(",")
        space.check(images.clamp(float(lower), float(upper)))
    else:
        assert "pixels.clamp_(0, 255), or by clamp_(0, 1) on a [0, 1] scale" in str(caught.value)


def test_a_hundredth_of_a_grey_level_is_rounding_whatever_the_range() -> None:
    for space in (PixelSpace.raw(), PixelSpace(0.0, 1.0, 0.0, 1.0), PixelSpace(0.0, 1.0, 0.0, 65535.0)):
        level = (space.upper - space.lower) / 255
        space.check(torch.full((1, 3, 2, 2), space.upper + 0.005 * level))
        with pytest.raises(ValueError, match="outside the pixel range"):
            space.check(torch.full((1, 3, 2, 2), space.upper + 0.02 * level))


# --- where a look would be a wait ------------------------------------------------------------------------------------


@pytest.fixture
def device_that_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_watch, "_is_waited_for", lambda images: True)


@pytest.mark.usefixtures("device_that_is_waited_for")
def test_a_later_batch_is_judged_by_the_next_call() -> None:
    attack = attacks.create("fgsm", network(), eps=4)
    with pytest.raises(ValueError, match="of FGSM call 1 are outside"):  # no wait is saved before one has passed
        attack(OVERSHOT, LABELS)
    attack(INSIDE, LABELS)
    attack(OVERSHOT, LABELS)
    with pytest.raises(ValueError, match="of FGSM call 3 are outside"):
        attack(INSIDE, LABELS)
    attack(OVERSHOT, LABELS)  # said once
    with pytest.raises(ValueError, match="of FGSM call 5 are outside"):  # a call that raised is a call
        attack(INSIDE, LABELS)


@pytest.mark.usefixtures("device_that_is_waited_for")
def test_inference_tensors_are_looked_at_once() -> None:
    """In place, too: a second look would wait for the first."""
    attack = attacks.create("fgsm", network(), eps=4)
    with torch.inference_mode():
        attack.perturb_(INSIDE.clone(), LABELS)
        attack.perturb_(OVERSHOT.clone(), LABELS)
        with pytest.raises(ValueError, match="of FGSM call 2 are outside"):
            attack.perturb_(INSIDE.clone(), LABELS)


@pytest.mark.usefixtures("device_that_is_waited_for")
def test_the_last_batch_is_not_forgotten() -> None:
    attack = attacks.create("fgsm", network(), eps=4)
    attack(INSIDE, LABELS)
    attack(OVERSHOT, LABELS)
    copied = copy.deepcopy(attack)
    with pytest.warns(UserWarning, match="of FGSM call 2 are outside") as said:
        del attack
        gc.collect()
    assert [warning.filename for warning in said] == [__file__]
    copied(INSIDE, LABELS)


@pytest.mark.usefixtures("device_that_is_waited_for")
@pytest.mark.filterwarnings("error")
def test_the_last_batch_of_a_device_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error has been raised already, where it arose."""
    attack = attacks.create("fgsm", network(), eps=4)
    attack(INSIDE, LABELS)
    attack(OVERSHOT, LABELS)
    monkeypatch.setattr(range_watch, "check_extremes", Mock(side_effect=RuntimeError("CUDA error: unspecified")))
    del attack
    gc.collect()


@pytest.mark.usefixtures("device_that_is_waited_for")
def test_an_evaluation_waits_anyway() -> None:
    for user in ("clean", "transfer", "leaking"):
        with pytest.raises(ValueError, match="of batch 2 are outside"):
            USERS[user]([INSIDE, OVERSHOT])


# --- any space -------------------------------------------------------------------------------------------------------

CONSTANTS = st.lists(st.tuples(st.floats(-300, 300), st.floats(0.5, 300)), min_size=1, max_size=4)
RANGES = st.tuples(st.floats(-1e5, 1e5), st.floats(0.1, 1e5))


@pytest.mark.filterwarnings("ignore:all images lie in")
@settings(max_examples=100, deadline=None)
@given(constants=CONSTANTS, ends=RANGES, share=st.floats(-0.5, 1.5), place=st.integers(0, 10**6), last=st.booleans())
def test_one_value_decides(
    constants: list[tuple[float, float]], ends: tuple[float, float], share: float, place: int, last: bool
) -> None:
    """Of images in the middle of any range, in either layout, a single one at this share of the range."""
    mean, std = zip(*constants, strict=True)
    assume(max(map(abs, mean)) > 1)  # else it is taken for constants of a [0, 1] scale
    space = PixelSpace(mean, std, ends[0], sum(ends))
    view = (1, -1, 1, 1)
    pixels = torch.full((2, len(mean), 3, 4), ends[0] + ends[1] / 2, dtype=torch.float64)
    pixels.view(-1)[place % pixels.numel()] = ends[0] + share * ends[1]
    means, stds = (torch.tensor(values, dtype=torch.float64).view(view) for values in (mean, std))
    images = (pixels - means) / stds
    images = images.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    beyond = max(-share, share - 1)
    assume(abs(beyond - 0.01 / 255) > 1e-6)
    if beyond <= 0.01 / 255:
        space.check(images)
        return
    with pytest.raises(ValueError, match="outside the pixel range.* Bicubic" if beyond < 0.24 else "outside"):
        space.check(images)


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=200, deadline=None)
@given(mean=NUMBERS, std=NUMBERS, lower=NUMBERS, upper=NUMBERS)
def test_any_constants_are_refused_by_name_or_bounded(mean: float, std: float, lower: float, upper: float) -> None:
    """Whatever the size of the numbers: a ValueError, a TypeError of the dtype, or bounds that are in the range."""
    try:
        space = PixelSpace(mean, std, lower, upper)
    except ValueError:
        return
    assert eval(repr(space), {"PixelSpace": PixelSpace}) == space  # the text by which records tell spaces apart
    for dtype in DTYPES:
        try:
            (low,), (high,) = space.bounds(dtype)
        except TypeError as error:
            assert f"{dtype} cannot represent the inputs" in str(error)
            continue
        exact = [(Fraction(end) - Fraction(mean)) / Fraction(std) for end in (lower, upper)]
        assert exact[0] <= Fraction(low) < Fraction(high) <= exact[1]
