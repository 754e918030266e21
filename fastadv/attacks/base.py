"""Attack: what every method of making candidate adversarial images has in common, up to its own arithmetic."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from fastadv.attacks.docstrings import described
from fastadv.attacks.engine.result_check import check_result, has_own_code
from fastadv.attacks.engine.step_sizes import Eps, Size, checked_eps
from fastadv.attacks.other_packages import instead_of
from fastadv.eps import TruncatedNormalEps
from fastadv.pixels import DTYPES, PixelSpace, check_space
from fastadv.pixels.range_watch import VALIDATE, RangeWatch
from fastadv.utils.input_hints import class_indices_hint, images_hint, labels_shape_hint
from fastadv.utils.module_modes import BN_MODES
from fastadv.utils.rng import RandomStream
from fastadv.utils.validation import check_label_smoothing, check_model, check_one_of, check_switches

_ON_LABELS = {
    True: "Called with images and their true labels.",
    False: "Called with images alone; labels are ignored if they are given.",
}


class Attack(ABC):
    """Makes a candidate adversarial image of each clean image, by the current weights of a model.

    Call it for a new tensor, or :meth:`perturb_` to mutate the images in place. It works under ``no_grad``,
    ``inference_mode`` and autocast, and leaves a module's modes, buffers and gradients as they were. Meanwhile the
    module is in evaluation mode: no other thread may use it. It is given copies of the images, which it may overwrite.

    Args:
        model: a module (wrapped by DistributedDataParallel or torch.compile, or not), a method of one or any callable,
            from images [N, C, ...] to logits [N, K]. Behind a callable, the modules are found that its code has at
            hand: in a closure, a default value, a global variable or an attribute. If, on the first batch, the model
            still draws random numbers or moves running statistics, a warning says so. Statistics are not watched in
            code of torch.jit, nor where torch.compile has made a part of the model. A model that draws is run once more
            on that batch.
        eps: size of the perturbation in pixel values of [0, 255]: a number, a tensor [N], or a distribution that is
            drawn from anew for each example.
        space: how pixel values map to the model's input; None is :meth:`PixelSpace.unit`, images in [0, 1].
        validate: which batches must lie in the space, the ``"first"`` alone, ``"always"`` each, or ``"never"`` any;
            what does not is clipped where it is not looked at, and that change counts as no perturbation. On a GPU a
            batch after the first is waited for in the next call: an error comes there, and names the call that it is
            about. With the first batch the model's outputs and the gradient are looked at, too: probabilities, NaN, or
            images whose gradient is zero give a warning.
        bn: BatchNorm uses its running statistics (``"eval"``) or the batch's (``"batch"``). Dropout is off.
        label_smoothing: of the attacked cross-entropy, in [0, 1). With it, an attack that leads away from a class moves
            an example towards it whose probability of that class is above 1 - label_smoothing * (1 - 1 / K), of K.
        fast: switch on all that makes generation faster at once and changes results by no more than rounding: for the
            methods that follow a gradient ``fold_bn`` with ``bn="eval"``, and ``capture`` on CUDA, but not with
            ``compile``. What does not fit the model is left out, and a warning says why; what other options
            exclude, a line of the log. On a CPU one gradient of few small images is not faster for it.
        seed: fixes the attack's random numbers; without it they follow ``torch.manual_seed``. An attack does not look
            for other processes, as ``AdversarialTask`` does: with one seed they draw the same, unless each calls
            ``attack.stream.split(rank, world_size)``.
        generator: a CPU generator to take the random numbers' seed from, instead of torch's default.

    Raises:
        ValueError: an eps that is negative or not finite, or another option outside its values.
        TypeError: an option that the attack does not have.

    Attributes:
        name: the attack's, in the paper's words.
        needs_labels: whether it uses the true label.
        draws: whether it uses random numbers, besides those of a random eps.
        one_gradient: whether :meth:`at_each` makes one gradient for all sizes.
        counting: whether calls count the examples whose first gradient is zero or not finite; off at first.
        looks: whether calls look at images as ``validate`` says; off for those who have looked at them already. The
            model's outputs and the gradient are looked at all the same.
        without_gradient: a scalar tensor on the images' device, how many the last call, or the last size of
            :meth:`at_each`, counted; None where nothing is counted, or no gradient followed.
        warned: whether the model's outputs or gradients have given a warning.
        ball: the norm of the ball of radius eps that holds every result, ``"linf"`` or ``"l2"``; None for a method that
            leaves the ball on purpose. If a class outside this package has a ``step_`` or ``run_`` of its own, its
            first results are checked against the ball and the pixel range, unless validate is ``"never"``.
        targeted: whether it steps towards the labels that it is called with, as a class of one's own may: they are
            targets then, and not true classes.
    """

    name: ClassVar[str]
    needs_labels: ClassVar[bool] = False
    one_gradient: ClassVar[bool] = False
    ball: ClassVar[str | None] = "linf"
    draws: bool = False
    counting: bool = False
    looks: bool = True
    without_gradient: Tensor | None = None
    warned: bool = False
    targeted: bool = False
    _result_passed = False

    if not TYPE_CHECKING:  # checkers of types read the arguments off __init__

        def __new__(cls, *given: Any, **options: Any) -> Any:
            """Refuse options without a name, as other packages take them, with eps on another scale; unknown ones."""
            if len(given) > 1:
                name = cls.__name__
                raise TypeError(
                    f"{name} takes a model, and options by their names: {name}(model, eps=8). eps is in pixel values "
                    f"of [0, 255], whatever the model's input: 8, not 8/255"
                )
            if unknown := set(options) - set(inspect.signature(cls).parameters):
                raise TypeError(no_such_option(cls, unknown))
            return super().__new__(cls)

        def __getattr__(self, name: str) -> Any:  # only where there is no such attribute
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{instead_of(name)}")

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        eps: Eps = 16,
        space: PixelSpace | None = None,
        validate: str = "always",
        bn: str = "eval",
        label_smoothing: float = 0.0,
        fast: bool = False,
        seed: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        check_model(model)
        check_one_of("validate", validate, VALIDATE)
        check_one_of("bn", bn, BN_MODES)
        check_label_smoothing(label_smoothing)
        check_switches(fast=fast)
        self.model = model
        self.space = PixelSpace.unit() if space is None else space
        check_space(self.space)
        self.eps = checked_eps(eps, self.space, self.ball)
        self.validate = validate
        self.bn = bn
        self.label_smoothing = label_smoothing
        self.fast = fast
        self.stream = RandomStream(seed=seed, generator=generator)
        self._watch = RangeWatch(self.space, one=f"{type(self).__name__} call", waits=False)

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Show every option of a subclass, not its own alone, in its signature and docstring."""
        super().__init_subclass__(**arguments)
        if "forward" in vars(cls):
            raise TypeError(
                f"{cls.__name__} has a forward, as attacks of other packages do, and here nothing calls it: write "
                f"run_(adv, labels, size, seed, offset) for an attack of its own kind, or override loss, direction, "
                f"step_, start_ or step_sizes of GradientAttack"
            )
        signature = cls.__signature__ = _signature(cls)  # type: ignore[attr-defined]
        bases = [base.__doc__ for base in reversed(cls.__mro__[1:]) if issubclass(base, Attack)]
        labels = _ON_LABELS[cls.needs_labels] if hasattr(cls, "name") else ""
        cls.__doc__ = described(cls.__doc__, bases, signature, labels)

    def __call__(self, images: Tensor, labels: Tensor | None = None, *, eps: Eps | None = None) -> Tensor:
        """Candidate adversarial images.

        Args:
            images: [N, C, ...] clean model inputs, floating; not changed.
            labels: [N] true classes; needed by the methods that use the true label, ignored by the others, of which
                those that step towards a class warn once: no class of the caller's is their target.
            eps: overrides the attack's own for this call.

        Returns:
            A new tensor [N, C, ...] without autograd history, inside the eps ball and the pixel range.

        Raises:
            ValueError: images outside the space, missing labels, shapes that do not fit, an eps out of range.
            TypeError: images that are not floating, labels that are not integers.
        """
        self._check(images, labels)
        return self._perturb_(_copy(images), labels, eps)

    def perturb_(self, images: Tensor, labels: Tensor | None = None, *, eps: Eps | None = None) -> Tensor:
        """Like a call, but the images themselves become adversarial: no tensor is made for the result.

        Images are left as they were if the model, or anything else, raises.

        Raises:
            ValueError: also for images that require grad.
        """
        self._check(images, labels)
        if images.requires_grad:
            raise ValueError("images are mutated in place and must not require grad: pass images.detach()")
        if images.is_inference():
            return images.copy_(self._perturb_(_copy(images), labels, eps))
        return self._perturb_(images, labels, eps)

    def at_each(self, images: Tensor, labels: Tensor | None = None, *, eps: Sequence[float]) -> Iterator[Tensor]:
        """Candidate adversarial images of several sizes, one after the other.

        Each is what a call with that eps returns, for the same random numbers; an attack whose ``one_gradient`` is true
        asks the model once for all of them.

        Args:
            images: as for a call, like ``labels``.
            eps: sizes in pixel values.

        Raises:
            ValueError: as for a call.
        """
        self._check(images, labels)
        if isinstance(eps, (str, Tensor)) or not isinstance(eps, Iterable):
            raise TypeError(f"{self.name}: several eps are given as in [2, 4, 8], got {type(eps).__name__}")
        checked = [checked_eps(size, self.space, self.ball) for size in eps]
        if not all(isinstance(size, float) for size in checked):
            raise TypeError(f"{self.name}: eps must be numbers here, each for all images, in pixel values")
        sizes = [Size(size) for size in checked if isinstance(size, float)]
        clean = _copy(images)  # [N, C, ...]
        with torch.inference_mode(False), torch.no_grad():
            if labels is not None:
                labels = labels.to(torch.int64) if self.needs_labels else None
        self.without_gradient = None
        if len(clean) == 0:
            return iter([clean.clone() for _ in sizes])
        seed, offset = self.stream.take(len(clean)) if self.draws else (0, 0)
        return self._checked_each(self._run_each(clean, labels, sizes, seed, offset), clean, sizes)

    def _checked_each(self, results: Iterator[Tensor], clean: Tensor, sizes: Sequence[Size]) -> Iterator[Tensor]:
        checks = self._checks_result()
        for adv, size in zip(results, sizes, strict=True):
            if checks:
                check_result(self, adv, clean, size.eps)
            yield adv
        self._result_passed |= checks

    def _run_each(
        self, clean: Tensor, labels: Tensor | None, sizes: Sequence[Size], seed: int | Tensor, offset: int
    ) -> Iterator[Tensor]:
        """What :meth:`at_each` yields, of N > 0 clean images [N, C, ...]. A caller's code runs between two sizes."""
        for size in sizes:
            with torch.inference_mode(False), torch.no_grad():
                adv = clean.clone()
                self.run_(adv, labels, size, seed, offset)
            yield adv

    def _perturb_(self, adv: Tensor, labels: Tensor | None, eps: Eps | None) -> Tensor:
        self.without_gradient = None
        if adv.shape[0] == 0:
            return adv
        # Tensors made under a caller's inference mode could not be saved for a gradient.
        with torch.inference_mode(False), torch.no_grad():
            size, seed, offset = self._draw(adv, eps)
            if labels is not None:
                labels = labels.to(torch.int64) if self.needs_labels else None
            clean = adv.clone() if self._checks_result() else None  # [N, C, ...]
            self.run_(adv, labels, size, seed, offset)
            if clean is not None:
                self._check_result(adv, clean, size.eps)
        return adv

    def _draw(self, images: Tensor, eps: Eps | None) -> tuple[Size, int | Tensor, int]:
        """The size of a call's perturbations of images [N, C, ...], and (seed, offset) of its random numbers."""
        chosen = self.eps if eps is None else checked_eps(eps, self.space, self.ball)
        if isinstance(chosen, TruncatedNormalEps):
            seed, offset = self.stream.take(images.shape[0])
            return Size.drawn(chosen, images, seed=seed, offset=offset), seed, offset
        size = Size.given(chosen, images, self.space, self.ball)
        # An attack that draws nothing leaves the default generator, and so the caller's run, as it is.
        seed, offset = self.stream.take(images.shape[0]) if self.draws else (0, 0)
        return size, seed, offset

    def _checks_result(self) -> bool:
        """True until a batch has passed, for attacks with code of their own: a later check would wait for a GPU."""
        return self.validate != "never" and not self._result_passed and has_own_code(self)

    def _check_result(self, adv: Tensor, clean: Tensor, eps: float | Tensor) -> None:
        try:
            check_result(self, adv, clean, eps)
        except ValueError:
            adv.copy_(clean)
            raise
        self._result_passed = True

    def gradients(self, eps: float) -> int:
        """How many gradients of each image a call of this size asks the model for, for estimates of its time."""
        return 0

    @abstractmethod
    def run_(self, adv: Tensor, labels: Tensor | None, size: Size, seed: int | Tensor, offset: int) -> None:
        """Make clean images adversarial in place, inside the eps ball and the pixel range: what an attack has to write.

        It runs in ``no_grad``. If it raises, adv must be as it was.

        Args:
            adv: [N, C, ...], N > 0.
            labels: [N] int64; None if the class does not set ``needs_labels``.
            size: of the perturbation; ``size.eps`` is a number in pixel values, or [N] on the images' device.
            seed, offset: for :func:`fastadv.ops.noise_step_` and the like, if the class sets ``draws``.
        """

    def _check(self, images: Tensor, labels: Tensor | None) -> None:
        if not isinstance(images, Tensor) or images.dtype not in DTYPES:
            raise TypeError(
                f"{self.name}: images must be a float32, float64, bfloat16 or float16 tensor in the model's input "
                f"space, {images_hint(images)}"
            )
        if images.dim() < 2:
            raise ValueError(f"{self.name}: images must have shape [N, C, ...], got {list(images.shape)}")
        if self.needs_labels:
            _check_labels(self.name, labels, images)
        if self.looks:
            self._watch.look(images, self.validate)

    def true_labels(self, labels: Tensor | None) -> Tensor | None:
        """What to call the attack with by those who have the true label of each image, whatever the attack.

        Raises:
            ValueError: they would be its targets.
        """
        if self.targeted:
            raise ValueError(
                f"{self.name} has ascend = False and needs_labels: it steps towards the labels that it is called with, "
                f"and here these are the true classes, which makes a model look robust. Call the attack itself, with "
                f"targets"
            )
        return labels if self.needs_labels else None

    def options(self) -> dict[str, Any]:
        """The attack's options by name, for its text; a captured iteration is captured anew when one changes.

        A class of one's own adds its own: ``{**super().options(), "decay": self.decay}``.
        """
        own = {"bn": self.bn, "label_smoothing": self.label_smoothing, "fast": self.fast}
        return {"eps": self.eps, "space": self.space, **own}

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options().items())
        return f"{type(self).__name__}({type(self.model).__name__}, {options})"


def _copy(images: Tensor) -> Tensor:
    """Images [N, C, ...] that are no inference tensor, without autograd history."""
    with torch.inference_mode(False), torch.no_grad():
        return images.detach().clone()


def _signature(kind: type[Any]) -> inspect.Signature:
    """All options of a class, its own and those of the classes above it."""
    own = [base for base in kind.__mro__ if "__init__" in base.__dict__ and issubclass(base, Attack)]
    merged = {
        name: parameter
        for base in reversed(own)
        for name, parameter in inspect.signature(base.__init__).parameters.items()
        if name != "self" and parameter.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    }
    # Options are given by name, also those that a class of one's own declares without a star before them.
    by_name = [
        parameter if name == "model" else parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in merged.items()
    ]
    return inspect.Signature(by_name)


def options_of(attack: type[Attack]) -> set[str]:
    """The names of an attack's options."""
    return set(inspect.signature(attack).parameters) - {"model"}


def no_such_option(attack: type[Attack], unknown: Iterable[str]) -> str:
    """What to say of options that an attack does not have."""
    name, known = getattr(attack, "name", attack.__name__), ", ".join(sorted(options_of(attack)))
    return f"{name} has no option {', '.join(sorted(unknown))}; its options are {known}"


Attack.__signature__ = _signature(Attack)  # type: ignore[attr-defined]  # not that of __new__


def _check_labels(attack: str, labels: Tensor | None, images: Tensor) -> None:  # [N], [N, C, ...]
    """Refuse labels that are not one class index for each image.

    Raises:
        ValueError: if they are missing, or have another shape or device.
        TypeError: if they are not a tensor of integers.
    """
    if labels is None:
        raise ValueError(f"{attack} uses the true label: call it with labels [N]")
    if (
        not isinstance(labels, Tensor)
        or labels.is_floating_point()
        or labels.is_complex()
        or labels.dtype == torch.bool
    ):
        raise TypeError(f"{attack}: labels must be a tensor of class indices, got {class_indices_hint(labels)}")
    if labels.device != images.device:
        raise ValueError(f"{attack}: labels must be on {images.device}, as the images are, got {labels.device}")
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"{attack}: labels must have shape [{len(images)}], got {list(labels.shape)}"
            f"{labels_shape_hint(images, labels)}"
        )
