"""The attacks that :func:`fastadv.evaluate.evaluate` takes: named, with options, as a class, or created."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor, nn

from fastadv import attacks
from fastadv.evaluate.attack_specs import attack_class, parse_attack, takes_early_stop
from fastadv.evaluate.hits import Hits
from fastadv.evaluate.records import CLEAN
from fastadv.pixels import PixelSpace
from fastadv.utils.stacklevel import user_stacklevel

AttackLike: TypeAlias = "str | type[attacks.Attack] | attacks.Attack"


@dataclass(frozen=True, eq=False)
class UnderAttack:
    """An attack on the images of an evaluation, or none.

    Args:
        name: for results.
        attack: makes the adversarial images; None leaves them clean.
        eps: sizes in pixel values.
    """

    name: str
    attack: attacks.Attack | None
    eps: Sequence[float]

    def candidates(self, images: Tensor, labels: Tensor) -> Iterable[Tensor]:
        """Return the images [m, C, H, W] at each of the sizes, for true labels [m]."""
        if self.attack is None:
            return [images]
        return self.attack.at_each(images, self.attack.true_labels(labels), eps=self.eps)

    def meaningful(self, found: Hits) -> Hits:
        """Drop the hits at top 5 if images leave the attack as soon as top 1 is wrong."""
        return Hits(found.top1, None) if self.attack is not None and self.attack.stops_early else found

    @property
    def without_gradient(self) -> Tensor | None:
        """How many of the last images had no usable gradient, see :class:`fastadv.attacks.Attack`."""
        return None if self.attack is None else self.attack.without_gradient

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Within the block, count images without gradient; the range of pixels is checked by the evaluation."""
        if self.attack is None:
            yield
            return
        before = self.attack.counting, self.attack.looks
        self.attack.counting, self.attack.looks = True, False
        try:
            yield
        finally:
            self.attack.counting, self.attack.looks = before


def one_attack(
    given: AttackLike,
    model: nn.Module,
    *,
    eps: float | None,
    options: Mapping[str, Any],
    **common: Any,
) -> UnderAttack:
    """Prepare an attack with one size; see :func:`fastadv.evaluate.evaluate` for arguments and errors."""
    if isinstance(given, str) and given == CLEAN:
        if eps or options:
            raise ValueError(f"clean images take no eps and no options, got eps={eps} and {dict(options)}")
        return UnderAttack(CLEAN, None, [0.0])
    if isinstance(given, attacks.Attack):
        size = given.eps if eps is None else eps
        if not isinstance(size, (int, float)):
            raise TypeError(f"{given.name} has eps={size}: give the evaluation one number for all images, by eps=")
        under = sizes_of_attack(given, model, eps=[size], options=options, **common)
        if isinstance(given.eps, (int, float)) and size != given.eps:
            warnings.warn(
                f"{given.name} was created with eps={given.eps:g}, and is measured with the eps={size:g} of this "
                f"evaluation: leave eps out for its own",
                stacklevel=user_stacklevel(),
            )
        return under
    if eps is None:
        name = given if isinstance(given, str) else getattr(given, "__name__", given)
        raise ValueError(f"{name} needs eps, in pixel values")
    return sizes_of_attack(given, model, eps=[eps], options=options, **common)


def sizes_of_attack(
    given: AttackLike,
    model: nn.Module,
    *,
    eps: Sequence[float],
    space: PixelSpace,
    seed: int,
    early_stop: bool,
    options: Mapping[str, Any],
) -> UnderAttack:
    """Prepare an attack with several sizes; see :func:`fastadv.evaluate.evaluate_each` for arguments and errors."""
    if isinstance(given, attacks.Attack):
        return UnderAttack(given.name, _created(given, space, options), eps)
    if isinstance(given, str) and given == CLEAN:
        return UnderAttack(CLEAN, None, eps)
    kind, own = given, dict(options)
    if isinstance(given, str) and ":" in given:
        _, parsed = parse_attack(given, model)
        if twice := sorted(parsed.keys() & own.keys()):
            raise ValueError(f"{', '.join(twice)}: given in {given!r} and as a keyword")
        kind, own = attack_class(given), {**parsed, **own}
    if early_stop and takes_early_stop(attacks.get(kind) if isinstance(kind, str) else kind):
        own.setdefault("early_stop", True)
    attack = attacks.create(kind, model, space=space, seed=seed, **own)
    return UnderAttack(given if isinstance(given, str) else attack.name, attack, eps)


def several_attacks(given: Sequence[AttackLike], model: nn.Module, **common: Any) -> list[UnderAttack]:
    """Prepare attacks that are measured together; "clean" may be among them, and is measured anyway.

    Raises:
        ValueError: if there are none, or two have one name.
    """
    named = [one for one in given if not (isinstance(one, str) and one == CLEAN)]
    if not named:
        raise ValueError("the list of attacks is empty: name one or more, as in ['fgsm', 'pgd:steps=20']")
    under = [one_attack(one, model, **common) for one in named]
    names = [CLEAN, *(one.name for one in under)]  # clean images are measured as well
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"two attacks are called {', '.join(twice)}: name each with its options, as in 'pgd:steps=20', or give the "
            "class of one of them another name"
        )
    return under


def _created(attack: attacks.Attack, space: PixelSpace, options: Mapping[str, Any]) -> attacks.Attack:
    """Check an attack that was created: its options were given then, and its space must be the images'."""
    if options:
        raise ValueError(f"{attack.name} was created with its options, and takes no others here: {', '.join(options)}")
    if attack.space != space:
        raise ValueError(f"{attack.name} was created for images in {attack.space}, and these are in {space}")
    return attack
