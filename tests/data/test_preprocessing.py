"""Preprocessing: crops computed by hand, and random draws."""

from __future__ import annotations

import colorsys
import math
import re
from typing import Any

import numpy as np
import pytest

from fastadv.data import Preprocessing
from fastadv.data.config import DataConfig
from fastadv.data.transforms.preprocessing import NumPyArithmetic, central_window, random_window

NUMPY = NumPyArithmetic()


def draws(*tries: tuple[float, float, float, float]) -> list[np.ndarray]:
    """Rows (height, width, down, right) as columns."""
    return list(np.array(tries).T)


@pytest.mark.parametrize(
    ("height", "width", "tries", "expected"),
    [
        # Sides are in units of sqrt(100 * 400) = 200.
        (100, 400, [(0.4, 0.3, 0.0, 0.0)], [0, 0, 80, 60]),
        (100, 400, [(0.4, 0.3, 0.999, 0.999)], [20, 340, 80, 60]),  # the last of 21 and of 341 places
        (100, 400, [(0.4, 0.3, 0.5, 0.5)], [10, 170, 80, 60]),
        (100, 400, [(0.5, 0.3, 0.7, 0.0)], [0, 0, 100, 60]),  # as high as the image: one place
        (100, 400, [(0.6, 0.3, 0.0, 0.0), (0.4, 0.2, 0.0, 0.0)], [0, 0, 80, 40]),  # too high; the second fits
        (100, 400, [(0.4, 0.3, 0.0, 0.0), (0.4, 0.2, 0.0, 0.0)], [0, 0, 80, 60]),  # the first is taken
        # None fits: the largest centred crop with an aspect of up to 4/3, that is, 100 x 133 of 100 x 400.
        (100, 400, [(0.6, 0.3, 0.0, 0.0), (0.7, 0.3, 0.0, 0.0)], [0, 134, 100, 133]),
        (400, 100, [(0.6, 1.3, 0.0, 0.0)], [134, 0, 133, 100]),
        (100, 120, [(5.0, 5.0, 0.0, 0.0)], [0, 0, 100, 120]),  # of an allowed aspect: whole
        (1, 1, [(0.3, 0.3, 0.0, 0.0)], [0, 0, 1, 1]),  # rounded to nothing: the fallback
        (1, 2000, [(0.01, 0.01, 0.0, 0.9)], [0, 1000, 1, 1]),
        (1, 2000, [(0.02, 0.02, 0.0, 0.9)], [0, 1800, 1, 1]),  # 0.9 pixels are one
    ],
)
def test_training_windows_by_hand(
    height: int, width: int, tries: list[tuple[float, float, float, float]], expected: list[int]
) -> None:
    window = random_window(np.float64(height), np.float64(width), draws(*tries), 4 / 3, NUMPY)
    assert [int(value) for value in window] == expected == [float(value) for value in window]


@pytest.mark.parametrize(
    ("height", "width", "central", "expected"),
    [
        (800, 800, 0.875, [50, 50, 700, 700]),
        (375, 500, 0.875, [23, 31, 329, 438]),  # floor(23.4375), floor(31.25)
        (375, 500, 1.0, [0, 0, 375, 500]),
        (1, 1, 0.875, [0, 0, 1, 1]),
        (3, 1000, 0.5, [0, 250, 3, 500]),
    ],
)
def test_evaluation_windows_by_hand(height: int, width: int, central: float, expected: list[int]) -> None:
    assert central_window(np.float64(height), np.float64(width), central, NUMPY) == expected


@pytest.mark.parametrize(
    ("height", "width", "central", "expected"),
    [
        (375, 500, 1.0, [0, 62, 375, 375]),
        (256, 340, 224 / 256, [16, 58, 224, 224]),
        (340, 256, 224 / 256, [58, 16, 224, 224]),
        (1, 1000, 0.5, [0, 499, 1, 1]),
    ],
)
def test_square_windows_by_hand(height: int, width: int, central: float, expected: list[int]) -> None:
    assert central_window(np.float64(height), np.float64(width), central, NUMPY, keep_aspect=True) == expected


def test_windows_are_of_the_distribution_of_torchvision() -> None:
    preprocessing = Preprocessing(least_area=0.2)
    drawn = preprocessing.draw(1, 2, range(4000)).windows  # [4000, 4, 10]
    area, aspect = drawn[:, 0] * drawn[:, 1], drawn[:, 1] / drawn[:, 0]
    for values, low, high in (
        (area, 0.2, 1.0),
        (np.log(aspect), math.log(3 / 4), math.log(4 / 3)),
        (drawn[:, 2:], 0, 1),
    ):
        assert low <= values.min() and values.max() <= high
        shares = np.histogram(values, bins=5, range=(low, high))[0] / values.size
        assert np.abs(shares - 0.2).max() < 0.01  # uniform; four standard deviations of 40,000 draws are 0.008
    places = drawn[:, :, 0].T  # [4, 4000]
    assert np.abs(np.corrcoef(places[2:])[0, 1]) < 0.07


def test_mirrors() -> None:
    mirrored = Preprocessing(flip=True).draw(0, 0, range(2000)).mirrored
    assert 0.45 < mirrored.mean() < 0.55
    assert not Preprocessing().draw(0, 0, range(2000)).mirrored.any()


def test_draws_belong_to_seed_epoch_and_example() -> None:
    preprocessing = Preprocessing(flip=True, colour=True)
    whole, part = preprocessing.draw(3, 1, range(10)), preprocessing.draw(3, 1, [7, 2])
    for name in ("windows", "mirrored", "colours"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[[7, 2]])
    keys = [(3, 1, 7), (3, 1, 8), (3, 2, 7), (4, 1, 7), (2**63 - 1, 1, 7), (3, 7, 1)]
    first = [preprocessing.draw(seed, epoch, [index]).windows.tobytes() for seed, epoch, index in keys]
    assert len(set(first)) == len(keys)


def test_options_do_not_change_what_else_is_drawn() -> None:
    plain, coloured = (Preprocessing(colour=colour).draw(0, 0, range(5)) for colour in (False, True))
    np.testing.assert_array_equal(plain.windows, coloured.windows)
    np.testing.assert_array_equal(plain.mirrored, coloured.mirrored)
    assert plain.colours is None


def test_colours() -> None:
    colours = Preprocessing(colour=True).draw(0, 0, range(500)).colours
    assert colours is not None and colours.shape == (500, 3, 4) and colours.dtype == np.float32
    # Grey has no saturation or hue: only contrast around 128 and brightness remain, the same in each channel.
    contrast = colours[:, 0, :3].sum(axis=1)  # [500]
    assert 0.5 <= contrast.min() < 0.6 and 1.4 < contrast.max() <= 1.5
    np.testing.assert_allclose(colours[..., :3].sum(axis=2), np.broadcast_to(contrast[:, None], (500, 3)), atol=1e-3)
    brightness = colours[:, :, 3] - (1 - contrast[:, None]) * 128  # [500, 3]
    assert np.abs(brightness).max() <= 32.01 and np.abs(brightness).max() > 30
    # Red turns by at most 72 degrees: towards yellow-green on one side and magenta on the other.
    hues = [colorsys.rgb_to_hsv(*np.clip(matrix[:, :3] @ [255, 0, 0] / 255 + 0.2, 0, 1))[0] for matrix in colours]
    turned = np.minimum(hues, 1 - np.array(hues))
    assert 0.15 < turned.max() < 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be an integer of at least 1, got 0"),
        ({"size": 299.5}, "size must be an integer of at least 1, got 299.5"),
        ({"least_area": 0.0}, "least_area must be a number above 0 and at most 1, got 0.0"),
        ({"least_area": 1.5}, "least_area must be a number above 0 and at most 1, got 1.5"),
        ({"widest_aspect": 0.75}, "widest_aspect must be a number of at least 1, got 0.75"),
        ({"widest_aspect": math.inf}, "widest_aspect must be a number of at least 1, got inf"),
        ({"central": 0.0}, "central must be a number above 0 and at most 1, got 0.0"),
        ({"central": "0.5"}, "central must be a number above 0 and at most 1, got '0.5'"),
        ({"flip": "false"}, "flip must be true or false, got 'false'"),
        ({"colour": 1}, "colour must be true or false, got 1"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    """In the loaders' options, and under the option's name in a run's configuration."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        Preprocessing(**options)
    with pytest.raises(ValueError, match=rf"^data\.{re.escape(message)}"):
        DataConfig(**options)


def test_a_runs_images_are_preprocessed_as_the_loaders_do_it() -> None:
    assert DataConfig().preprocessing == Preprocessing()
