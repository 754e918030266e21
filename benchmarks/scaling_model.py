"""A model of an iteration's time against the number of GPUs, compared with public figures.

    python -m benchmarks.scaling_model

    compute + max(0, latency log2 P + 2 (P - 1) / P * M / B - overlap) + stragglers

Prints Markdown. Nothing here was measured with this package: the figures are public, the rest is arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from benchmarks.harness import Table


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work of an iteration on one GPU.

    Args:
        seconds: time of the passes, including the fixed cost of an iteration.
        gradient_bytes: bytes of gradients that each process exchanges.
        overlap: part of the passes, in seconds, during which gradients are already exchanged.
    """

    seconds: float
    gradient_bytes: float
    overlap: float


@dataclass(frozen=True, kw_only=True)
class Network:
    """The network between the GPUs.

    Args:
        bandwidth: bytes per second out of a machine, for all its network cards together, because a ring of all GPUs
            leaves each machine once; within one machine, between two of its GPUs.
        latency: seconds per message; an all-reduce has log2 P in a row.
        stragglers: seconds by which the slowest process is later than the mean.
    """

    bandwidth: float = 400e9  # eight cards of 400 Gbit/s; NVLink has about as much
    latency: float = 20e-6
    stragglers: float = 0.0


def all_reduce_seconds(gradient_bytes: float, gpus: int, network: Network) -> float:
    """The bytes of a ring with the latency of a tree: the best of both, which NCCL's algorithms come close to."""
    if gpus == 1:
        return 0.0
    return network.latency * math.log2(gpus) + 2 * (gpus - 1) / gpus * gradient_bytes / network.bandwidth


def step_seconds(work: Work, gpus: int, network: Network) -> float:
    """Time of an iteration on a number of GPUs."""
    exchange = all_reduce_seconds(work.gradient_bytes, gpus, network)
    return work.seconds + max(0.0, exchange - work.overlap) + network.stragglers * (gpus > 1)


def hiding_bandwidth(work: Work, gpus: int, latency: float) -> float:
    """Smallest bandwidth in bytes per second for which no iteration waits for gradients; infinite if the latencies
    alone exceed the overlap."""
    left = work.overlap - latency * math.log2(gpus)
    return 2 * (gpus - 1) / gpus * work.gradient_bytes / left if left > 0 else math.inf


# --- against public figures ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Public:
    """ResNet-50 in MLPerf Training v4.0, as submitted for H100: images per second and GPU."""

    gpus: int
    minibatch: int
    images_per_s: float


# Minibatches from the submitters' configurations: 3,200 images per iteration on 8 GPUs (from an earlier round) and on
# 64 (with another card), and 316 x 8 x 16 on 2,528.
MLPERF = (Public(8, 400, 7157), Public(64, 50, 4911), Public(2528, 16, 2730))
RESNET50_GRADIENT = 2 * 25.6e6  # bytes: 25.6 million parameters in half precision


@dataclass(frozen=True)
class Speed:
    """Seconds of an iteration's passes on m images: ``fixed + m * image``."""

    fixed: float
    image: float

    def seconds(self, minibatch: int) -> float:
        """Time for a minibatch."""
        return self.fixed + minibatch * self.image


def fitted(one: Public, other: Public) -> Speed:
    """The line through two figures, assuming that their gradients were exchanged during the passes."""
    times = [figure.minibatch / figure.images_per_s for figure in (one, other)]
    image = (times[0] - times[1]) / (one.minibatch - other.minibatch)
    return Speed(times[0] - image * one.minibatch, image)


def backward_share(adversarial_share: float) -> float:
    """Share of training's backward pass, in which gradients are exchanged, in all passes of an iteration.

    In units of a forward pass: training takes 3, including 2 backward; generation takes 2 for each adversarial image.
    """
    return 2 / (3 + 2 * adversarial_share)


def predicted(figure: Public, speed: Speed, network: Network) -> float:
    """Predicted images per second and GPU."""
    seconds = speed.seconds(figure.minibatch)
    work = Work(seconds=seconds, gradient_bytes=RESNET50_GRADIENT, overlap=backward_share(0) * seconds)
    return figure.minibatch / step_seconds(work, figure.gpus, network)


def back_test() -> Table:
    """Fit the passes to two figures, and predict the third."""
    speed, network = fitted(*MLPERF[:2]), Network()
    table = Table(
        "Against MLPerf Training v4.0: ResNet-50 on H100",
        ["GPUs", "minibatch", "images/s of each, public", "modelled", "difference", ""],
        notes=[
            f"Passes: {1e3 * speed.fixed:.2f} ms an iteration and {1e6 * speed.image:.0f} us an image, fitted to the "
            "first two rows. A ring's exchange hardly grows with the number of GPUs, so that what of it was not hidden "
            "at 8 and 64 is part of what was fitted. The last row says that no part of an iteration grows by much "
            "more than a tenth of a millisecond from 64 to 2,528 GPUs; how long the exchange takes, it does not say.",
        ],
    )
    for number, figure in enumerate(MLPERF):
        rate = predicted(figure, speed, network)
        difference = f"{rate / figure.images_per_s - 1:+.1%}"
        role = "fitted" if number < 2 else "predicted"
        table.rows.append(
            [f"{figure.gpus:,}", str(figure.minibatch), f"{figure.images_per_s:,.0f}", f"{rate:,.0f}", difference, role]
        )
    return table


# --- the paper's run -------------------------------------------------------------------------------------------------

INCEPTION_GRADIENT = 4 * 27_161_264  # bytes, in float32; counted by benchmarks.scaling
INCEPTION_TO_RESNET = 5.7 / 4.1  # multiply-adds of a forward pass at 299 x 299 and at 224 x 224
GPUS = (8, 64, 512)
INTERCONNECTS = {
    "8 x 400 Gbit/s": Network(),
    "1 x 400 Gbit/s": Network(bandwidth=50e9),
    "1 x 200 Gbit/s": Network(bandwidth=25e9),
    "1 x 100 Gbit/s": Network(bandwidth=12.5e9),
    "1 x 25 Gbit/s": Network(bandwidth=25e9 / 8, latency=50e-6),
}


def inception(minibatch: int, speed: Speed) -> Work:
    """Algorithm 1 with half of the minibatch adversarial: a third more than the passes of training."""
    seconds = speed.fixed + minibatch * speed.image * INCEPTION_TO_RESNET * 4 / 3
    return Work(seconds=seconds, gradient_bytes=INCEPTION_GRADIENT, overlap=backward_share(0.5) * seconds)


def paper_run() -> Table:
    """Modelled: adversarial training of Inception v3 on H100s."""
    speed = fitted(*MLPERF[:2])
    table = Table(
        "Modelled: Inception v3, k = m / 2, on machines of 8 H100",
        ["m", "passes, ms", "network cards of a machine", *(f"{gpus} GPUs" for gpus in GPUS)],
        notes=[
            "Milliseconds of an iteration, and in brackets the share that waits for gradients. Stragglers are 0: no "
            "public figure says by how much the slowest of all is later than the mean.",
        ],
    )
    for minibatch in (32, 128):
        work = inception(minibatch, speed)
        for name, network in INTERCONNECTS.items():
            seconds = [step_seconds(work, gpus, network if gpus > 8 else Network()) for gpus in GPUS]
            cells = [f"{1e3 * value:.1f} ({1 - work.seconds / value:.0%})" for value in seconds]
            table.rows.append([str(minibatch), f"{1e3 * work.seconds:.1f}", name, *cells])
    return table


def needed() -> Table:
    """Modelled: the bandwidth that the network cards of a machine need."""
    speed = fitted(*MLPERF[:2])
    table = Table(
        "Modelled: Gbit/s out of a machine from which on no iteration waits for gradients",
        ["m", *(f"{gpus} GPUs" for gpus in GPUS[1:])],
        notes=["In brackets for gradients of half the bytes. Stragglers are 0 here, too."],
    )
    for minibatch in (25, 32, 64, 128):
        work = inception(minibatch, speed)
        half = replace(work, gradient_bytes=work.gradient_bytes / 2)
        gigabits = [[8e-9 * hiding_bandwidth(w, gpus, Network().latency) for w in (work, half)] for gpus in GPUS[1:]]
        table.rows.append([str(minibatch), *(f"{float32:.0f} ({bfloat16:.0f})" for float32, bfloat16 in gigabits)])
    return table


if __name__ == "__main__":
    print(back_test().markdown(), paper_run().markdown(), needed().markdown(), sep="\n\n")
