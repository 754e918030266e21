"""The cost of a run in clean-epoch equivalents: how many epochs of standard training would cost as much.

A clean epoch shows each image of an epoch once, at ``data.size``. Images of a phase with another size count by their
number of pixels. The passes of training and of the sentinel's checks are counted: not those of the test after each
epoch, nor those that check the first minibatch.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastadv.train.config import TrainConfig
from fastadv.train.run import Run, Stage
from fastadv.train.tasks.passes import Passes

_MOST_SAMPLES = 1000  # of the calls before a task's steady state


def pixel_ratio(phase: TrainConfig, config: TrainConfig) -> float:
    """Pixels of an image of a phase, divided by those at the configuration's ``data.size``; 1 for images in memory."""
    return (phase.data.size / config.data.size) ** 2 if config.data.name == "imagenet" else 1.0


def clean_epochs(passes: Passes, run: Run, stage: Stage) -> float:
    """The cost of passes of this process in one of the run's phases."""
    phase = stage.config
    replays = phase.attack.replays if phase.attack.training == "free" else 1
    minibatches = len(stage.train_loader) // phase.accumulate * phase.accumulate // replays
    return passes.clean_images * pixel_ratio(phase, run.config) / (minibatches * phase.images_per_minibatch)


def predict(run: Run) -> list[float]:
    """The expected cost of each phase of a run; for attacks whose number of steps is drawn, it is a mean."""
    return [clean_epochs(_expected(run, number, stage), run, stage) for number, stage in enumerate(run.stages)]


def _expected(run: Run, number: int, stage: Stage) -> Passes:
    """Expected passes of this process in one phase."""
    accumulate, m = run.config.accumulate, stage.config.images_per_minibatch
    first = run.timeline.first_step(number) * accumulate
    end = run.timeline.first_step(number + 1) * accumulate
    steady = min(end, max(first, stage.task.steady_from))
    total = stage.task.expected_passes(m, steady).times(end - steady)
    for call, weight in _samples(first, steady):
        total = total.plus(stage.task.expected_passes(m, call).times(weight))
    return total if stage.sentinel is None else total.plus(stage.sentinel.passes.times(checks_in(run, number)))


def checks_in(run: Run, number: int) -> int:
    """How often the sentinel checks in one phase."""
    first, end = run.timeline.first_step(number), run.timeline.first_step(number + 1)
    sentinel = run.stages[number].sentinel
    return 0 if sentinel is None else sentinel.checks(range(first + 1, end + 1))


def _samples(first: int, end: int) -> Iterator[tuple[int, float]]:
    """Evenly spaced numbers in [first, end), each with how many it stands for."""
    count = min(end - first, _MOST_SAMPLES)
    for sample in range(count):
        yield first + (2 * sample + 1) * (end - first) // (2 * count), (end - first) / count
