"""The same attacks in other packages, as their users would write them.

Each function takes a model of images [N, C, H, W] in [0, 1], the name of an attack, the number of steps, an example of
the images, and whether to use the package's cheapest call or the one that its documentation shows, if they differ. It
returns a function from (images, labels [N]) to adversarial images, or None if the package is not installed or lacks the
attack. eps is 8/255 and alpha 1/255. No package has step l.l. by that name; it does not use labels, and the model is
asked for the class, by the package or otherwise by its caller.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

Generate = Callable[[Tensor, Tensor], Tensor]
EPS, ALPHA = 8 / 255, 1 / 255


def reason_against(package: str) -> str | None:
    """Why a package cannot be imported and compared; None if it can."""
    try:
        importlib.import_module(package)
    except ImportError as error:
        return str(error)
    return None


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    return reason_against(package) is None


@torch.no_grad()
def least_likely(model: nn.Module, images: Tensor) -> Tensor:
    """The least likely class [N] of each image [N, C, H, W], as a caller would determine it."""
    classes: Tensor = model(images).argmin(dim=1)
    return classes


def torchattacks(model: nn.Module, attack: str, steps: int, images: Tensor, best: bool) -> Generate | None:
    """FGSM, for step l.l. targeted at the least likely class, and BIM.

    Its own mode for that class finds it in a Python loop over the examples; the best call passes the class instead.
    """
    if not installed("torchattacks"):
        return None
    import torchattacks as peer

    if attack == "iter_basic":
        return peer.BIM(model, eps=EPS, alpha=ALPHA, steps=steps)
    made = peer.FGSM(model, eps=EPS)
    if attack == "step_ll" and best:
        made.set_mode_targeted_by_label(quiet=True)
        return lambda images, _: made(images, least_likely(model, images))
    if attack == "step_ll":
        made.set_mode_targeted_least_likely(quiet=True)
    return made


def foolbox(model: nn.Module, attack: str, steps: int, images: Tensor, best: bool) -> Generate | None:
    """FGSM, and its basic iterative attack without a random start; its FGSM has no targets.

    Calling an attack runs the model once more to see whether it succeeded; the best call uses its method ``run``.
    """
    if not installed("foolbox") or attack == "step_ll":
        return None
    import foolbox as peer

    wrapped = peer.PyTorchModel(model, bounds=(0, 1), device=images.device)
    if attack == "fgsm":
        made = peer.attacks.LinfFastGradientAttack()
    else:
        made = peer.attacks.LinfBasicIterativeAttack(abs_stepsize=ALPHA, steps=steps, random_start=False)
    if best:
        return lambda images, labels: made.run(wrapped, images, labels, epsilon=EPS)
    return lambda images, labels: made(wrapped, images, labels, epsilons=EPS)[1]


def art(model: nn.Module, attack: str, steps: int, images: Tensor, best: bool) -> Generate | None:
    """The Adversarial Robustness Toolbox, which takes and returns NumPy arrays."""
    if not installed("art"):
        return None
    from art.attacks.evasion import BasicIterativeMethod, FastGradientMethod
    from art.estimators.classification import PyTorchClassifier

    with torch.no_grad():
        classes = model(images[:1]).shape[1]
    kind = "gpu" if images.is_cuda else "cpu"
    shape = tuple(images.shape[1:])
    wrapped = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), shape, classes, clip_values=(0, 1), device_type=kind, channels_first=True
    )
    common = {"eps": EPS, "batch_size": len(images)}
    if attack == "iter_basic":
        made = BasicIterativeMethod(wrapped, eps_step=ALPHA, max_iter=steps, verbose=False, **common)
    else:
        made = FastGradientMethod(wrapped, targeted=attack == "step_ll", **common)

    def generate(images: Tensor, labels: Tensor) -> Tensor:
        x = images.cpu().numpy()
        y = wrapped.predict(x, batch_size=len(x)).argmin(axis=1) if attack == "step_ll" else labels.cpu().numpy()
        return torch.from_numpy(made.generate(x, y)).to(images.device)

    return generate


def cleverhans(model: nn.Module, attack: str, steps: int, images: Tensor, best: bool) -> Generate | None:
    """Its functions for PyTorch."""
    if not installed("cleverhans"):
        return None
    from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method
    from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent

    common = {"norm": math.inf, "clip_min": 0, "clip_max": 1}
    return {
        "fgsm": lambda x, labels: fast_gradient_method(model, x, EPS, y=labels, **common),
        "step_ll": lambda x, _: fast_gradient_method(model, x, EPS, y=least_likely(model, x), targeted=True, **common),
        "iter_basic": lambda x, labels: projected_gradient_descent(
            model, x, EPS, ALPHA, steps, y=labels, rand_init=False, **common
        ),
    }[attack]


PEERS = {"torchattacks": torchattacks, "foolbox": foolbox, "ART": art, "cleverhans": cleverhans}
