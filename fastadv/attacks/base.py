"""Attack: the base class of all attacks. It checks inputs, draws sizes and seeds, and calls the method's ``run_``."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from fastadv.attacks.docstrings import described
from fastadv.attacks.engine.result_check import NORMS, check_in_place, check_result, has_own_code
from fastadv.attacks.engine.step_sizes import Eps, Size, checked_eps
from fastadv.attacks.options import IterativeAttackOptions
from fastadv.attacks.other_packages import instead_of
from fastadv.eps import TruncatedNormalEps
from fastadv.pixels import DTYPES, PixelSpace, check_space
from fastadv.pixels.range_watch import VALIDATE, RangeWatch
from fastadv.utils.input_hints import class_indices_hint, images_hint, labels_shape_hint
from fastadv.utils.module_modes import BN_MODES
from fastadv.utils.rng import RandomStream
from fastadv.utils.suggestions import did_you_mean, nearest
from fastadv.utils.validation import check_label_smoothing, check_model, check_one_of, check_switches

_ON_LABELS = {
    True: "Call it with images and their true labels.",
    False: "Call it with images alone; labels are ignored if given.",
}


class Attack(ABC):
    """Makes a candidate adversarial image from each clean image, using the current weights of a model.

    Call it to get a new tensor, or :meth:`perturb_` to change the images in place. It works under ``no_grad``,
    ``inference_mode`` and autocast, and leaves the module's modes, buffers and gradients as they were. During a call
    the module is in evaluation mode, so no other thread may use it. The model gets copies of the images, which it may
    overwrite.

    Args:
        model: a module (wrapped by DistributedDataParallel or torch.compile, or not), a method of one, or any callable
            that maps images [N, C, ...] to logits [N, K], or to a named tuple, a dictionary or an object that holds
            ``logits``. Modules behind a callable are found through its closure, default values, globals and attributes.
            If the model still draws random numbers or updates running statistics on the first batch, a warning says so;
            a model that draws is run once more on that batch. Running statistics are not watched inside torch.jit code
            or models that torch.compile compiled in part.
        eps: size of the perturbation in pixel values of [0, 255]: a number, a tensor [N], or a distribution, from which
            each example draws its own.
        space: how pixel values map to the model's input; None is :meth:`PixelSpace.unit`, images in [0, 1].
        validate: which batches are checked to lie in the space: the ``"first"`` one, ``"always"`` all, or ``"never"``
            any. Values outside the range in a batch that is not checked are clipped. On a GPU, a batch after the first
            is checked during the next call: the error is raised there, and names the call that it is about. In the
            first batch the model's outputs and the gradient are checked too: probabilities, NaN, or images with a zero
            gradient cause a warning.
        bn: BatchNorm uses its running statistics (``"eval"``) or the batch's (``"batch"``). Dropout is off.
        label_smoothing: in [0, 1), of the cross-entropy that is attacked. An attack that leads away from a class moves
            an example towards it if the class's probability is above 1 - label_smoothing * (1 - 1 / K), for K classes.
        fast: turn on everything that speeds up generation and changes results only by rounding. For methods that follow
            a gradient this is ``fold_bn`` if ``bn="eval"``, and ``capture`` on CUDA unless ``compile`` is on. If the
            model does not support one of them, a warning says why; if another option excludes it, a log line does. On
            a CPU, it does not speed up a single gradient of a few small images.
        seed: fixes the attack's random numbers; without it they follow ``torch.manual_seed``. Unlike
            ``AdversarialTask``, an attack does not detect other processes: with the same seed they draw the same
            numbers, unless each calls ``attack.stream.split(rank, world_size)``.
        generator: a CPU generator to take the seed of the random numbers from, instead of torch's default.

    Raises:
        ValueError: if eps is negative, not finite or above the whole pixel range, or another option is out of range.
        TypeError: if the attack does not have an option.

    Attributes:
        name: the attack's name, as in the paper.
        needs_labels: true if it uses the true label.
        draws: true if it uses random numbers, apart from those of a random eps.
        one_gradient: true if :meth:`at_each` computes one gradient for all sizes.
        counting: true if calls count the examples whose first gradient is zero or not finite; off by default.
        looks: false to skip the check of the images, for callers that have checked them already. The model's outputs
            and the gradient are checked all the same.
        image_gradients: gradients of single images that calls have computed so far, each a forward pass and a backward
            pass to the image; 0 for a method that overrides ``run_``.
        image_queries: logits of single images that calls have computed so far without a gradient; like
            ``image_gradients``, 0 for a method that overrides ``run_``.
        without_gradient: the count of the last call, or of the last size of :meth:`at_each`: a scalar tensor on the
            images' device; None if nothing was counted or no gradient was computed.
        warned: true if the model's outputs or gradients caused a warning.
        ball: the norm of the ball of radius eps that holds every result, ``"linf"`` or ``"l2"``; None for a method that
            leaves the ball on purpose. If a class outside this package has a ``step_`` or ``run_`` of its own, its
            first results are checked against the ball and the pixel range, unless validate is ``"never"``.
        targeted: true if it steps towards the labels that it is called with, by an option or as your own subclass may:
            these are targets then, not true classes.
        stops_early: true if an image whose class is wrong, or that has its target, is left alone from then on.
    """

    name: ClassVar[str]
    needs_labels: bool = False
    one_gradient: bool = False
    ball: str | None = "linf"
    draws: bool = False
    counting: bool = False
    looks: bool = True
    image_gradients: int = 0
    image_queries: int = 0
    without_gradient: Tensor | None = None
    warned: bool = False
    targeted: bool = False
    stops_early: bool = False
    _result_passed = False

    if not TYPE_CHECKING:  # type checkers read the arguments from __init__

        def __new__(cls, *given: Any, **options: Any) -> Any:
            """Refuse unknown and positional options: other packages take eps by position, and on another scale."""
            if len(given) > 1:
                name = cls.__name__
                raise TypeError(
                    f"{name} takes a model, and its options as keywords: {name}(model, eps=8). eps is in pixel values "
                    f"of [0, 255], whatever the model's input: 8, not 8/255"
                )
            if unknown := set(options) - set(inspect.signature(cls).parameters):
                raise TypeError(no_such_option(cls, unknown))
            return super().__new__(cls)

        def __getattr__(self, name: str) -> Any:  # called only for missing attributes
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
        """Add inherited options to the subclass's signature and docstring."""
        super().__init_subclass__(**arguments)
        if "forward" in vars(cls):
            raise TypeError(
                f"{cls.__name__} defines forward, as attacks of other packages do, but here nothing calls it: override "
                f"loss, direction, step_, start_ or step_sizes of GradientAttack, or, for an attack without gradients, "
                f"run_(adv, labels, size, seed, offset) of Attack"
            )
        for method in ("__call__", "perturb_", "at_each"):
            if method in vars(cls):
                raise TypeError(
                    f"{cls.__name__} overrides {method}, but evaluations and training do not always call it: override "
                    f"a documented method instead, such as step_, or run_(adv, labels, size, seed, offset)"
                )
        if cls.ball not in (None, *NORMS):
            raise ValueError(f"{cls.__name__}.ball must be 'linf', 'l2' or None, got {cls.ball!r}")
        signature = cls.__signature__ = _signature(cls)  # type: ignore[attr-defined]
        bases = [base.__doc__ for base in reversed(cls.__mro__[1:]) if issubclass(base, Attack)]
        labels = _ON_LABELS[cls.needs_labels] if hasattr(cls, "name") else ""
        cls.__doc__ = described(cls.__doc__, bases, signature, labels, leave_out=cls.refused_options())

    def __call__(self, images: Tensor, labels: Tensor | None = None, *, eps: Eps | None = None) -> Tensor:
        """Return candidate adversarial images.

        Args:
            images: [N, C, ...] clean model inputs, floating; not changed.
            labels: [N] true classes, for methods that use the true label; targets, if the attack is ``targeted``. Other
                methods ignore them; those that step towards a class of their own choice warn once.
            eps: overrides the attack's eps for this call.

        Returns:
            A new tensor [N, C, ...] without autograd history, inside the eps ball and the pixel range.

        Raises:
            ValueError: if images are outside the space, labels are missing, shapes do not fit, or eps is out of range;
                in the first batch also if a ``step_`` or ``run_`` of your own leaves the ball or the pixel range.
            TypeError: if images are not floating or labels are not integers.
        """
        self._check(images, labels)
        return self._perturb_(_copy(images), labels, eps)

    def perturb_(self, images: Tensor, labels: Tensor | None = None, *, eps: Eps | None = None) -> Tensor:
        """Like a call, but change the images in place, without a tensor for the result.

        If the model, or anything else, raises, the images stay as they were.

        Raises:
            ValueError: as for a call, or if the images require grad.
        """
        self._check(images, labels)
        if images.requires_grad:
            raise ValueError("images are mutated in place and must not require grad: pass images.detach()")
        if images.is_inference():
            return images.copy_(self._perturb_(_copy(images), labels, eps))
        return self._perturb_(images, labels, eps)

    def at_each(self, images: Tensor, labels: Tensor | None = None, *, eps: Sequence[float]) -> Iterator[Tensor]:
        """Yield candidate adversarial images of several sizes, one size after another.

        Each equals what a call with that eps returns for the same random numbers; an attack whose ``one_gradient`` is
        true runs the model once for all sizes.

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
        """Pass on the results [N, C, ...] for each size; in the first call, check them on the way."""
        checks = self._checks_result()
        for adv, size in zip(results, sizes, strict=True):
            if checks:
                check_result(self, adv, clean, size.eps)
            yield adv
        self._result_passed |= checks

    def _run_each(
        self, clean: Tensor, labels: Tensor | None, sizes: Sequence[Size], seed: int | Tensor, offset: int
    ) -> Iterator[Tensor]:
        """Yield the results of :meth:`at_each` for N > 0 clean images [N, C, ...]; the caller's code runs between."""
        for size in sizes:
            with torch.inference_mode(False), torch.no_grad():
                adv = clean.clone()
                self._run_checked_(adv, labels, size, seed, offset)
            yield adv

    def _perturb_(self, adv: Tensor, labels: Tensor | None, eps: Eps | None) -> Tensor:
        self.without_gradient = None
        if adv.shape[0] == 0:
            return adv
        # Tensors created under the caller's inference mode could not be saved for a gradient.
        with torch.inference_mode(False), torch.no_grad():
            size, seed, offset = self._draw(adv, eps)
            if labels is not None:
                labels = labels.to(torch.int64) if self.needs_labels else None
            self._run_checked_(adv, labels, size, seed, offset)
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

    def _run_checked_(self, adv: Tensor, labels: Tensor | None, size: Size, seed: int | Tensor, offset: int) -> None:
        clean = adv.clone() if self._checks_result() else None  # [N, C, ...]
        check_in_place(self, "run_", adv, self.run_(adv, labels, size, seed, offset))  # type: ignore[func-returns-value]
        if clean is not None:
            self._check_result(adv, clean, size.eps)

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

    @classmethod
    def refused_options(cls) -> set[str]:
        """Return the options of base classes whose values this class refuses, but for the default ones."""
        return set()

    def gradients(self, eps: float) -> int:
        """Return how many gradients per image a call of this size computes, for time estimates."""
        return 0

    def forwards(self, eps: float) -> int:
        """Return how many forward passes without a gradient a call of this size runs per image, for time estimates."""
        return 0

    def expected_gradients(self, n: int, eps: Eps) -> float:
        """Return how many gradients per image a call with n images of this size computes; for a distribution, the mean.

        It predicts ``image_gradients``.
        """
        return 0.0

    @abstractmethod
    def run_(self, adv: Tensor, labels: Tensor | None, size: Size, seed: int | Tensor, offset: int) -> None:
        """Make clean images adversarial in place, inside the eps ball and the pixel range. Subclasses implement this.

        It runs under ``no_grad``. If it raises, adv must be as it was.

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
            _check_labels(self.name, labels, images, use="needs targets" if self.targeted else "uses the true label")
        if self.looks:
            self._watch.look(images, self.validate)

    def true_labels(self, labels: Tensor | None) -> Tensor | None:
        """Return the labels to call this attack with, given true labels: None if it ignores them.

        Raises:
            ValueError: if the attack would step towards them.
        """
        if self.targeted:
            raise ValueError(
                f"{self.name} is targeted: it steps towards the labels that it is called with, and here these are the "
                f"true classes, which makes a model look robust. Call the attack yourself, with targets"
            )
        return labels if self.needs_labels else None

    def options(self) -> dict[str, Any]:
        """Return the attack's options by name, for ``repr``; with ``capture``, a changed option causes a new recording.

        Subclasses add their own: ``{**super().options(), "decay": self.decay}``.
        """
        own = {"bn": self.bn, "label_smoothing": self.label_smoothing, "fast": self.fast}
        return {"eps": self.eps, "space": self.space, **own}

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options().items())
        return f"{type(self).__name__}({type(self.model).__name__}, {options})"


def _copy(images: Tensor) -> Tensor:
    """Copy images [N, C, ...] to a normal tensor (not an inference tensor) without autograd history."""
    with torch.inference_mode(False), torch.no_grad():
        return images.detach().clone()


def _signature(kind: type[Any]) -> inspect.Signature:
    """Return the signature with all options of a class, its own and inherited ones."""
    own = [base for base in kind.__mro__ if "__init__" in base.__dict__ and issubclass(base, Attack)]
    merged = {
        name: parameter
        for base in reversed(own)
        for name, parameter in inspect.signature(base.__init__).parameters.items()
        if name != "self" and parameter.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    }
    # All options are keyword-only, even if a user's class declares them without a star.
    by_name = [
        parameter if name == "model" else parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in merged.items()
    ]
    return inspect.Signature(by_name)


def options_of(attack: type[Attack]) -> set[str]:
    """Return the names of an attack's options."""
    return set(inspect.signature(attack).parameters) - {"model"}


def ball_of(attack: type[Attack], options: Mapping[str, Any]) -> str | None:
    """Return the norm of the ball that an attack with these options keeps to, see ``ball`` of :class:`Attack`."""
    return options.get("norm", attack.ball) if "norm" in options_of(attack) else attack.ball


def no_such_option(attack: type[Attack], unknown: Iterable[str]) -> str:
    """Return the error message for options that an attack does not have."""
    known, wrong = sorted(options_of(attack) - attack.refused_options()), sorted(unknown)
    name = getattr(attack, "name", attack.__name__)
    misspelt = (one for one in wrong if one not in IterativeAttackOptions.__annotations__)  # which other attacks have
    meant = did_you_mean([close for one in misspelt for close in nearest(one, known)])
    return f"{name} has no option {', '.join(wrong)}{meant}; its options are {', '.join(known)}"


Attack.__signature__ = _signature(Attack)  # type: ignore[attr-defined]  # instead of __new__'s


def _check_labels(attack: str, labels: Tensor | None, images: Tensor, *, use: str) -> None:  # [N], [N, C, ...]
    """Refuse labels that are not one class index for each image.

    Raises:
        ValueError: if they are missing, or have another shape or device.
        TypeError: if they are not a tensor of integers.
    """
    if labels is None:
        raise ValueError(f"{attack} {use}: call it with labels [N]")
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
