"""What a checker of types makes of attacks: test_types.py runs mypy on this file, and nobody runs it.

An ``ignore`` stands where an error belongs; mypy objects to one that is not needed.
"""

# mypy: warn-unused-ignores

from __future__ import annotations

from torch import Tensor, nn
from typing_extensions import assert_type

from fastadv import PixelSpace, TruncatedNormalEps, attacks


def right(model: nn.Module, images: Tensor, labels: Tensor, name: str, kind: str | type[attacks.Attack]) -> None:
    attack = attacks.FGSM(model, eps=8, space=PixelSpace.imagenet(), bn="batch", capture=True)
    assert_type(attack, attacks.FGSM)
    assert_type(attack(images, labels), Tensor)
    assert_type(attack.perturb_(images, labels, eps=TruncatedNormalEps()), Tensor)
    assert_type(attack.eps, float | Tensor | TruncatedNormalEps)
    assert_type(attacks.RandomSign(model, seed=1), attacks.RandomSign)
    assert_type(attacks.IterLL(model, alpha=1, steps=None, fold_bn=True), attacks.IterLL)
    assert_type(attacks.PGD(model, random_start=False, steps=5), attacks.PGD)
    assert_type(attacks.PGD(model, norm="l2", targets="random", restarts=2, loss="dlr", eot=2), attacks.PGD)
    assert_type(attacks.APGDCE(model, restarts=2, eot=2), attacks.APGDCE)
    assert_type(attacks.MIFGSM(model, decay=0.5, label_smoothing=0.1, fast=True), attacks.MIFGSM)
    assert_type(attacks.create("fgsm", model), attacks.Attack)
    assert_type(attacks.create(name, model, eps=4), attacks.Attack)
    assert_type(attacks.create(attacks.PGD, model, steps=5), attacks.PGD)
    assert_type(attacks.create(kind, model), attacks.Attack)


def wrong(model: nn.Module, images: Tensor) -> None:
    attacks.FGSM(model, epsilon=8)  # type: ignore[call-arg]
    attacks.FGSM(model, 8)  # type: ignore[call-arg]
    attacks.FGSM(model, eps="8")  # type: ignore[arg-type]
    attacks.FGSM(model, steps=5)  # type: ignore[call-arg]
    attacks.FGSM()  # type: ignore[call-arg]
    attacks.RandomSign(model, capture=True)  # type: ignore[call-arg]
    attacks.PGD(model, targeted="yes")  # type: ignore[arg-type]
    attacks.MIFGSM(model, norm="l2")  # type: ignore[call-arg]
    attacks.PGD(model, decay=0.5)  # type: ignore[call-arg]
    attacks.MIFGSM(model, capture="yes")  # type: ignore[arg-type]
    attacks.FGSM(model)(images, epsilon=8)  # type: ignore[call-arg]
    print(attacks.FGSM(model).epsilon)  # type: ignore[attr-defined]


class OwnLoss(attacks.PGD):
    name = "own loss"

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:  # [N, K], [N] -> [N]
        return super().loss(logits, target)


class NoLoss(attacks.PGD):
    def loss(self, logits: Tensor) -> Tensor:  # type: ignore[override]
        return logits


def own(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    assert_type(OwnLoss(model, eps=8)(images, labels), Tensor)
    OwnLoss(model, epsilon=8)  # type: ignore[call-arg]
