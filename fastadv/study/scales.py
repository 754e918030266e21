"""The scales at which the studies run: data, networks, sizes and counts, fixed here and nowhere else.

What is fixed for the small scales was fixed from accuracies of a network trained as usual, before any claim was looked
at: the smallest eps takes a little of its accuracy under step l.l., the largest next to all. ``why`` says so for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastadv.attacks import get as find_attack
from fastadv.attacks.iterative import IterativeAttack
from fastadv.study.evaluations import Robustness
from fastadv.study.networks import Network, vary
from fastadv.train.config import (
    AttackConfig,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from fastadv.train.config_parsing import parse_config, read_recipe
from fastadv.utils.text import counted

PAPER_ITERATIONS = 150_000
PAPER_M = 32
_IMAGENET_TRAIN, _IMAGENET_TEST, _MACHINES = 1_281_167, 50_000, 50


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Where a study runs.

    Args:
        name: "small" or "imagenet".
        base: adversarial training by step l.l. as the paper's main network has it; all others vary it.
        train_images: of the data set.
        test_images: of the data set.
        classes: of the data set.
        channels: of an image.
        image_size: side of an image in pixels.
        eps: four sizes at which networks are measured, in the places of the paper's 2, 4, 8 and 16.
        limit: test images for methods of one step; None for all.
        iterative_limit: test images for iterative methods, which take some ten times as long.
        transfer_limit: images of the transfer study.
        widths: rho of the capacity study.
        deeper: what makes the deeper network of Table 1.
        other: what makes network D of the transfer study, another architecture.
        iterative: options of iterative attacks in training.
        fixed: indices into ``eps`` of the sizes of the networks that are trained at one size.
        of_table3: what differs for Table 3.
        of_table5: what differs for Table 5.
        why: the reasons for these numbers.
        cut: what was changed for a quick look, as a phrase that a reader sees first; "" if nothing was.
    """

    name: str
    base: TrainConfig = field(repr=False)
    train_images: int
    test_images: int
    classes: int
    channels: int
    image_size: int
    eps: tuple[float, float, float, float]
    limit: int | None
    iterative_limit: int | None
    transfer_limit: int = 1000
    widths: tuple[float, ...]
    deeper: Mapping[str, Any]
    other: Mapping[str, Any]
    iterative: Mapping[str, Any]
    fixed: tuple[int, int] = (1, 3)
    of_table3: Mapping[str, Any] = field(default_factory=dict)
    of_table5: Mapping[str, Any] = field(default_factory=dict)
    why: str
    cut: str = ""

    @property
    def account(self) -> str:
        """What was chosen and why, after what was cut from it."""
        return f"This study was {self.cut}. Of the scale as a whole: {self.why}" if self.cut else self.why

    def adversarial(self, name: str, changes: Mapping[str, Any] | None = None) -> Network:
        """The paper's main network with some changes."""
        return Network(name, vary(self.base, changes or {}))

    def standard(self, name: str, changes: Mapping[str, Any] | None = None) -> Network:
        """The same trained without adversarial examples."""
        return Network(name, vary(self.base, {"attack.k": 0, **(changes or {})}))

    def sweep(self, networks: Iterable[Network], attacks: Sequence[str]) -> list[Robustness]:
        """Every network under each attack, methods of one step on more images than iterative ones."""
        every = tuple(networks)
        iterative = tuple(name for name in attacks if issubclass(find_attack(name), IterativeAttack))
        parts = [
            Robustness(every, tuple(name for name in attacks if name not in iterative), self.eps, self.limit),
            Robustness(every, iterative, self.eps, self.iterative_limit),
        ]
        return [part for part in parts if part.attacks]

    def iterations(self, of_paper: int) -> int:
        """So many of the paper's 150,000 iterations, as a share of this scale's."""
        per_epoch = self.train_images // self.base.m // self.base.accumulate
        return round(of_paper / PAPER_ITERATIONS * self.base.epochs * per_epoch)

    def shortened(self, *, epochs: int | None, limit: int | None) -> Scale:
        """For a quick look: fewer passes over the training set, and fewer test images.

        Args:
            epochs: None leaves them.
            limit: None leaves them.
        """
        scale = self
        cut: list[str] = []
        if epochs is not None:
            scale = replace(scale, base=vary(scale.base, {"epochs": epochs}), of_table5={})
            scale = replace(scale, base=vary(scale.base, {"attack.start_after": scale.iterations(10_000)}))
            cut += _epochs_cut(self, epochs)
        if limit is not None:
            scale = replace(
                scale,
                limit=_least(scale.limit, limit),
                iterative_limit=_least(scale.iterative_limit, limit),
                transfer_limit=_least(scale.transfer_limit, limit),
            )
            cut += _images_cut(self, limit)
        word = "cut short" if scale.base.epochs <= self.base.epochs else "changed"
        return replace(scale, cut=f"{word}: {'; '.join(cut)}") if cut else scale


def _epochs_cut(scale: Scale, epochs: int) -> list[str]:
    whole = {"": scale.base.epochs, " in Table 5": scale.of_table5.get("epochs", epochs)}
    cut = [f"{number}{where}" for where, number in whole.items() if number != epochs]
    return [f"{counted(epochs, 'epoch')} instead of {' and '.join(cut)}"] if cut else []


def _images_cut(scale: Scale, limit: int) -> list[str]:
    whole = {
        "for methods of one step": scale.limit or scale.test_images,
        "for iterative ones": scale.iterative_limit or scale.test_images,
        "for transfer": scale.transfer_limit,
    }
    cut = sorted({number for number in whole.values() if number > limit}, reverse=True)
    if not cut:
        return []
    places = [" and ".join(where for where, number in whole.items() if number == one) for one in cut]
    same = len(set(whole.values())) == 1  # for all alike
    parts = [f"{number:,}" + ("" if same else f" {where}") for number, where in zip(cut, places, strict=True)]
    return [f"{counted(limit, 'test image')} instead of {' and of '.join(parts)}"]


def _least(one: int | None, other: int) -> int:
    return other if one is None else min(one, other)


def fashion_mnist() -> Scale:
    """Fashion-MNIST on two cores."""
    scale = Scale(
        name="small",
        base=TrainConfig(
            data=DataConfig(name="fashion_mnist"),
            model=ModelConfig(options={"dropout": 0.1}),
            attack=AttackConfig(k=64, eps_sigma=16, eps_upper=32),
            optimizer=OptimizerConfig(name="adamw", lr=0.002, weight_decay=0.01),
            schedule=ScheduleConfig(name="cosine"),
            label_smoothing=0.1,
            epochs=3,
            m=128,
            fast=True,
        ),
        train_images=60_000,
        test_images=10_000,
        classes=10,
        channels=1,
        image_size=28,
        eps=(4, 8, 16, 32),
        limit=None,
        iterative_limit=1000,
        widths=(0.5, 1.0, 1.4, 2.0),
        deeper={"model.options.deeper": True},
        other={"model.name": "timm/resnet10t", "model.options": {"drop_rate": 0.1}},
        iterative={"alpha": 8, "steps": 5},
        why="Grey images of 28 x 28 need larger perturbations than the paper's photographs. Step l.l. leaves a "
        "network trained as usual for five epochs 82 % of the images at eps 4, 54 % at 8, 11 % at 16 and 3 % at 32 "
        "(after this scale's three epochs 86, 68, 19 and 4 %), so these take the places of 2, 4, 8 and 16, and "
        "training draws eps from |N(0, 16)| on [0, 32]: two standard deviations, as the paper's |N(0, 8)| on [0, 16]. "
        "m = 128 with k = 64 has the paper's k / m = 1/2 and lambda = 0.3. The rest is chosen for the time that two "
        "cores have: three epochs, 1,404 iterations, keep a network at about a minute; four widths span the paper's "
        "0.5 to 2 within the 20 minutes of a study; the deeper network has two more blocks, as the paper's has; D is "
        "timm's resnet10t, of residual blocks, for v4 is made for photographs; iterative methods, with up to 36 "
        "gradients an image, are shown 1,000 images, and in training take five steps of 8 in place of 36 of 1.",
    )
    return _delayed(scale)


def digits() -> Scale:
    """scikit-learn's digits, which need no files: seconds a network."""
    scale = replace(
        fashion_mnist(),
        base=vary(
            fashion_mnist().base,
            {
                "data.name": "digits",
                "attack.k": 16,
                "attack.eps_sigma": 32.0,
                "attack.eps_upper": 64.0,
                "epochs": 20,
                "m": 32,
            },
        ),
        train_images=1297,
        test_images=500,
        image_size=8,
        eps=(8, 16, 32, 64),
        iterative_limit=None,
        transfer_limit=500,
        iterative={"alpha": 16, "steps": 5},
        why="Digits of 8 x 8 bold pixels stay readable far beyond the paper's 16: a network trained as usual is barely "
        "attacked at 16 and wholly at 64, so 8, 16, 32 and 64 take the places of 2, 4, 8 and 16, and training draws "
        "eps from |N(0, 32)| on [0, 64], two standard deviations as in the paper. m, k and lambda are the paper's. "
        "Widths, depth and network D are Fashion-MNIST's. With 500 test images most differences are too small to tell.",
    )
    return _delayed(scale)


def imagenet() -> Scale:
    """The paper's own setting: ``fastadv train``'s recipe of it."""
    per_epoch = _IMAGENET_TRAIN // PAPER_M // _MACHINES
    return Scale(
        name="imagenet",
        base=vary(parse_config(read_recipe("inception_v3_step_ll")), {"accumulate": _MACHINES}),
        train_images=_IMAGENET_TRAIN,
        test_images=_IMAGENET_TEST,
        classes=1000,
        channels=3,
        image_size=299,
        eps=(2, 4, 8, 16),
        limit=None,
        iterative_limit=None,
        widths=(0.5, 0.75, 1.0, 1.5, 2.0),
        deeper={"model.options.deeper": True},
        other={"model.name": "inception_v4", "model.options": {"drop_rate": 0.2}},
        iterative={},
        of_table3={"optimizer.lr": 0.0225},
        of_table5={"epochs": round(90_000 / per_epoch)},
        why="The paper's: Inception v3 (the recipe inception_v3_step_ll) and v4, m = 32 on each of 50 machines, "
        "150,000 iterations, RMSProp as TensorFlow has it at 0.045, a delay of 10,000; Table 3 with 0.0225, Table 5 "
        "after 90,000. The paper's Table 2 is of 140,000 iterations; here it is of the networks of Table 1, after "
        "150,000. The paper is silent on dropout, label smoothing, weight decay, the schedule and averaging: 0.2, "
        "0.1, 0.00004, 0.94 every two epochs and 0.9999 are those that Inception v3 was published with. It is silent "
        "on augmentation, too, and on the widths between 0.5 and 2.",
    )


def _delayed(scale: Scale) -> Scale:
    """With the paper's delayed start: 10,000 of its 150,000 iterations."""
    return replace(scale, base=vary(scale.base, {"attack.start_after": scale.iterations(10_000)}))


SMALL = {"fashion_mnist": fashion_mnist, "digits": digits}
