"""The same attacks by other packages, as their users would write them.

Each maker takes a model of images [N, C, H, W] in [0, 1], the name of an attack, the number of steps, an example of the
images, and whether the call is to be the package's cheapest or the one that its documentation shows, where it has two.
It returns a function from (images, labels [N]) to adversarial images; None where the package is not installed, or has
no such attack. Sizes are 8 and 1 of 255. For step l.l., which none of them has by that name, labels are not used: the
class is asked of the model, as each package does or, where it does not, as its caller would.
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
    """Why a package is not compared with: it cannot be imported. None where it can."""
    try:
        importlib.import_module(package)
    except ImportError as error:
        return str(error)
    return None


def installed(package: str) -> bool:
    """Whether it can be imported."""
    return reason_against(package) is None


@torch.no_grad()
def least_likely(model: nn.Module, images: Tensor) -> Tensor:
    """The class [N] of each of the images [N, C, H, W], as a caller asks for it."""
    classes: Tensor = model(images).argmin(dim=1)
    return classes


def torchattacks(model: nn.Module, attack: str, steps: int, images: Tensor, best: bool) -> Generate | None:
    """FGSM, for step l.l. targeted at the least likely class, and BIM.

    Its own mode for that class looks for it in a Python loop over the examples; at best the caller gives the class.
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

    A call of an attack asks the model once more, whether it succeeded; at best its method ``run`` is called alone.
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
