"""What tasks share: the forward pass and the loss of a minibatch, and an attack whose state goes into checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import NoneType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastadv import attacks
from fastadv.attacks.engine.step_sizes import Eps
from fastadv.distributed import ALONE, current
from fastadv.eps import TruncatedNormalEps
from fastadv.pixels import PixelSpace
from fastadv.train.tasks.correct_counts import Accuracy, CorrectCounts, accuracy_of, count_correct
from fastadv.train.tasks.passes import Passes
from fastadv.train.tasks.soft_labels import are_soft, check_distributions, mixed_cross_entropy
from fastadv.utils.input_hints import (
    explain_label_errors,
    explain_model_errors,
    images_hint,
    labels_shape_hint,
    soft_labels_hint,
)
from fastadv.utils.model_outputs import split_logits
from fastadv.utils.validation import check_aux_weight, check_count, check_label_smoothing, check_model


class MinibatchTask:
    """Computes the loss of a minibatch with a clean and an adversarial part, and counts correct examples of each.

    Args:
        model: [m, C, H, W] -> logits [m, K]; or a named tuple, a dictionary or an object that holds
            ``logits``, and possibly auxiliary logits ``aux...``.
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
        self._passes = Passes()
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
        with explain_label_errors(type(self).__name__):
            loss = mixed_cross_entropy(logits, labels, k, lambda_, self.label_smoothing)
            for aux in auxiliary:
                loss = loss + self.aux_weight * mixed_cross_entropy(aux, labels, k, lambda_, self.label_smoothing)
        return loss

    def _count_iteration(self, logits: Tensor, labels: Tensor, k: int) -> None:
        self._last = logits, labels, k
        self.iteration += 1
        self.add_passes(Passes(forward=len(logits), backward=len(logits)))

    @property
    def steady_from(self) -> int:
        """The call, counted from 0, from which on all have the same :meth:`expected_passes`."""
        return 0

    def expected_passes(self, m: int, iteration: int) -> Passes:
        """Expected passes of a call on m images and of its backward pass, by the number of the call from 0."""
        return Passes(forward=m, backward=m)

    def add_passes(self, passes: Passes) -> None:
        """Count passes that were made, as in a call."""
        self._passes = self._passes.plus(passes)

    def take_passes(self) -> Passes:
        """The passes since the last call of this method; each loss counts as followed by its backward pass."""
        taken, self._passes = self._passes, Passes()
        return taken

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


class AttackTask(MinibatchTask):
    """A minibatch task that makes some of its examples adversarial by an attack on the current weights.

    Args:
        model: see :class:`MinibatchTask`, like label_smoothing and aux_weight.
        attack: one of ``fastadv.attacks.names()``, or your own class derived from ``fastadv.attacks.Attack``.
        eps: size of the perturbation in pixel values: a number, or a distribution to draw from for each example.
        space: how the images were normalised.
        start_after: iterations on clean examples only before adversarial training starts.
        eps_warmup: iterations from then on in which eps grows linearly from 0, and with it an alpha that is set.
        seed: fixes the attack's random draws; None draws from PyTorch's default generator.
        attack_options: further keyword arguments of ``fastadv.attacks.create``.

    Attributes:
        minibatches_per_iteration: calls that make up an iteration of ``eps_warmup``, in which eps stays the same.

    Raises:
        ValueError: if start_after or eps_warmup is negative, the attack is unknown or steps towards the labels, or
            attack_options sets what the task has arguments for.
        TypeError: if start_after or eps_warmup is not an integer, or the attack is neither a name nor a class.
    """

    minibatches_per_iteration = 1

    def __init__(
        self,
        model: nn.Module,
        attack: str | type[attacks.Attack],
        *,
        eps: float | TruncatedNormalEps,
        space: PixelSpace,
        start_after: int,
        eps_warmup: int,
        label_smoothing: float,
        aux_weight: float,
        seed: int | None,
        attack_options: object,
    ) -> None:
        check_count("start_after", start_after, least=0)
        check_count("eps_warmup", eps_warmup, least=0)
        given = checked_options(attack_options, ("eps", "space", "seed"), "it is an argument of the task")
        super().__init__(model, label_smoothing=label_smoothing, aux_weight=aux_weight)
        own: dict[str, Any] = {"eps": eps, "space": space, "seed": seed}
        self.attack = attacks.create(attack, model, **own, **given)
        if getattr(self.attack, "restarts", 1) > 1:
            raise ValueError(
                "restarts are for evaluations, which look for the worst image: in training, attack each once, "
                "as by attack_options={'restarts': 1}"
            )
        self.attack.true_labels(None)  # raises now what it would raise in the first call
        self.start_after = start_after
        self.eps_warmup = eps_warmup
        self._full_size: _FullSize | None = None
        self._processes = ALONE
        self._join_processes()

    def share_of_eps(self, iteration: int) -> float:
        """Share of eps in a call, counted from 0: it grows from 1 / eps_warmup to 1, from start_after on."""
        done = (iteration - self.start_after) // self.minibatches_per_iteration
        return min(1.0, (done + 1) / self.eps_warmup) if self.eps_warmup else 1.0

    def _set_size(self) -> None:
        """Set the attack's eps for this call if there is a warm-up; it follows from the iteration alone.

        A step length that is set has the same share: otherwise the first steps would leave a small ball.
        """
        if not self.eps_warmup:
            return
        # Read late, because fast_task sets alpha, and again if the attack was replaced; the one before may come back.
        if self._full_size is None or self._full_size.attack is not self.attack:
            if self._full_size is not None:
                _set_size_of(*self._full_size)
            self._full_size = _FullSize(self.attack, self.attack.eps, getattr(self.attack, "alpha", None))
        _, eps, alpha = self._full_size
        share = self.share_of_eps(self.iteration)
        _set_size_of(self.attack, _scaled(eps, share), None if alpha is None else share * alpha)

    @property
    def steady_from(self) -> int:
        return self.start_after + self.eps_warmup * self.minibatches_per_iteration

    def expected_passes(self, m: int, iteration: int) -> Passes:
        trained, attacked = self._rows(m, iteration >= self.start_after)
        passes = Passes(forward=trained, backward=trained)
        if not attacked:
            return passes
        eps = self.attack.eps if self._full_size is None else self._full_size.eps
        return passes.plus(self._expected_generation(attacked, _scaled(eps, self.share_of_eps(iteration))))

    def _rows(self, m: int, started: bool) -> tuple[int, int]:
        """How many images a call trains on and attacks; by default both versions of each, once it has started."""
        return (2 * m, m) if started else (m, 0)

    def _expected_generation(self, k: int, eps: Eps) -> Passes:
        """Expected passes that make k images adversarial, at this size."""
        gradients = k * self.attack.expected_gradients(k, eps)
        queries = k * self.attack.forwards(_largest(eps))
        return Passes(forward=gradients + queries, to_images=gradients)

    @contextmanager
    def _counted(self, attack: attacks.Attack) -> Iterator[None]:
        """Count the passes of an attack's calls in the block."""
        gradients, queries = attack.image_gradients, attack.image_queries
        yield
        made, asked = attack.image_gradients - gradients, attack.image_queries - queries
        self.add_passes(Passes(forward=made + asked, to_images=made))

    def _join_processes(self) -> None:
        """Split the attack's draws among the current processes: the group may have been created after the task."""
        processes = current()
        if processes != self._processes:  # otherwise the user's own split stays
            self._processes = processes
            self.attack.stream.split(processes.rank, processes.world_size)

    def _check_true_labels(self, labels: Tensor) -> None:  # [m] or [m, K]
        """Refuse soft labels for an attack that uses the true label."""
        if self.attack.needs_labels and are_soft(labels):
            raise ValueError(
                f"{self.attack.name} uses the true label, which soft labels {list(labels.shape)} do not give: choose "
                f"an attack that does not, such as step_ll"
            )

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
        check_state(type(self).__name__, ("iteration", "stream"), state)
        self.iteration = state["iteration"]
        self.attack.stream.load_state_dict(state["stream"])


class _FullSize(NamedTuple):
    """An attack's size after the warm-up: eps, and alpha if it has one that is set."""

    attack: attacks.Attack
    eps: Eps
    alpha: float | None


def _set_size_of(attack: attacks.Attack, eps: Eps, alpha: float | None) -> None:
    attack.eps = eps
    if alpha is not None:
        attack.alpha = alpha  # type: ignore[attr-defined]


def _scaled(eps: Eps, share: float) -> Eps:
    return eps.scaled(share) if isinstance(eps, TruncatedNormalEps) else share * eps


def _largest(eps: Eps) -> float:
    return eps.upper if isinstance(eps, TruncatedNormalEps) else float(torch.as_tensor(eps).max())


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


def check_state(whose: str, keys: tuple[str, ...], state: object) -> None:
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
