"""AdversarialTask: Algorithm 1 of the paper; MinibatchTask: what all tasks share."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn

from fastadv import attacks
from fastadv.attacks.engine.step_sizes import check_step
from fastadv.distributed import ALONE, current
from fastadv.eps import TruncatedNormalEps
from fastadv.pixels import PixelSpace
from fastadv.train.tasks.batch_reuse import AGAIN, tracked_overwrite
from fastadv.train.tasks.correct_counts import Accuracy, CorrectCounts, accuracy_of, count_correct
from fastadv.train.tasks.soft_labels import are_soft, check_distributions, mixed_cross_entropy
from fastadv.utils.input_hints import explain_model_errors, images_hint, labels_shape_hint, soft_labels_hint
from fastadv.utils.model_outputs import split_logits
from fastadv.utils.rng import RecordedDraws
from fastadv.utils.validation import check_aux_weight, check_count, check_label_smoothing, check_model, check_real

ALL = sys.maxsize  # as k: all examples of a minibatch, whatever its size
_TOO_FEW = (
    "k = {k} is more than the {m} images of the first minibatch: all of them become adversarial, and none stays clean. "
    "k is the number per minibatch, and per process if there are several"
)
_WRITES = (
    "the model overwrites its input, or something else wrote to its memory meanwhile: this minibatch no longer holds "
    "the images that the model was trained on. From now on the model is given a copy"
)


class MinibatchTask:
    """Computes the loss of a minibatch with a clean and an adversarial part, and counts correct examples of each.

    Args:
        model: [m, C, H, W] -> logits [m, K], or a named tuple of logits and auxiliary logits.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1).
        aux_weight: weight of the same loss at each of the model's auxiliary logits.

    Attributes:
        iteration: number of calls so far.

    Raises:
        ValueError: if aux_weight is negative, or label_smoothing is outside [0, 1).
        TypeError: if the model is not callable.
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
        """The paper's loss of images [m, C, H, W] whose first k are adversarial; one iteration."""
        outputs = self._outputs(images)
        loss = self._loss_of(outputs, labels, k, lambda_)
        self._count_iteration(outputs[0].detach(), labels, k)
        return loss

    def _outputs(self, images: Tensor) -> list[Tensor]:
        """Logits of images [m, C, H, W], and auxiliary logits if there are any: [m, K] each."""
        with explain_model_errors(self.model, images):
            logits, auxiliary = split_logits(self.model(images))
        return [logits, *auxiliary]

    def _loss_of(self, outputs: Sequence[Tensor], labels: Tensor, k: int, lambda_: float) -> Tensor:
        """The loss of :meth:`_outputs`, [m, K] each, whose first k rows are those of adversarial examples."""
        logits, *auxiliary = outputs
        loss = mixed_cross_entropy(logits, labels, k, lambda_, self.label_smoothing)
        for aux in auxiliary:
            loss = loss + self.aux_weight * mixed_cross_entropy(aux, labels, k, lambda_, self.label_smoothing)
        return loss

    def _count_iteration(self, logits: Tensor, labels: Tensor, k: int) -> None:
        self._last = logits, labels, k
        self.iteration += 1

    def accuracy(self) -> Accuracy:
        """Accuracy on the minibatch of the last call; only this method waits for it to be computed.

        With soft labels, the most probable class counts.
        """
        if self._last is None:
            return Accuracy(None, None)
        counts = self.hits()
        return accuracy_of(counts.correct.tolist(), counts.examples)

    def hits(self) -> CorrectCounts:
        """Count correct examples in the minibatch of the last call, without waiting for the device.

        Raises:
            RuntimeError: if there was no call.
        """
        if self._last is None:
            raise RuntimeError("there is no minibatch yet: call the task first")
        logits, labels, k = self._last  # [m, K], [m] or [m, K]
        return count_correct(logits, labels, k)


class AdversarialTask(MinibatchTask):
    """Makes the first k examples of a minibatch adversarial and returns the paper's loss (section 3, Algorithm 1).

    The model may be wrapped by ``DistributedDataParallel`` or ``torch.compile``: examples are generated on the raw
    module, and the training pass goes through the wrapper. If torch.distributed has a process group, m and k are per
    process, and each process draws the random numbers of its part of the global minibatch.

    Args:
        model: [m, C, H, W] -> logits [m, K], or, like Inception v3, a named tuple of logits and auxiliary logits.
        attack: one of ``fastadv.attacks.names()``, or your own class derived from ``fastadv.attacks.Attack``.
        k: adversarial examples per minibatch; 0 is standard training. In a smaller minibatch, such as an uneven last
            one, all examples become adversarial: min(k, m).
        lambda_: weight of an adversarial example in the loss; a clean one weighs 1.
        eps: size of the perturbation in pixel values: a number, or a distribution to draw from for each example.
        space: how the images were normalised.
        start_after: iterations on clean examples only before adversarial training starts.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1), in the loss and in the cost that
            the attack follows. It can reverse attacks that lead away from a class: if that class has a probability
            above 1 - label_smoothing * (1 - 1 / K), with K classes, the smoothed cost grows with it, and the attack
            moves the example towards the class. ``attack_options={"label_smoothing": 0.0}`` leaves it out of the
            attack.
        aux_weight: weight of the same loss at each of the model's auxiliary logits, if it returns any; 0.4 is
            Inception's.
        seed: fixes the attack's random draws; None draws from PyTorch's default generator.
        attack_options: further keyword arguments of ``fastadv.attacks.create``, such as ``bn``.

    Raises:
        ValueError: if k, ``lambda_``, start_after or aux_weight is negative, label_smoothing is outside [0, 1), the
            attack is unknown or steps towards the labels, attack_options sets what the task has arguments for, or alpha
            is 0.
        TypeError: if k or start_after is not an integer, or the attack is neither a name nor a class.

    Warns:
        UserWarning: if a minibatch comes a second time: the first call overwrote it, so train on fresh copies. Also,
            once, if the first minibatch has fewer than k images, or if the model overwrites its input, and with it the
            caller's minibatch.
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
        self.attack.true_labels(None)  # raises now what it would raise in the first call
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
            TypeError: if images are not floating point, labels are neither int64 nor soft, or the model returns neither
                logits nor a named tuple that starts with them.
            ValueError: if images are empty, require a gradient or do not fit the model, there is not one label per
                image, soft labels are not distributions (on a GPU: the loss is NaN) or the attack uses the true label,
                or the logits are of a single class. Also if labels are not among the model's classes, or soft labels
                have another number of classes; then the first k images are adversarial already.
        """
        check_minibatch(images, labels)
        if self.k and self.attack.needs_labels and are_soft(labels):
            raise ValueError(
                f"{self.attack.name} uses the true label, which soft labels {list(labels.shape)} do not give: choose "
                f"an attack that does not, such as step_ll"
            )
        self._join_processes()
        if self.iteration == 0 and len(images) < self.k < ALL:
            warnings.warn(_TOO_FEW.format(k=self.k, m=len(images)), stacklevel=2)
        k = self.adversarial_of(len(images))
        if k:
            with tracked_overwrite(images) as again:
                if again:
                    warnings.warn(AGAIN, stacklevel=2)
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
        """Context for a call that a CUDA graph records; it does not count. Call :meth:`replay` before each replay."""
        iteration = self.iteration
        try:
            with self.attack.stream.recorded(draws):
                yield
        finally:
            self.iteration = iteration

    def replay(self, draws: RecordedDraws) -> None:
        """Count a call whose work is replayed from a graph, and set the random numbers for its examples."""
        self.iteration += 1
        self.attack.stream.replay(draws)

    def _join_processes(self) -> None:
        """Split the attack's draws among the current processes: the group may have been created after the task."""
        processes = current()
        if processes != self._processes:  # otherwise the user's own split stays
            self._processes = processes
            self.attack.stream.split(processes.rank, processes.world_size)

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint: the iteration, and the position in the attack's random draws.

        Without ``seed``, draws follow PyTorch's default generator, which is not included: save
        ``torch.get_rng_state()`` too.
        """
        return {"iteration": self.iteration, "stream": self.attack.stream.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a :meth:`state_dict`.

        Raises:
            ValueError: if it is the state of another kind of object.
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
    """Autograd's count of in-place writes to a tensor; 0 for inference tensors, which have none."""
    return 0 if images.is_inference() else images._version


def checked_options(options: object, taken: Sequence[str], why: str) -> dict[str, Any]:
    """Check ``attack_options`` and return them as a dictionary.

    Args:
        options: a mapping, or None for no options.
        taken: names that must not be set.
        why: the reason, for the message.

    Raises:
        ValueError: if one of ``taken`` is set.
        TypeError: if ``options`` is not a mapping.
    """
    if not isinstance(options, (Mapping, NoneType)):
        raise TypeError(f"attack_options must map names to values, got {type(options).__name__}")
    given = dict(options or {})
    for name in taken:
        if name in given:
            raise ValueError(f"attack_options must not set {name}: {why}")
    return given


def check_state(whose: str, keys: tuple[str, str], state: object) -> None:
    """Check that a state has the keys of a task's ``state_dict``.

    Raises:
        ValueError: if it has not.
    """
    if not isinstance(state, Mapping) or set(state) != set(keys):
        got = ", ".join(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(f"{whose}'s state has the keys {' and '.join(keys)}, got {got or 'none'}")


def check_minibatch(images: Tensor, labels: Tensor) -> None:
    """Check images [m, C, H, W] and labels, [m] or soft; raises what a task's ``__call__`` documents."""
    if not isinstance(images, Tensor) or not images.is_floating_point():
        raise TypeError(f"images must be floating point, {images_hint(images)}")
    if images.dim() == 0 or len(images) == 0:
        raise ValueError(f"the minibatch must have at least one image, got images {list(images.shape)}")
    if images.requires_grad:
        raise ValueError(
            "images must not require a gradient, because the task computes one itself: pass images.detach()"
        )
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
