"""fold_bn=True: the same function up to rounding, whatever the model is made of, and the model as it was."""

from __future__ import annotations

import copy
import ctypes
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.utils.checkpoint import checkpoint
from torchvision import models as torchvision_models

from fastadv import PixelSpace, attacks, models
from fastadv.attacks.engine import cuda_graph_recorder
from fastadv.attacks.engine.bn_folding import FoldedModel
from fastadv.attacks.engine.bn_folding_search import Search
from tests.attacks.models import ConvNet, batch
from tests.attacks.tape import TapeRecorder

CHANGED = "in this call, a convolution's output was also used outside its BatchNorm or passed through a custom gradient"


def set_up(model: nn.Module) -> nn.Module:
    """Running statistics and affine constants unlike any that folding could leave out unnoticed."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor, low, high in ((module.running_mean, -0.5, 0.5), (module.running_var, 0.5, 1.5)):
                tensor.uniform_(low, high, generator=generator)
            if module.affine:
                module.weight.data.uniform_(0.5, 1.5, generator=generator)
                module.bias.data.uniform_(-0.5, 0.5, generator=generator)
    return model


def test_by_hand() -> None:
    """2 x 3 + 1 = 7; (7 - 4) / sqrt(3 + 1) * 5 + 6 = 13.5."""
    conv, bn = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=1.0)
    for tensor, value in zip((conv.weight, conv.bias, bn.weight, bn.bias), (2.0, 1.0, 5.0, 6.0), strict=True):
        nn.init.constant_(tensor, value)
    bn.running_mean.fill_(4.0)
    bn.running_var.fill_(3.0)
    model = nn.Sequential(conv, bn).eval()
    images = torch.full((1, 1, 2, 2), 3.0)
    folded = FoldedModel(model, model, images, None)
    folded.refresh()
    weight, bias = folded.tensors()
    assert weight.item() == 5.0 and bias.item() == -1.5  # 5 / 2 x 2; (1 - 4) x 5 / 2 + 6
    with folded.in_place():
        assert (model(images) == 13.5).all()


class Branches(nn.Module):
    """Of six convolutions only two have a BatchNorm that alone reads them, one of which has no affine constants."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1, groups=g) for g in (1, 3, 1, 1, 1, 1))
        self.bns = nn.ModuleList(nn.BatchNorm2d(3, affine=i != 1) for i in range(6))
        self.head = nn.Linear(3 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:  # [N, 3, 8, 8] -> [N, 5]
        x = self.bns[0](self.convs[0](x)).relu_()
        x = self.bns[1](self.convs[1](x)).sigmoid()
        read_twice = self.convs[2](x)
        x = self.bns[2](read_twice) + read_twice
        x = self.bns[3](self.convs[3](x) * 2)  # something is in between
        x = self.convs[4](self.convs[4](x))  # called twice
        x = self.convs[5](self.bns[4](x))
        # Read without a gradient, and so little that no output tells.
        return self.head(self.bns[5](x).flatten(1)) * (1 + 1e-3 * x.detach().mean().sigmoid())


MODELS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {  # how many are folded, and pixels a side
    "small_cnn": (lambda: models.create("small_cnn", num_classes=5), 5, 8),
    "ConvNet": (ConvNet, 2, 8),
    "Branches": (Branches, 2, 8),
    "resnet18": (lambda: torchvision_models.resnet18(num_classes=5), 20, 32),
    "vgg11_bn": (lambda: torchvision_models.vgg11_bn(num_classes=5), 8, 32),
    "densenet121": (lambda: torchvision_models.densenet121(num_classes=5), 59, 32),
    "mobilenet_v3": (lambda: torchvision_models.mobilenet_v3_small(num_classes=5), 34, 32),
    "timm/efficientnet_lite0": (lambda: timm.create_model("efficientnet_lite0", num_classes=5), 49, 32),
    "inception_v3": (lambda: models.create("inception_v3", num_classes=5, width=0.125), 94, 75),
}


@pytest.mark.parametrize(("make", "folds", "side"), MODELS.values(), ids=MODELS)
def test_the_same_function(make: Callable[[], nn.Module], folds: int, side: int) -> None:
    torch.manual_seed(0)
    model = set_up(make()).double().eval()
    images = torch.rand(2, 3, side, side, dtype=torch.float64)
    folded = FoldedModel(model, model, images[:1], None)
    assert len(folded) == folds
    folded.refresh()
    results = []
    for context in (None, folded.in_place()):
        x = images.clone().requires_grad_()
        if context is None:
            logits = model(x)
        else:
            with context:
                logits = model(x)
        results.append((logits.detach(), torch.autograd.grad(logits.exp().sum(), x)[0]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-12)
    assert torch.equal(model(images), results[0][0])  # and as before afterwards


NAMES = [name for name in attacks.names() if issubclass(attacks.get(name), attacks.GradientAttack)]


@pytest.mark.parametrize("capture", [False, True], ids=["eager", "captured"])
@pytest.mark.parametrize("name", NAMES)
def test_every_attack(monkeypatch: pytest.MonkeyPatch, name: str, capture: bool) -> None:
    """In float64 the same images, but for the few elements whose gradient is zero up to rounding; while training."""
    monkeypatch.setattr(cuda_graph_recorder, "create_recorder", TapeRecorder)
    model = set_up(ConvNet().double()).train()
    folded, plain = (
        attacks.create(name, model, eps=8, seed=3, fold_bn=fold, capture=fold and capture) for fold in (True, False)
    )
    for seed in range(4):
        images, labels = batch(6, PixelSpace.unit(), torch.float64, seed=seed)
        assert ((folded(images, labels) - plain(images, labels)).abs() > 1e-9).sum() <= 2
        with torch.no_grad():
            for tensor in model.state_dict().values():
                if tensor.is_floating_point():
                    tensor.mul_(1.1)  # weights and statistics
    assert model.training and all("forward" not in vars(module) for module in model.modules())


def test_weights_changed_behind_autograds_back_are_followed() -> None:
    model = set_up(ConvNet().double())
    folded, plain = (attacks.create("step_ll", model, eps=8, fold_bn=fold) for fold in (True, False))
    images, _ = batch(6, PixelSpace.unit(), torch.float64)
    folded(images)
    model.features[0].weight.data.neg_()  # which no version counter shows
    assert ((folded(images) - plain(images)).abs() > 1e-9).sum() <= 2


def test_layers_that_were_replaced_are_found_again() -> None:
    model = set_up(ConvNet().double())
    folded, plain = (attacks.create("step_ll", model, eps=8, fold_bn=fold) for fold in (True, False))
    images, _ = batch(6, PixelSpace.unit(), torch.float64)
    folded(images)
    model.features[1] = set_up(nn.BatchNorm2d(7).double())
    model.features[1].running_mean.add_(1.0)
    assert ((folded(images) - plain(images)).abs() > 1e-9).sum() <= 2


def own_forward(layer: nn.Module) -> None:
    """A forward of the instance's own, as some libraries put in place."""
    forward = layer.forward
    layer.forward = lambda x: 2 * forward(x)  # type: ignore[method-assign]


# What makes a layer another function than its class and parameters say, or shows what it makes to somebody else.
NOT_PLAIN: dict[str, Callable[[nn.Module], object]] = {
    "forward pre-hook": lambda layer: layer.register_forward_pre_hook(lambda _, args: (2 * args[0],)),
    "forward hook": lambda layer: layer.register_forward_hook(lambda _, args, output: 2 * output),
    "hook that reads": lambda layer: layer.register_forward_hook(lambda _, args, output: None),
    "backward pre-hook": lambda layer: layer.register_full_backward_pre_hook(lambda _, grad: (grad[0].roll(1, 1),)),
    "backward hook": lambda layer: layer.register_full_backward_hook(lambda _, into, out: (into[0].roll(1, 1),)),
    "own forward": own_forward,
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 3),
    "pruned bias": lambda layer: prune.random_unstructured(layer, "bias", 3),
    "weight norm": lambda layer: nn.utils.weight_norm(layer),
    "parametrization": lambda layer: parametrize.register_parametrization(layer, "weight", nn.Tanh()),
}


@pytest.mark.parametrize("when", ["before the first call", "after it"])
@pytest.mark.parametrize("layer", [0, 1], ids=["convolution", "BatchNorm"])
@pytest.mark.parametrize("change", NOT_PLAIN.values(), ids=NOT_PLAIN)
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_layers_that_are_not_plain_stay_as_they_are(change: Callable[[Any], object], layer: int, when: str) -> None:
    """The same images while the weights change, whatever computes them; the other pair of layers is folded."""
    model = ConvNet().double()
    model.features[0] = nn.Conv2d(3, 7, 3, padding=1).double()  # with a bias
    set_up(model)
    folded, plain = (attacks.create("step_ll", model, eps=8, fold_bn=fold) for fold in (True, False))
    images, _ = batch(6, PixelSpace.unit(), torch.float64)
    if when == "after it":
        folded(images)
    change(model.features[layer])
    for _ in range(2):
        assert ((folded(images) - plain(images)).abs() > 1e-9).sum() <= 2
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.1)
    assert len(FoldedModel(model.eval(), model, images[:1], None)) == 1


class ByAddress(nn.Module):
    """Reads what the convolution makes by its address, as a kernel of one's own does, which no operator shows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:  # [N, 3, 8, 8] -> [N, 5]
        x = self.conv(x)
        memory = ctypes.string_at(x.data_ptr(), x.numel() * x.element_size())
        seen = torch.frombuffer(bytearray(memory), dtype=x.dtype)  # [N * 4 * 8 * 8]
        return self.head((self.bn(x) * seen.mean()).flatten(1))


class ByHand(nn.Module):
    """Makes something else of the BatchNorm's input than the BatchNorm, by a forward that is not the layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:  # [N, 3, 8, 8] -> [N, 5]
        folded = "forward" in vars(self.bn)
        return self.head(self.bn(self.conv(x)).flatten(1)) * (2 if folded else 1)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(ByAddress, CHANGED), (ByHand, "folding changed the logits")],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_another_function_is_noticed(kind: type[nn.Module], reason: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model: Any = set_up(kind()).to(dtype)
    folded, plain = (attacks.create("step_ll", model, eps=4, fold_bn=fold) for fold in (True, False))
    images, _ = batch(6, PixelSpace.unit(), dtype)
    with pytest.warns(UserWarning, match=f"step_ll runs without fold_bn=True: .*{reason}"):
        result = folded(images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        assert torch.equal(folded(images), result)
    assert torch.equal(result, plain(images))
    assert "forward" not in vars(model.conv) and "forward" not in vars(model.bn)


class Switched(nn.Module):
    """A convolution and its BatchNorm, and in dark batches something else that is done with them."""

    def __init__(self, else_done: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.bns = nn.Conv2d(3, 4, 3, padding=1), nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))
        self.head = nn.Linear(4 * 64, 5)
        self.else_done = else_done

    def forward(self, x: Tensor) -> Tensor:  # [N, 3, 8, 8] -> [N, 5]
        dark = x.mean() < 0.5
        x = self.else_done(self, x) if dark else self.bns[0](self.conv(x))
        return self.head(x.relu().flatten(1))


def and_the_sum(model: Any, x: Tensor) -> Tensor:
    x = model.conv(x)
    return model.bns[0](x) + x


def and_the_mean_without_a_gradient(model: Any, x: Tensor) -> Tensor:
    x = model.conv(x)
    return model.bns[0](x) * x.detach().mean((2, 3), keepdim=True)


def in_place(model: Any, x: Tensor) -> Tensor:
    return model.bns[0](model.conv(x).mul_(2))


def with_a_written_weight(model: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        model.conv.weight.abs_()
    return model.bns[0](model.conv(x))


def with_another_weight(model: Any, x: Tensor) -> Tensor:
    return model.bns[0](torch.func.functional_call(model.conv, {"weight": -model.conv.weight}, (x,)))


def with_other_statistics(model: Any, x: Tensor) -> Tensor:
    variance = {"running_var": 2 * model.bns[0].running_var}
    return torch.func.functional_call(model.bns[0], variance, (model.conv(x),))


class BackwardOfItsOwn(torch.autograd.Function):
    """Returns what a layer makes inside it, as reentrant checkpointing does, and turns the gradient around."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.Module) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(x)
        return layer(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            made = type(ctx.layer).forward(ctx.layer, x)  # whatever is in place of its forward meanwhile
        return -torch.autograd.grad(made, x, grad)[0], None


class ReverseInPlace(torch.autograd.Function):
    """A gradient reversal layer that says to have changed its input, and so returns the same tensor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -grad


class ReadInBackward(torch.autograd.Function):
    """The identity, whose gradient depends on another tensor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, read: Tensor) -> Tensor:
        ctx.save_for_backward(read)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.saved_tensors[0].sign(), None


def convolution_in_a_function(model: Any, x: Tensor) -> Tensor:
    return model.bns[0](BackwardOfItsOwn.apply(x, model.conv))


def batch_norm_in_a_function(model: Any, x: Tensor) -> Tensor:
    return BackwardOfItsOwn.apply(model.conv(x), model.bns[0])


def batch_norm_without_a_gradient(model: Any, x: Tensor) -> Tensor:
    made = model.conv(x)
    with torch.no_grad():
        scaled = model.bns[0](made)
    return scaled * x.mean(1, keepdim=True)


def reversed_in_place(model: Any, x: Tensor) -> Tensor:
    return model.bns[0](ReverseInPlace.apply(model.conv(x)))


def read_in_the_backward_pass(model: Any, x: Tensor) -> Tensor:
    made = model.conv(x)
    return ReadInBackward.apply(model.bns[0](made), made)


def with_a_hook_on_the_tensor(model: Any, x: Tensor) -> Tensor:
    made = model.conv(x)
    if made.requires_grad:
        made.register_hook(lambda grad: grad.clamp(-1e-3, 1e-3))
    return model.bns[0](made)


def with_a_hook_on_its_function(model: Any, x: Tensor) -> Tensor:
    made = model.conv(x)
    if made.grad_fn is not None:
        made.grad_fn.register_prehook(lambda grads: tuple(-grad for grad in grads))
    return model.bns[0](made)


ANOTHER_GRADIENT = [
    *(convolution_in_a_function, batch_norm_in_a_function, batch_norm_without_a_gradient, reversed_in_place),
    *(read_in_the_backward_pass, with_a_hook_on_the_tensor, with_a_hook_on_its_function),
]


class Beside(nn.Module):
    """A convolution and a BatchNorm called in some way, and a shortcut, by which a gradient arrives in any case."""

    def __init__(self, call: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.bns = nn.Conv2d(3, 4, 3, padding=1), nn.ModuleList([nn.BatchNorm2d(4)])
        self.shortcut, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4 * 64, 5)
        self.call = call

    def forward(self, x: Tensor) -> Tensor:  # [N, 3, 8, 8] -> [N, 5]
        return self.head((self.call(self, x).relu() + self.shortcut(x)).flatten(1))


@pytest.mark.parametrize("call", ANOTHER_GRADIENT)
def test_another_gradient_between_the_layers_is_kept(call: Callable[[Any, Tensor], Tensor]) -> None:
    """Whose logits, folded, are the same."""
    torch.manual_seed(0)
    model = set_up(Beside(call).double())
    folded, plain = (attacks.create("step_ll", model, eps=4, fold_bn=fold) for fold in (True, False))
    images, _ = batch(6, PixelSpace.unit(), torch.float64)
    with pytest.warns(UserWarning, match="step_ll runs without fold_bn=True: "):
        assert torch.equal(folded(images), plain(images))


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("of", ["the convolution", "all layers"])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True", "ignore:.* runs without fold_bn=True")
def test_reentrant_checkpointing_is_refused(of: str, fast: bool) -> None:
    """Through which torch.autograd.grad does not go; folded, its gradient was dropped."""
    model = set_up(Beside(lambda model, x: model.bns[0](checkpoint(model.conv, x, use_reentrant=True))))
    called = model if of == "the convolution" else lambda x: checkpoint(ConvNet(), x, use_reentrant=True)
    with pytest.raises(ValueError, match=r"step_ll: there is no gradient to the images: .* pass use_reentrant=False"):
        attacks.create("step_ll", called, eps=4, fast=fast)(batch()[0])


@pytest.mark.parametrize(
    "else_done",
    [
        lambda model, x: model.bns[1](model.conv(x)),
        *(and_the_sum, and_the_mean_without_a_gradient, in_place),
        *(with_a_written_weight, with_another_weight, with_other_statistics),
        *ANOTHER_GRADIENT,
    ],
)
@pytest.mark.parametrize("name", ["step_ll", "iter_ll", "at_each"])
def test_a_call_that_does_something_else_is_noticed(name: str, else_done: Callable[[Any, Tensor], Tensor]) -> None:
    """In that call, whose images are what they are without folding."""
    torch.manual_seed(0)
    model = set_up(Switched(else_done).double())
    method = "step_ll" if name == "at_each" else name
    folded, plain = (attacks.create(method, model, eps=4, fold_bn=fold) for fold in (True, False))

    def made(attack: Any, images: Tensor) -> Tensor:
        if name == "at_each":
            return torch.stack(list(attack.at_each(images, eps=[2, 4])))
        return attack(images)

    images, _ = batch(6, PixelSpace.unit(), torch.float64)
    bright, dark = 0.6 + images / 4, images / 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ((made(folded, bright) - made(plain, bright)).abs() > 1e-9).sum() <= 2
    with pytest.warns(UserWarning, match=f"runs without fold_bn=True: {CHANGED}"):
        result = made(folded, dark)
    assert torch.equal(result, made(plain, dark))
    assert torch.equal(made(folded, bright), made(plain, bright))  # as it is from then on


class Binary(ConvNet):
    """Writes a convolution's weight in each call, anew from another that is trained."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.by, self.trained = by, nn.Parameter(torch.randn_like(self.features[0].weight))

    def forward(self, images: Tensor) -> Tensor:
        conv, weight = self.features[0], self.trained.detach().sign()
        if self.by == "copy":
            conv.weight.data.copy_(weight)
        else:
            conv.weight.data = weight
        return super().forward(images)


@pytest.mark.parametrize("by", ["copy", "assignment"])
def test_weights_that_the_model_writes_are_its_own(by: str) -> None:
    model = set_up(Binary(by).double())
    folded, plain = (attacks.create("step_ll", model, eps=4, fold_bn=fold) for fold in (True, False))
    images, _ = batch(6, PixelSpace.unit(), torch.float64)
    for _ in range(2):
        assert ((folded(images) - plain(images)).abs() > 1e-9).sum() <= 2
        with torch.no_grad():
            model.trained.neg_()
    assert len(FoldedModel(model.eval(), model, images, None)) == 1  # the other pair of layers


class Average(nn.Module):
    """Of another network's weights, as a teacher or its smoothed copy runs, which are not those of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = ConvNet()
        self.averages = {name: value.clone() for name, value in self.net.double().state_dict().items()}

    def forward(self, x: Tensor) -> Tensor:
        return torch.func.functional_call(self.net, self.averages, (x,))


class Quantised(ConvNet):
    """Computes with rounded weights, and puts the exact ones back."""

    def forward(self, x: Tensor) -> Tensor:
        conv = self.features[0]
        exact = conv.weight.data
        conv.weight.data = (exact * 64).round() / 64
        try:
            return super().forward(x)
        finally:
            conv.weight.data = exact


@pytest.mark.parametrize(("make", "folds"), [(Average, 0), (Quantised, 1)])
def test_weights_put_in_place_for_the_call(make: Callable[[], nn.Module], folds: int) -> None:
    model = set_up(make().double())
    folded, plain = (attacks.create("step_ll", model, eps=4, fold_bn=fold) for fold in (True, False))
    images, _ = batch(6, PixelSpace.unit(), torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error" if folds else "ignore")
        folded(images)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.neg_()
    assert ((folded(images) - plain(images)).abs() > 1e-9).sum() <= 2
    assert bool(folds) == any(module is not None for module in folded._folding._found.values())


class Fixed(ConvNet):
    """Takes batches of one size."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.view(6, 3, 8, 8))


class Viewed(ConvNet):
    """Takes what its layers make to lie in memory as the images do."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.head(x.view(x.size(0), -1))


class ByName(ConvNet):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self.features:
            known = isinstance(layer, (nn.Conv2d, nn.BatchNorm2d))
            x = layer(input=x) if known else layer(x)
        return self.head(x.flatten(1))


class LooksAtShapes(ConvNet):
    def forward(self, x: Tensor) -> Tensor:
        x = self.features[0](x)
        assert x.dim() == 4 and len(x) == x.shape[0] and x.is_floating_point() and x.device.type == "cpu"
        return self.head(self.features[1:](x).flatten(1))


class WithConditions(ConvNet):
    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return torch.cond(logits.sum() > 0, lambda y: 2 * y, lambda y: y.sin(), (logits,))


class Vectorised(ConvNet):
    def forward(self, x: Tensor) -> Tensor:
        return torch.func.vmap(super().forward)(x[:, None])[:, 0]


class Checkpointed(nn.Module):
    """Computes anew what the backward pass reads, and stops once it has that: behind the second convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 4, 3, padding=1) for _ in range(2))
        self.bns = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))
        self.head = nn.Linear(4 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:  # [N, 3, 8, 8] -> [N, 5]
        return self.head(checkpoint(self.branches, x, use_reentrant=False).sigmoid().flatten(1))

    def branches(self, x: Tensor) -> Tensor:
        one, other = (conv(x) for conv in self.convs)
        return self.bns[0](one) + self.bns[1](other)


@pytest.mark.parametrize("name", ["step_ll", "iter_ll"])
@pytest.mark.parametrize("make", [Fixed, Viewed, ByName, LooksAtShapes, WithConditions, Vectorised, Checkpointed])
def test_models_that_run_run_folded(make: Callable[[], nn.Module], name: str) -> None:
    """Or, inside torch.func.vmap, as they are."""
    model = set_up(make().double())
    folded, plain = (attacks.create(name, model, eps=4, fold_bn=fold) for fold in (True, False))
    images, _ = batch(6, PixelSpace.unit(), torch.float64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore" if make is Vectorised else "error", message=".* runs without")
        for _ in range(2):
            assert ((folded(images) - plain(images)).abs() > 1e-9).sum() <= 2


def test_a_search_keeps_no_activations() -> None:
    """Nor a graph of them, beside what the attack itself needs in its first call."""
    model, made = ConvNet(), []
    model.features[1].register_forward_pre_hook(lambda _, inputs: made.append(weakref.ref(inputs[0])))
    search = Search(model.eval(), model, batch(6)[0])
    assert not search.output.requires_grad
    assert len(made) == 1 and made[0]() is None


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.rand(2, 8, 8, 3), r"pass images.permute\(0, 3, 1, 2\)"),
        (torch.rand(2, 3, 8, 8, dtype=torch.float64), r"convert one by .to\(dtype\)"),
    ],
)
def test_images_that_do_not_fit_are_explained(images: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=f"step_ll: the model fails on these images: .*{said}"):
        attacks.create("step_ll", ConvNet(), eps=4, fold_bn=True)(images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_half_precision_and_autocast(dtype: torch.dtype) -> None:
    """Nearly all signs agree: where they do not, rounding decides."""
    model = set_up(ConvNet())
    folded, plain = (attacks.create("step_ll", model, eps=8, fold_bn=fold) for fold in (True, False))
    images, _ = batch(64)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        differing = (folded(images) != plain(images)).float().mean()
    assert differing < (1e-3 if dtype == torch.float32 else 0.1)


def test_a_call_that_fails_leaves_the_model_as_it_was() -> None:
    class Fails(ConvNet):
        broken = False

        def forward(self, images: Tensor) -> Tensor:
            logits = super().forward(images)
            if self.broken:
                raise ArithmeticError
            return logits

    model = Fails().train()
    attack = attacks.create("iter_ll", model, eps=4, fold_bn=True)
    images, _ = batch()
    attack(images)
    state, before = copy.deepcopy(model.state_dict()), images.clone()
    model.broken = True
    with pytest.raises(ArithmeticError):
        attack.perturb_(images)
    assert torch.equal(images, before) and model.training
    assert all("forward" not in vars(module) for module in model.modules())
    assert all(map(torch.equal, model.state_dict().values(), state.values()))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 5)), "no BatchNorm layer that is the only user"),
        (
            nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 5, 8), nn.Flatten()),
            "no BatchNorm layer that is the only user",
        ),
        (
            nn.Sequential(prune.identity(nn.Conv2d(3, 5, 8), "weight"), nn.BatchNorm2d(5), nn.Flatten()),
            "left out for hooks, a custom forward, or weights that the model computes: 1 layer",
        ),
    ],
    ids=["no BatchNorm", "before the convolution", "pruned"],
)
def test_nothing_to_fold(model: nn.Module, reason: str) -> None:
    folded, plain = (attacks.create("step_ll", model, eps=4, fold_bn=fold) for fold in (True, False))
    images, _ = batch()
    with pytest.warns(UserWarning, match=f"step_ll runs without fold_bn=True: .*{reason}"):
        result = folded(images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        assert torch.equal(folded(images), result)
    assert torch.equal(result, plain(images))


def test_a_function_is_not_folded() -> None:
    model = ConvNet().eval()
    attack: Any = attacks.create("step_ll", lambda x: model(x), eps=4, fold_bn=True)
    with pytest.warns(
        UserWarning, match="step_ll runs without fold_bn=True: a function is not an nn.Module: pass the module itself"
    ):
        attack(batch()[0])


def test_the_statistics_of_a_batch_cannot_be_folded() -> None:
    with pytest.raises(ValueError, match="fold_bn=True needs bn='eval'"):
        attacks.create("step_ll", ConvNet(), bn="batch", fold_bn=True)


def test_a_model_that_moved_to_another_dtype_is_folded_anew() -> None:
    model = set_up(ConvNet())
    folded, plain = (attacks.create("step_ll", model, eps=8, fold_bn=fold) for fold in (True, False))
    folded(batch(6)[0])
    model.double()
    images, _ = batch(6, PixelSpace.unit(), torch.float64)
    assert ((folded(images) - plain(images)).abs() > 1e-9).sum() <= 2


@pytest.mark.parametrize("share", ["most", "few"])
def test_the_layout_is_that_of_most_weights(share: str) -> None:
    """One folded convolution among many others would only turn the images around for all of them."""
    wide = nn.Conv2d(9, 60, 3, padding=1)
    model = nn.Sequential(nn.Conv2d(3, 9, 3, padding=1), nn.BatchNorm2d(9), wide, nn.Flatten(), nn.Linear(3840, 5))
    if share == "most":
        model.insert(3, nn.BatchNorm2d(60))
    folded = FoldedModel(model.eval(), model, batch(1)[0], None)
    given = folded.in_layout(batch(6)[0])
    assert given.is_contiguous(memory_format=torch.channels_last) == (share == "most")
    weight, *_ = folded.tensors()
    assert weight.is_contiguous(memory_format=torch.channels_last) == (share == "most")
