"""Cost and robustness of each way of training, with the same network, data set and number of training examples.

    python -m benchmarks.training_methods --out FILE
    python -m benchmarks.training_methods --data-set fashion_mnist --data DIR --limit 10000 --epochs 4 --out FILE

Writes one Markdown table.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.harness import Interleaved, Table, Timing, whole_seconds
from benchmarks.machine import describe
from fastadv import PixelSpace, TruncatedNormalEps, data, models
from fastadv.evaluate import evaluate, proportion
from fastadv.train import AdversarialTask, FreeTask, PairedTask, Replayed, TradesTask, fast_task
from fastadv.train.protocols import Task
from fastadv.utils import devices

SPACE = PixelSpace.unit()
SOURCES = 2
ATTACKS: dict[str, dict[str, int]] = {"fgsm": {}, "step_ll": {}, "iter_basic": {}, "pgd": {"steps": 20}}
TEST_BATCH = 256


def main(argv: list[str] | None = None) -> None:
    """Count passes, time, train and attack; write the table."""
    options = _parser().parse_args(argv)
    if options.epochs % 2:
        sys.exit(f"--epochs must be even, for pairs, got {options.epochs}")
    if options.epochs % options.replays:
        sys.exit(f"--epochs must be a multiple of --replays, {options.replays}, got {options.epochs}")
    bench = Bench.of(options)
    sources, seconds = static_sources(bench)
    ways = methods(options, sources)
    costs = timed(bench, ways, options.rounds)
    table = Table(
        f"{options.data_set}: {len(bench.train):,} training examples, {options.epochs} times each",
        [
            *("training", "epochs", "weight updates", "examples seen"),
            *(
                "forwards",
                "backwards, weights",
                "backwards, images alone",
                "s / 1,000 examples",
                "of standard",
                "clean",
                *(_title(name) for name in ATTACKS),
            ),
        ],
        notes=[_notes(options, bench, seconds)],
    )
    command = shlex.join(["python", "-m", "benchmarks.training_methods", *(sys.argv[1:] if argv is None else argv)])
    head = f"# Ways of training: cost and robustness\n\n{describe()}\n\n```bash\n{command}\n```"
    for way in ways:
        print(way.name, file=sys.stderr)
        passes = [f"{share:.3g}" for share in count_passes(bench, way)]
        model, updates = train(bench, way, options.epochs)
        seconds = _per_thousand(costs.timings()[way.name], options.m)
        times = costs.ratio(way.name, ways[0].name).text
        seen = [_epochs(options.epochs, way.passes), f"{updates:,}", f"{updates * options.m:,}"]
        table.rows.append([way.name, *seen, *passes, seconds, times, *accuracies(bench, model, options.eps)])
        options.out.write_text(f"{head}\n\n{table.markdown()}\n")  # everything so far, in case the time runs out


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_methods", description=__doc__)
    parser.add_argument("--data-set", default="digits", choices=[name for name in data.names() if name != "imagenet"])
    parser.add_argument("--data", metavar="DIR", help="folder of the data set; not needed for digits")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the table, in Markdown")
    parser.add_argument("--limit", type=int, help="number of training examples, from the first; default: all")
    parser.add_argument("--test-limit", type=int, default=1000, help="number of test examples, from the first")
    parser.add_argument("--epochs", type=int, default=20, help="number of times that each example is trained on")
    parser.add_argument("--replays", type=int, default=4, help="replays of free training")
    parser.add_argument("--minibatch", dest="m", type=int, default=128)
    parser.add_argument("--eps", type=float, default=16, help="in pixel values of [0, 255]")
    parser.add_argument("--width", type=float, default=1.0, help="width of small_cnn")
    parser.add_argument("--lr", type=float, default=0.002, help="learning rate of AdamW, decayed to 0 by a cosine")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of timing, in which all ways take turns")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    return parser


# --- what is compared ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """A way of training.

    Args:
        name: name in the table.
        task: makes the task for a network.
        replays: how often each minibatch is repeated; there are correspondingly fewer epochs.
        versions: in how many versions an iteration shows each of its images; epochs are correspondingly fewer, too.
        half: whether the network runs in bfloat16 autocast, as with ``--precision bfloat16``.
        sources: other networks that the task makes adversarial examples on.
    """

    name: str
    task: Callable[[nn.Module], Task]
    replays: int = 1
    versions: int = 1
    half: bool = False
    sources: Sequence[nn.Module] = ()

    @property
    def passes(self) -> int:
        """How often an epoch trains on each image."""
        return self.replays * self.versions

    def step(self, task: Task, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
        """One iteration on images [m, C, H, W], which the task may overwrite, and labels [m]."""
        optimizer.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.half):
            if isinstance(task, PairedTask):
                task.backward(images, labels)
            else:
                loss = task(images, labels)
        if not isinstance(task, PairedTask):
            loss.backward()
        optimizer.step()


def methods(options: argparse.Namespace, sources: Sequence[nn.Module]) -> list[Method]:
    """Standard training first; all others use the same eps, or for Algorithm 1 a distribution scaled to it."""
    m, eps = options.m, options.eps

    def mixture(attack: str, k: int, **more: object) -> Callable[[nn.Module], Task]:
        drawn = {"eps": TruncatedNormalEps(sigma=eps, upper=2 * eps), **more}
        return lambda model: AdversarialTask(model, attack=attack, k=k, space=SPACE, seed=options.seed, **drawn)

    def pairs(attack: str) -> Callable[[nn.Module], Task]:
        drawn = TruncatedNormalEps(sigma=eps, upper=2 * eps)
        return lambda model: PairedTask(model, attack=attack, eps=drawn, space=SPACE, seed=options.seed)

    return [
        Method("standard", mixture("step_ll", 0)),
        Method("Algorithm 1, step_ll, k = m / 2", mixture("step_ll", m // 2)),
        Method("the same in bfloat16", mixture("step_ll", m // 2), half=True),
        Method("Algorithm 1, step_ll, static sources", mixture("step_ll", m // 2, sources=sources), sources=sources),
        Method("pairs, step_ll", pairs("step_ll"), versions=2),
        Method("Algorithm 1, fgsm, k = m / 2", mixture("fgsm", m // 2)),
        Method("pairs, fgsm", pairs("fgsm"), versions=2),
        Method("Algorithm 1, step_ll, k = m", mixture("step_ll", m)),
        Method("fast", lambda model: fast_task(model, eps=eps, space=SPACE, seed=options.seed)),
        Method(
            "fast, from noise",
            lambda model: fast_task(model, eps=eps, space=SPACE, start="noise", seed=options.seed),
        ),
        Method(f"free, r = {options.replays}", lambda model: FreeTask(model, eps=eps, space=SPACE), options.replays),
        Method("TRADES, 10 steps", lambda model: TradesTask(model, eps=eps, space=SPACE, seed=options.seed)),
        Method("pgd, 10 steps, k = m", mixture("pgd", m, eps=eps, attack_options={"steps": 10})),
    ]


@dataclass(frozen=True)
class Bench:
    """What all ways share: the images, and the initial network and optimiser."""

    train: data.ImageSet
    test: data.ImageSet
    device: torch.device
    options: argparse.Namespace

    @classmethod
    def of(cls, options: argparse.Namespace) -> Bench:
        """From command line options."""
        images = data.load(options.data_set, options.data)
        train, test = _first(images.train, options.limit), _first(images.test, options.test_limit)
        return cls(train, test, devices.resolve(options.device), options)

    def network(self, number: int = 0) -> nn.Module:
        """A network in training mode, with the same initial weights each time for each number."""
        torch.manual_seed(self.options.seed + number)
        channels, classes = self.train.images.shape[1], len(self.train.classes)
        model = models.create("small_cnn", num_classes=classes, in_channels=channels, width=self.options.width)
        return model.to(self.device)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """AdamW, as in the recipes for small images."""
        return torch.optim.AdamW(model.parameters(), lr=self.options.lr, weight_decay=0.0)

    def loader(self, way: Method) -> data.TensorLoader:
        """A shuffled loader of the training images, whose minibatches have m examples with all versions."""
        return data.TensorLoader(
            self.train, self.options.m // way.versions, space=SPACE, seed=self.options.seed, device=self.device
        )


def _first(images: data.ImageSet, limit: int | None) -> data.ImageSet:
    return data.ImageSet(images.images[:limit], images.labels[:limit], images.classes)


# --- what it costs ---------------------------------------------------------------------------------------------------


def count_passes(bench: Bench, way: Method) -> tuple[float, float, float]:
    """Passes per example of an iteration: forward, backward to the weights, and backward to the images only."""
    model = bench.network()
    task, optimizer = way.task(model), bench.optimizer(model)
    images, labels = next(bench.loader(way).epoch(0))
    way.step(task, optimizer, images.clone(), labels)  # the first one has checks, which also run the networks
    rows = {"forward": 0, "backward": 0, "weights": 0}
    shown = 0  # in training mode, since the last backward pass to the weights

    def forward(module: nn.Module, inputs: tuple[Tensor], logits: Tensor) -> None:
        nonlocal shown
        shown += len(logits) if module.training else 0
        rows["forward"] += len(logits)
        logits.register_hook(backward)

    def backward(grad: Tensor) -> None:
        rows["backward"] += len(grad)

    def accumulated(_: Tensor) -> None:
        nonlocal shown
        rows["weights"] += shown
        shown = 0

    hooks = [network.register_forward_hook(forward) for network in (model, *way.sources)]
    next(model.parameters()).register_post_accumulate_grad_hook(accumulated)
    way.step(task, optimizer, images, labels)
    for hook in hooks:
        hook.remove()  # sources are used again
    m = bench.options.m
    return rows["forward"] / m, rows["weights"] / m, (rows["backward"] - rows["weights"]) / m


def timed(bench: Bench, ways: list[Method], rounds: int) -> Interleaved:
    """Time an iteration on the same minibatch, with all ways in turns."""

    def iteration(way: Method) -> Callable[[], None]:
        images, labels = next(bench.loader(way).epoch(0))
        model = bench.network()
        task, optimizer = way.task(model), bench.optimizer(model)
        return lambda: way.step(task, optimizer, images.clone(), labels)

    interleaved = Interleaved({way.name: iteration(way) for way in ways}, clock=whole_seconds)
    for _ in range(rounds):
        interleaved.round()
    return interleaved


# --- what it is worth ------------------------------------------------------------------------------------------------


def static_sources(bench: Bench) -> tuple[list[nn.Module], float]:
    """Networks with other initial weights, trained in the standard way; also returns the seconds that it took."""
    standard = Method("standard", lambda model: AdversarialTask(model, k=0, space=SPACE))
    start = time.perf_counter()
    sources = [train(bench, standard, bench.options.epochs, number)[0] for number in range(1, SOURCES + 1)]
    return sources, time.perf_counter() - start


def train(bench: Bench, way: Method, epochs: int, number: int = 0) -> tuple[nn.Module, int]:
    """Train a network on each example ``epochs`` times; returns it and the number of weight updates."""
    model = bench.network(number)
    task, optimizer = way.task(model), bench.optimizer(model)
    loader = Replayed(bench.loader(way), way.replays)
    passes = epochs // way.passes
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, passes * len(loader))
    for epoch in range(passes):
        for images, labels in loader.epoch(epoch):
            way.step(task, optimizer, images, labels)
            schedule.step()
    return model, passes * len(loader)


def accuracies(bench: Bench, model: nn.Module, eps: float) -> list[str]:
    """Accuracy on clean test images and under each attack, with 95 % intervals."""
    loader = data.TensorLoader(bench.test, TEST_BATCH, space=SPACE, shuffle=False, drop_last=False, device=bench.device)
    counts = [evaluate(model, loader.epoch(0), space=SPACE)]
    for name, more in ATTACKS.items():
        counts.append(evaluate(model, loader.epoch(0), attack=name, eps=eps, space=SPACE, **more))
    return [str(proportion(count.top1, count.n)) for count in counts]


# --- as text ---------------------------------------------------------------------------------------------------------


def _title(attack: str) -> str:
    return f"{attack}-{ATTACKS[attack]['steps']}" if ATTACKS[attack] else attack


def _epochs(epochs: int, replays: int) -> str:
    return str(epochs) if replays == 1 else f"{epochs // replays} x {replays}"


def _per_thousand(timing: Timing, m: int) -> str:
    median, low, high = (1000 / m * seconds for seconds in (timing.median, timing.low, timing.high))
    return f"{median:.3g} ({low:.3g}-{high:.3g})"


def _notes(options: argparse.Namespace, bench: Bench, seconds: float) -> str:
    eps, most = f"{options.eps:g}", f"{2 * options.eps:g}"
    return (
        f"small_cnn of width {options.width:g}, m = {options.m}, AdamW with a learning rate of {options.lr:g}, decayed "
        f"to 0 by a cosine. Trained and attacked at eps = {eps} in pixel values of [0, 255]; Algorithm 1 and "
        f"pairs draw eps from |N(0, {eps})| truncated to [0, {most}], with lambda = 0.3; pairs show each image in two "
        f"versions per iteration, for half of the epochs. With static sources, the examples of each minibatch are made "
        f"on the network or on one of {SOURCES} others, trained before in the standard way; these {seconds:.0f} s are "
        f"not part of the cost. Passes are per example of an iteration, on all networks. "
        f"Seconds: median and quartiles of {options.rounds} rounds, in which all ways take turns; of standard: the "
        f"ratio within a round. Accuracy: on {len(bench.test):,} test images; Wilson's 95 % intervals account for the "
        f"sampling of these images, but not for the training, which was run once, with seed {options.seed}."
    )


if __name__ == "__main__":
    main()
