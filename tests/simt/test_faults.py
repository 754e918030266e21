"""Faults planted in kernels are caught, by whom they should be, and the same kernels without them pass."""

from __future__ import annotations

import random

import pytest

from tests.simt.build import program

HOST = ("plain", "address", "thread")
FAULTS = {  # who catches it, and in what words
    "global_overflow": (("address",), "heap-buffer-overflow"),
    "shared_overflow": (("address",), "index 64 out of bounds"),
    "shared_pointer_overflow": (("address",), "insufficient space"),
    "shared_race": (("thread",), "data race"),
    "race_of_rounds": (("thread",), "data race"),
    "race_behind_shuffle": (("thread",), "data race"),
    "race_between_blocks": (("thread",), "data race"),
    "barrier_left_out": (HOST, "kernel barrier_left_out, launched at tests/simt/faults.cu"),
    "barrier_elsewhere": (HOST, "waits at __syncthreads"),
    "lane_left_out": (HOST, "thread 40 has left the kernel"),
    "lane_elsewhere": (HOST, "waits at a shuffle or vote"),
    "lane_at_barrier": (HOST, "thread 3 waits at __syncthreads"),
    "lane_not_named": (HOST, "mask lacks"),
}


@pytest.mark.parametrize("variant", HOST)
@pytest.mark.parametrize("fault", FAULTS)
def test_faults(fault: str, variant: str) -> None:
    clean = program(f"faults_{variant}", fault)
    assert clean.returncode == 0, clean.stderr
    catchers, words = FAULTS[fault]
    if variant in catchers:
        planted = program(f"faults_{variant}", fault, "planted")
        assert planted.returncode != 0 and words in planted.stderr, planted.stderr


@pytest.mark.parametrize("variant", HOST)
@pytest.mark.parametrize("name", ["votes_and_atomics", "launches"])
def test_what_the_host_offers(name: str, variant: str) -> None:
    assert program(f"faults_{variant}", name).returncode == 0


def test_cpu_kernels_on_several_threads() -> None:
    clean, planted = program("cpu_threads"), program("cpu_threads", "planted")
    assert clean.returncode == 0 and "every kernel ran" in clean.stdout, clean.stderr
    assert planted.returncode != 0 and "data race" in planted.stderr


def test_fast_division_is_division() -> None:
    generator = random.Random(0)
    edges = [1, 2, 3, 89401, 268203, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1, 2**32, 2**32 + 1, 2**62, 2**63 - 1]
    divisors = edges + [generator.randrange(1, 2 ** generator.randint(1, 63)) for _ in range(1000)]
    pairs = []
    for divisor in divisors:
        multiple = divisor * generator.randrange(2**63 // divisor)
        numbers = [0, divisor - 1, divisor, multiple, multiple - 1, 2**63 - 1, generator.randrange(2**63), *edges]
        pairs += [(number, divisor) for number in numbers if 0 <= number < 2**63]
    answer = program("divide", text="\n".join(f"{number} {divisor}" for number, divisor in pairs))
    assert answer.returncode == 0, answer.stderr
    expected = [f"{n // d} {n // d if n < 2**31 and d < 2**31 else 0}" for n, d in pairs]
    assert answer.stdout.splitlines() == expected
    assert sum(n < 2**31 and d < 2**31 for n, d in pairs) > 1000


def place(channels: int, plane: int, channels_last: bool, element: int) -> tuple[int, int, int]:
    """(example, channel, place within the kernels' run of elements)."""
    example, within = divmod(element, channels * plane)
    return (example, within % channels, within) if channels_last else (example, *divmod(within, plane))


def test_places_of_elements_beyond_2_31_and_2_32() -> None:
    generator = random.Random(1)
    shapes = [(3, 299 * 299), (1, 3 * 299 * 299), (32, 7), (3, 1), (1, 1), (3, 2**31 + 11), (2, 2**33)]
    lines, expected = [], []
    for channels, plane in shapes:
        size = channels * plane
        for base in (0, size, 2**31, 2**32, 2**33, 2**40, generator.randrange(2**45)):
            for element in (base, base + 1, base // size * size + size - 1, base // plane * plane + plane - 1):
                for last in (False, True):
                    lines.append(f"{element // size + 2} {channels} {plane} {int(last)} {element}")
                    places = place(channels, plane, last, element), place(channels, plane, last, element + 1)
                    expected.append([*places[0], *places[1]])
    answer = program("places", text="\n".join(lines))
    assert answer.returncode == 0, answer.stderr
    assert [[int(number) for number in line.split()] for line in answer.stdout.splitlines()] == expected
