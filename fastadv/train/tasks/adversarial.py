"""AdversarialTask: Algorithm 1 of the paper, for any training loop."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from fastadv import attacks
from fastadv.attacks.engine.step_sizes import check_step
from fastadv.eps import TruncatedNormalEps
from fastadv.pixels import PixelSpace
from fastadv.train.tasks.base import check_minibatch, check_state
from fastadv.train.tasks.batch_reuse import AGAIN, tracked_overwrite
from fastadv.train.tasks.recordable import RecordableCalls
from fastadv.train.tasks.sources import Source, StaticSources
from fastadv.utils.rng import RecordedDraws
from fastadv.utils.validation import check_count, check_real

ALL = sys.maxsize  # as k: all examples of a minibatch, whatever its size
_TOO_FEW = (
    "k = {k} is more than the {m} images of the first minibatch: all of them become adversarial, and none stays clean. "
    "k is the number per minibatch, and per process if there are several"
)
_WRITES = (
    "the model overwrites its input, or something else wrote to its memory meanwhile: this minibatch no longer holds "
    "the images that the model was trained on. From now on the model is given a copy"
)


class AdversarialTask(RecordableCalls):
    """Makes the first k examples of a minibatch adversarial and returns the paper's loss (section 3, Algorithm 1).

    The model may be wrapped by ``DistributedDataParallel`` or ``torch.compile``: examples are generated on the raw
    module, and the training pass goes through the wrapper. If torch.distributed has a process group, m and k are per
    process, and each process draws the random numbers of its part of the global minibatch.

    Args:
        model: [m, C, H, W] -> logits [m, K]; or a named tuple, a dictionary or an object that holds
            ``logits``, and possibly auxiliary logits ``aux...``, as Inception v3's does.
        attack: one of ``fastadv.attacks.names()``, or your own class derived from ``fastadv.attacks.Attack``.
        k: adversarial examples per minibatch; 0 is standard training. In a smaller minibatch, such as an uneven last
            one, all examples become adversarial: min(k, m).
        lambda_: weight of an adversarial example in the loss; a clean one weighs 1.
        eps: size of the perturbation in pixel values: a number, or a distribution to draw from for each example.
        space: how the images were normalised.
        start_after: iterations on clean examples only before adversarial training starts.
        eps_warmup: iterations from then on in which eps grows linearly from 0: the first has 1 / eps_warmup of it. An
            alpha that is set grows with it.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1), in the loss. The cost that the
            attack follows has none, unless ``attack_options={"label_smoothing": 0.1}`` sets it. It can reverse attacks
            that lead away from a class: if that class has a probability above 1 - label_smoothing * (1 - 1 / K), with K
            classes, the smoothed cost grows with it, and the attack moves the example towards the class.
        aux_weight: weight of the same loss at each of the model's auxiliary logits, if it returns any; 0.4 is
            Inception's.
        seed: fixes the attack's random draws; None draws from PyTorch's default generator.
        attack_options: further options of the attack as a dictionary, such as ``{"bn": "batch"}``: those of
            ``fastadv.attacks.create``.
        sources: static networks for ensemble adversarial training (Tramèr et al., 2018), each a module, or a pair
            (module, PixelSpace) if it was trained in another space than ``space``. In each minibatch the examples are
            made on the model or on one of them, each with the same probability. The task puts them in eval mode and
            freezes their parameters; they must be on the device of the images. The choice follows from ``seed`` and the
            number of the minibatch, counted over all processes: each process chooses for its own.

    Raises:
        ValueError: if k, ``lambda_``, start_after, eps_warmup or aux_weight is negative, label_smoothing is outside
            [0, 1), the attack is unknown or steps towards the labels, attack_options sets what the task has arguments
            for, alpha is 0, a source has parameters of the model, or there are sources although k is 0.
        TypeError: if k, start_after or eps_warmup is not an integer, the attack is neither a name nor a class, or a
            source is neither a module nor a pair (module, PixelSpace).

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
        eps_warmup: int = 0,
        label_smoothing: float = 0.0,
        aux_weight: float = 0.4,
        seed: int | None = None,
        attack_options: dict[str, Any] | None = None,
        sources: Sequence[Source] = (),
    ) -> None:
        check_count("k", k, least=0)
        check_real("lambda_", lambda_, least=0)
        if not k and len(sources):
            raise ValueError("sources have no effect with k=0: there are no adversarial examples to make")
        super().__init__(
            model,
            attack,
            eps=eps,
            space=space,
            start_after=start_after,
            eps_warmup=eps_warmup,
            label_smoothing=label_smoothing,
            aux_weight=aux_weight,
            seed=seed,
            attack_options=attack_options,
        )
        if k and (alpha := getattr(self.attack, "alpha", None)) is not None:
            check_step(alpha)

        def on_source(source: nn.Module) -> attacks.Attack:
            given = {**(attack_options or {}), "eps": eps, "space": space}
            if "bn" in given:
                given["bn"] = "eval"  # batch statistics are for a network that changes
            return attacks.create(attack, source, **given)

        self._sources = StaticSources(sources, self.attack, on_source)
        self.k = k
        self.lambda_ = lambda_
        self._model_writes = False

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of one minibatch; call ``backward()`` on it.

        Args:
            images: [m, C, H, W]; the first k are replaced in place by their adversarial counterparts.
            labels: [m] int64, or soft labels, probabilities [m, K] such as Mixup's, for an attack that does not use the
                true label.

        Raises:
            TypeError: if images are not floating point, labels are neither int64 nor soft, or the model returns neither
                logits nor something that holds them as ``logits``.
            ValueError: if images are empty, require a gradient or do not fit the model, there is not one label per
                image, soft labels are not distributions (on a GPU: the loss is NaN) or the attack uses the true label,
                the logits are of a single class, or, in the first call, a source is on another device than the images
                or has another number of classes than the model. Also if labels are not among the model's classes, or
                soft labels have another number of classes; then the first k images are adversarial already.
        """
        check_minibatch(images, labels)
        if self.k:
            self._check_true_labels(labels)
        self._join_processes()
        if self.iteration == 0 and len(images) < self.k < ALL:
            warnings.warn(_TOO_FEW.format(k=self.k, m=len(images)), stacklevel=2)
        if self.k:
            self._sources.check(images)
        k = self.adversarial_of(len(images))
        if k:
            self._set_size()
            processes = self._processes
            attack = self._sources.choose(self.attack, self.iteration * processes.world_size + processes.rank)
            with tracked_overwrite(images) as again:
                if again:
                    warnings.warn(AGAIN, stacklevel=2)
                with self._counted(attack):
                    attack.perturb_(images[:k], attack.true_labels(labels[:k]))
        shown, before = images.clone() if self._model_writes else images, _version(images)
        loss = self._loss(shown, labels, k, self.lambda_)
        if _version(images) != before:
            self._model_writes = True
            warnings.warn(_WRITES, stacklevel=2)
        return loss

    def adversarial_of(self, m: int) -> int:
        """How many of the next minibatch's m examples become adversarial."""
        return min(self.k, m) if self.iteration >= self.start_after else 0

    def _rows(self, m: int, started: bool) -> tuple[int, int]:
        return m, min(self.k, m) if started else 0

    def recorded(self, draws: RecordedDraws) -> AbstractContextManager[None]:
        """Context for a call that a CUDA graph records, as for any task.

        Raises:
            ValueError: if the task has sources: each replay would use the network that was chosen when recording.
        """
        if self._sources.modules:
            raise ValueError("sources do not go with capture: a recorded iteration would always use the same source")
        return super().recorded(draws)

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint: the iteration, the position in the attack's random draws, and hashes of the sources.

        Without ``seed``, draws follow PyTorch's default generator, which is not included: save
        ``torch.get_rng_state()`` too.
        """
        state = super().state_dict()
        return {**state, "sources": self._sources.fingerprints} if self._sources.modules else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a :meth:`state_dict`.

        Raises:
            ValueError: if it is the state of another kind of object, or was saved with other sources.
        """
        if not self._sources.modules and isinstance(state, Mapping) and "sources" in state:
            raise ValueError(
                "the state was saved by a task with static sources, and this one has none: pass the same sources"
            )
        if self._sources.modules:
            check_state(type(self).__name__, ("iteration", "stream", "sources"), state)
            self._sources.check_same(state["sources"])
            state = {name: value for name, value in state.items() if name != "sources"}
        super().load_state_dict(state)

    def __repr__(self) -> str:
        sources = f"sources={self._sources}, " if self._sources.modules else ""
        return (
            f"AdversarialTask(attack={self.attack}, k={'all' if self.k == ALL else self.k}, lambda_={self.lambda_}, "
            f"start_after={self.start_after}, label_smoothing={self.label_smoothing}, aux_weight={self.aux_weight}, "
            f"{sources}iteration={self.iteration})"
        )


def _version(images: Tensor) -> int:
    """Autograd's count of in-place writes to a tensor; 0 for inference tensors, which have none."""
    return 0 if images.is_inference() else images._version
