"""Tasks, for any training loop: what all of them do, and AdversarialTask, Algorithm 1 of the paper."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import NoneType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastadv import attacks
from fastadv.attacks.engine.step_sizes import check_step
from fastadv.distributed import ALONE, current
from fastadv.eps import TruncatedNormalEps
from fastadv.pixels import PixelSpace
from fastadv.train.tasks.batch_reuse import overwriting
from fastadv.train.tasks.soft_labels import are_soft, check_distributions, mixed_cross_entropy
from fastadv.utils.input_hints import explain_model_errors, images_hint, labels_shape_hint, soft_labels_hint
from fastadv.utils.model_outputs import split_logits
from fastadv.utils.rng import RecordedDraws
from fastadv.utils.validation import check_aux_weight, check_count, check_label_smoothing, check_model, check_real

ALL = sys.maxsize  # as k: every example of a minibatch, however large that is
_AGAIN = (
    "this minibatch was made adversarial by an earlier call, and no operator of PyTorch has filled it anew: the "
    "perturbations add up. Pass a copy, images.clone(), of images that are used more than once, and of a buffer that "
    "is filled past PyTorch, such as by NumPy"
)
_WRITES = (
    "the model overwrites its input, or something else wrote to its memory meanwhile: the images of this minibatch are "
    "no longer those that it was shown. From now on it is given a copy"
)


class Accuracy(NamedTuple):
    """Shares of one minibatch's examples that were classified correctly; None where there was no such example."""

    clean: float | None
    adversarial: float | None


class Hits(NamedTuple):
    """Of one minibatch, clean and adversarial: how many examples were classified correctly, and how many there were."""

    correct: Tensor  # [2], on the model's device
    examples: tuple[int, int]


class MinibatchTask:
    """The forward pass of a minibatch, the loss of its two parts, and how many of each were classified correctly.

    Args:
        model: [m, C, H, W] -> logits [m, K], or a named tuple of logits and auxiliary logits.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1).
        aux_weight: weight of the same loss at each of the model's auxiliary logits.

    Attributes:
        iteration: calls so far.

    Raises:
        ValueError: a negative aux_weight, or label_smoothing outside [0, 1).
        TypeError: a model that cannot be called.
    """

    def __init__(self, model: nn.Module, *, label_smoothing: float, aux_weight: float) -> None:
        check_model(model)
        check_aux_weight(aux_weight)
        check_label_smoothing(label_smoothing)
        self.model = model
        self.label_smoothing = label_smoothing
        self.aux_weight = aux_weight
        self.iteration = 0
        self._last: tuple[Tensor, Tensor, int] | None = None

    def _loss(self, images: Tensor, labels: Tensor, k: int, lambda_: float) -> Tensor:
        """The paper's loss of images [m, C, H, W], of which the first k are adversarial already."""
        with explain_model_errors(self.model, images):
            logits, auxiliary = split_logits(self.model(images))  # [m, K], list of [m, K]
        loss = mixed_cross_entropy(logits, labels, k, lambda_, self.label_smoothing)
        for aux in auxiliary:
            loss = loss + self.aux_weight * mixed_cross_entropy(aux, labels, k, lambda_, self.label_smoothing)
        self._last = logits.detach(), labels, k
        self.iteration += 1
        return loss

    def accuracy(self) -> Accuracy:
        """Accuracy on the minibatch of the last call. Computed, and waited for, only when asked.

        Of soft labels, the likeliest class counts.
        """
        if self._last is None:
            return Accuracy(None, None)
        hits = self.hits()
        shares = (hit / n if n else None for hit, n in zip(hits.correct.tolist(), hits.examples, strict=True))
        return Accuracy(*shares)

    def hits(self) -> Hits:
        """Of the minibatch of the last call, without waiting for the device.

        Raises:
            RuntimeError: there was no call.
        """
        if self._last is None:
            raise RuntimeError("there is no minibatch yet: call the task first")
        logits, labels, k = self._last  # [m, K], [m] or [m, K]
        if are_soft(labels):
            labels = labels.argmax(dim=1)  # [m]
        correct = logits.argmax(dim=1) == labels  # [m]
        return Hits(torch.stack([correct[k:].sum(), correct[:k].sum()]), (len(labels) - k, k))


class AdversarialTask(MinibatchTask):
    """Makes the first k examples of a minibatch adversarial and returns the paper's loss (section 3, Algorithm 1).

    The model may be wrapped by ``DistributedDataParallel`` or ``torch.compile``: examples are generated on the raw
    module, the training forward goes through the wrapper. Where torch.distributed has a process group when the task is
    called, m and k are those of each process, and each draws the numbers of its own part of the global minibatch.

    Args:
        model: [m, C, H, W] -> logits [m, K], or, like Inception v3, a named tuple of logits and auxiliary logits.
        attack: one of ``fastadv.attacks.names()``, or a class of one's own derived from ``fastadv.attacks.Attack``.
        k: adversarial examples per minibatch; 0 is standard training. A smaller minibatch, such as an uneven last
            one, becomes adversarial as far as it goes: min(k, m).
        lambda_: weight of an adversarial example in the loss; a clean one weighs 1.
        eps: size of the perturbation in pixel values: a number, or a distribution to draw from for each example.
        space: how the images were normalised.
        start_after: iterations on clean examples only before adversarial training starts.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1), in the loss and in the cost that
            the attack follows. It turns attacks that lead away from a class: where that class has a probability above
            1 - label_smoothing * (1 - 1 / K), of K classes, the smoothed cost grows with it, and the attack moves the
            example towards its class. ``attack_options={"label_smoothing": 0.0}`` leaves it out of the attack.
        aux_weight: weight of the same loss at each of the model's auxiliary logits, if it returns any; 0.4 is
            Inception's.
        seed: fixes the attack's random draws; None draws from PyTorch's default generator.
        attack_options: further options of the attack as a dictionary, such as ``{"bn": "batch"}``: those of
            ``fastadv.attacks.create``.

    Raises:
        ValueError: a negative k, ``lambda_``, start_after or aux_weight, label_smoothing outside [0, 1), an unknown
            attack or one that steps towards the labels, attack_options that the task has arguments for, or an alpha
            of 0.
        TypeError: k or start_after that is not an integer, an attack that is neither a name nor a class.

    Warns:
        UserWarning: a minibatch that comes a second time. The first call overwrote it: train on fresh copies. Also,
            once, a model that overwrites its input, and with it the caller's minibatch.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        attack: str | type[attacks.Attack] = "step_ll",
        k: int = 16,
        lambda_: float = 0.3,
        eps: float | TruncatedNormalEps = TruncatedNormalEps(),
        space: PixelSpace,
        start_after: int = 0,
        label_smoothing: float = 0.0,
        aux_weight: float = 0.4,
        seed: int | None = None,
        attack_options: dict[str, Any] | None = None,
    ) -> None:
        for name, count in (("k", k), ("start_after", start_after)):
            check_count(name, count, least=0)
        check_real("lambda_", lambda_, least=0)
        given = checked_options(attack_options, ("eps", "space", "seed"), "it is an argument of the task")
        super().__init__(model, label_smoothing=label_smoothing, aux_weight=aux_weight)
        options: dict[str, Any] = {"eps": eps, "space": space, "seed": seed, "label_smoothing": label_smoothing}
        self.attack = attacks.create(attack, model, **options | given)
        self.attack.true_labels(None)  # refuses here what it would refuse at the first call
        if k and (alpha := getattr(self.attack, "alpha", None)) is not None:
            check_step(alpha)
        self._processes = ALONE
        self._join_processes()
        self.k = k
        self.lambda_ = lambda_
        self.start_after = start_after
        self._model_writes = False

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of one minibatch; call ``backward()`` on it.

        Args:
            images: [m, C, H, W]; the first k are replaced in place by their adversarial counterparts.
            labels: [m] int64, or soft labels, probabilities [m, K] such as Mixup's, for an attack that does not use the
                true label.

        Raises:
            TypeError: images that are not floating point, labels that are neither int64 nor soft, a model that returns
                neither logits nor a named tuple that begins with them.
            ValueError: images that require a gradient or that the model does not take, none at all, or as many labels
                as there are not images; soft labels that are no distributions (on a GPU: a loss of NaN), or for an
                attack that uses the true label; logits of one class. Also labels that are none of the
                model's classes, or soft labels of another number of them, which shows when the first k images are
                adversarial already.
        """
        check_minibatch(images, labels)
        if self.k and self.attack.needs_labels and are_soft(labels):
            raise ValueError(
                f"{self.attack.name} uses the true label, and soft labels {list(labels.shape)} name none: choose an "
                f"attack that does without, such as step_ll"
            )
        self._join_processes()
        k = self.adversarial_of(len(images))
        if k:
            with overwriting(images) as again:
                if again:
                    warnings.warn(_AGAIN, stacklevel=2)
                self.attack.perturb_(images[:k], self.attack.true_labels(labels[:k]))
        shown, before = images.clone() if self._model_writes else images, _version(images)
        loss = self._loss(shown, labels, k, self.lambda_)
        if _version(images) != before:
            self._model_writes = True
            warnings.warn(_WRITES, stacklevel=2)
        return loss

    def adversarial_of(self, m: int) -> int:
        """How many of the next minibatch's m examples become adversarial."""
        return min(self.k, m) if self.iteration >= self.start_after else 0

    @contextmanager
    def recorded(self, draws: RecordedDraws) -> Iterator[None]:
        """Around a call that a CUDA graph records, which is no iteration: :meth:`replay` goes before each replay."""
        iteration = self.iteration
        try:
            with self.attack.stream.recorded(draws):
                yield
        finally:
            self.iteration = iteration

    def replay(self, draws: RecordedDraws) -> None:
        """Count a call whose work is replayed from a graph, and give it the random numbers of its own examples."""
        self.iteration += 1
        self.attack.stream.replay(draws)

    def _join_processes(self) -> None:
        """Split the attack's draws among the processes as they are now: the group may be younger than the task."""
        processes = current()
        if processes != self._processes:  # else a split of the user's own stays
            self._processes = processes
            self.attack.stream.split(processes.rank, processes.world_size)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs: where the delayed start and the attack's random draws stand.

        Without a ``seed`` draws follow PyTorch's default generator, which is not in it: save ``torch.get_rng_state()``.
        """
        return {"iteration": self.iteration, "stream": self.attack.stream.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            ValueError: a dictionary that another object's ``state_dict`` made.
        """
        check_state("an AdversarialTask", ("iteration", "stream"), state)
        self.iteration = state["iteration"]
        self.attack.stream.load_state_dict(state["stream"])

    def __repr__(self) -> str:
        return (
            f"AdversarialTask(attack={self.attack}, k={'all' if self.k == ALL else self.k}, lambda_={self.lambda_}, "
            f"start_after={self.start_after}, label_smoothing={self.label_smoothing}, aux_weight={self.aux_weight}, "
            f"iteration={self.iteration})"
        )


def _version(images: Tensor) -> int:
    """How often a tensor was written to, as far as autograd knows."""
    return 0 if images.is_inference() else images._version


def checked_options(options: object, taken: Sequence[str], why: str) -> dict[str, Any]:
    """``attack_options`` as a dictionary.

    Args:
        options: a mapping, or None for none.
        taken: names that they must not set.
        why: they must not, for the message.

    Raises:
        ValueError: a name that is taken.
        TypeError: something other than a mapping.
    """
    if not isinstance(options, (Mapping, NoneType)):
        raise TypeError(f"attack_options must map names to values, got {type(options).__name__}")
    given = dict(options or {})
    for name in taken:
        if name in given:
            raise ValueError(f"attack_options must not set {name}: {why}")
    return given


def check_state(whose: str, keys: tuple[str, str], state: object) -> None:
    """Refuse what a task's own ``state_dict`` did not make.

    Raises:
        ValueError: that.
    """
    if not isinstance(state, Mapping) or set(state) != set(keys):
        got = ", ".join(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(f"{whose}'s state has the keys {' and '.join(keys)}, got {got or 'none'}")


def check_minibatch(images: Tensor, labels: Tensor) -> None:
    """Raise for images [m, C, H, W] and labels, [m] or soft, that no task takes; see its ``__call__``."""
    if not isinstance(images, Tensor) or not images.is_floating_point():
        raise TypeError(f"images must be floating point, {images_hint(images)}")
    if images.dim() == 0 or len(images) == 0:
        raise ValueError(f"the minibatch must have an image or more, got images {list(images.shape)}")
    if images.requires_grad:
        raise ValueError("images must not require a gradient, which a task works with itself: pass images.detach()")
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be an int64 tensor, got {type(labels).__name__}")
    soft = are_soft(labels)
    if labels.dtype != torch.int64 and not soft:
        raise TypeError(f"labels must be an int64 tensor, got {labels.dtype}{soft_labels_hint(labels)}")
    if labels.dim() != 1 + soft or len(labels) != len(images):
        hint = labels_shape_hint(images, labels)
        raise ValueError(f"labels must be one class per image, [{len(images)}], got {list(labels.shape)}{hint}")
    if soft:
        check_distributions(labels)
