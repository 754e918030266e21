"""Inception v3: torchvision's at width 1, and what width, depth, activation and the size of the images change.

On the smallest images and at a sixteenth of the width, but where the figures are those of the whole network.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from fastadv import PixelSpace, attacks, models
from fastadv.evaluate import evaluate
from fastadv.train import ModelConfig, TrainConfig, checkpoint

SPACE = PixelSpace.symmetric()
CONVOLUTIONS, IN_AUX, IN_INCEPTION_C = 96, 2, 10


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these networks are too small to be worth a second one
    yield
    torch.set_num_threads(threads)


def inception(seed: int = 0, num_classes: int = 5, width: float = 1 / 16, **options: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return models.create("inception_v3", num_classes=num_classes, width=width, **options)


def images_of(size: int = 75, n: int = 2, channels: int = 3) -> Tensor:
    pixels = torch.randint(0, 256, (n, channels, size, size), generator=torch.Generator().manual_seed(0))
    return SPACE.from_pixels(pixels)


def settled(model: nn.Module, images: Tensor) -> nn.Module:
    """In evaluation mode, with the statistics of images: with a new network's, hardly anything reaches the top."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(images)
    return model.eval()


def shapes(width: float = 1.0, num_classes: int = 1000, **options: Any) -> nn.Module:
    """A network without memory for its weights."""
    with torch.device("meta"):
        return inception(width=width, num_classes=num_classes, **options)


def convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}


def size_of(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# --- torchvision's network -------------------------------------------------------------------------------------------

# The auxiliary head: 768 -> 128 (1 x 1) -> 768 (5 x 5), two BatchNorms, 768 -> 1000.
AUX = 768 * 128 + 2 * 128 + 128 * 768 * 25 + 2 * 768 + 769 * 1000
# An Inception block of the 17 x 17 grid with 192 filters throughout: five 1 x 1 convolutions' worth of inputs, four of
# them 768 wide, six of 1 x 7 or 7 x 1, ten BatchNorms.
BLOCK = 4 * 768 * 192 + 6 * 7 * 192 * 192 + 10 * 2 * 192


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, 27_161_264),
        ({"aux": False}, 27_161_264 - AUX),
        ({"aux": False}, 23_834_568),
        ({"deeper": True}, 27_161_264 + 2 * BLOCK),
        ({"num_classes": 10}, 27_161_264 - 990 * (2049 + 769)),
        ({"in_channels": 1}, 27_161_264 - 2 * 9 * 32),
        ({"activation": "elu", "dropout": 0.0}, 27_161_264),
    ],
)
def test_number_of_parameters(options: dict[str, Any], parameters: int) -> None:
    assert size_of(shapes(**options)) == parameters


def test_torchvisions_weights_give_torchvisions_logits() -> None:
    """Both heads', to the last bit."""
    theirs = torchvision.models.inception_v3(init_weights=True)
    images = images_of(299, n=2)
    settled(theirs, images)
    mine = inception(num_classes=1000, width=1.0)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    mine.load_state_dict(theirs.state_dict(), strict=True)
    mine.eval()
    theirs.eval().training = True  # at the top alone: both heads with running statistics and without dropout
    with torch.no_grad():
        expected, got = theirs(images), mine.forward_with_aux(images)
    assert min(logits.std(dim=0).max() for logits in expected) > 0.01  # between the two images
    assert torch.equal(got.logits, expected.logits) and torch.equal(got.aux_logits, expected.aux_logits)


def test_torchvisions_initial_weights() -> None:
    model = inception(width=0.25)
    for name, convolution in convolutions(model).items():
        assert convolution.weight.std().item() == pytest.approx(0.1, rel=0.2), name
    assert model.fc.weight.std().item() == pytest.approx(0.1, rel=0.1)
    assert model.AuxLogits.fc.weight.std().item() == pytest.approx(0.001, rel=0.1)
    assert len({round(module.weight.sum().item(), 5) for module in convolutions(model).values()}) == CONVOLUTIONS


# --- outputs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aux", [True, False])
def test_auxiliary_logits_are_returned_in_training_mode(aux: bool) -> None:
    model, images = inception(aux=aux), images_of()
    trained, tested = model(images), model.eval()(images)
    assert tested.shape == (2, 5)
    if aux:
        assert trained._fields == ("logits", "aux_logits")
        assert trained.logits.shape == trained.aux_logits.shape == (2, 5)
        assert torch.equal(model.forward_with_aux(images).logits, tested)
    else:
        assert trained.shape == (2, 5)
        with pytest.raises(ValueError, match="no auxiliary head: create it with aux=True"):
            model.forward_with_aux(images)


def test_dropout() -> None:
    model = inception(aux=False, dropout=0.9)
    model.requires_grad_(False)
    for module in model.modules():
        module.training = isinstance(module, nn.Dropout)
    images = images_of(n=1)
    assert not torch.equal(model(images), model(images))
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [0.9]


@pytest.mark.parametrize("options", [{}, {"deeper": True}])
def test_every_parameter_gets_a_gradient(options: dict[str, Any]) -> None:
    model = inception(**options)
    images = images_of(96, n=4).requires_grad_()
    outputs = model(images)
    functional.cross_entropy(outputs.logits + outputs.aux_logits, torch.arange(4)).backward()
    assert images.grad.abs().sum() > 0
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name


# --- width, depth, activation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1 / 16, 0.25, 0.5, 0.8125, 1.5, 2, 2.0])
@pytest.mark.parametrize("options", [{}, {"in_channels": 7, "deeper": True}])
def test_width_multiplies_every_number_of_filters(width: float, options: dict[str, Any]) -> None:
    model, whole = shapes(width, **options), shapes(**options)
    for name, convolution in convolutions(whole).items():
        scaled = convolutions(model)[name]
        assert scaled.out_channels == width * convolution.out_channels, name
        images = 1 if name.startswith("Conv2d_1a") else width
        assert scaled.in_channels == images * convolution.in_channels, name
    assert (model.fc.in_features, model.AuxLogits.fc.in_features) == (2048 * width, 768 * width)
    norms = [module.num_features for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms == [convolution.out_channels for convolution in convolutions(model).values()]


@pytest.mark.parametrize("width", [5 / 16, 0.5])
def test_the_branches_of_every_width_fit(width: float) -> None:
    assert inception(width=width, deeper=True)(images_of()).aux_logits.shape == (2, 5)


def test_the_deeper_network_runs_two_more_blocks_below_both_heads() -> None:
    model, order = inception(deeper=True), []
    assert len(convolutions(model)) == CONVOLUTIONS + 2 * IN_INCEPTION_C
    for name, module in model.named_children():
        module.register_forward_hook(lambda *_, name=name: order.append(name))
    model(images_of())
    first = order.index("Mixed_6e")
    assert order[first : first + 4] == ["Mixed_6e", "Mixed_6f", "Mixed_6g", "Mixed_7a"]
    assert order[-1] == "AuxLogits" and len(order) == len(set(order)) == len(list(model.children()))
    silent = copy.deepcopy(model).eval()
    nn.init.zeros_(silent.Mixed_6g.branch1x1.bn.weight)  # a change there shows in both
    for before, after in zip(
        model.eval().forward_with_aux(images_of()), silent.forward_with_aux(images_of()), strict=True
    ):
        assert not torch.equal(before, after)


class Operators(TorchDispatchMode):
    """Counts the calls of each."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[func.overloadpacket.__name__.rstrip("_")] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("activation", "operator"),
    [("relu", "relu"), ("relu6", "hardtanh"), ("tanh", "tanh"), ("elu", "elu"), ("relu_decay:0.1", "relu")],
)
def test_the_activation_follows_every_convolution_and_there_is_no_other(activation: str, operator: str) -> None:
    model, images = inception(activation=activation), images_of()
    kind = type(models.create_activation(activation))
    assert sum(type(module) is kind for module in model.modules()) == CONVOLUTIONS
    with Operators() as operators:
        logits = model(images).logits
    nonlinear = {name: operators.calls[name] for name in ("relu", "hardtanh", "tanh", "elu") if operators.calls[name]}
    assert nonlinear == {operator: CONVOLUTIONS}
    if activation != "relu":
        assert not torch.allclose(logits, inception()(images).logits)


# --- images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "grid"),
    [
        ((2, 3, 75, 75), (3, 3)),
        ((2, 3, 76, 107), (3, 5)),
        ((2, 3, 128, 96), (6, 4)),
        ((2, 3, 299, 299), (17, 17)),
        ((2, 3, 331, 299), (19, 17)),
        ((2, 1, 75, 75), (3, 3)),
        ((2, 4, 75, 75), (3, 3)),
    ],
)
def test_image_sizes_and_channels(shape: tuple[int, ...], grid: tuple[int, int]) -> None:
    model, seen = inception(in_channels=shape[1]), []
    model.Mixed_6e.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape[2:])))
    assert model(torch.rand(shape)).aux_logits.shape == (2, 5)
    assert seen == [grid]


@pytest.mark.parametrize("shape", [(2, 3, 74, 299), (2, 3, 299, 74), (2, 3, 32, 32), (3, 299, 299)])
@pytest.mark.parametrize("aux", [True, False])
def test_images_that_are_too_small(shape: tuple[int, ...], aux: bool) -> None:
    model = inception(aux=aux)
    said = rf"images \[N, C, H, W\] of at least 75 x 75 pixels, got \[{', '.join(map(str, shape))}\]"
    for call in (model, model.eval(), model.forward_with_aux) if aux else (model, model.eval()):
        with pytest.raises(ValueError, match=said):
            call(torch.rand(shape))


@pytest.mark.parametrize(("size", "side"), [(128, 1), (160, 2), (250, 3), (281, 4)])
def test_the_auxiliary_head_on_small_grids_is_one_with_a_smaller_kernel(size: int, side: int) -> None:
    images = images_of(size)
    model = settled(inception(), images)
    head, start = model.AuxLogits, (5 - side) // 2
    kernel = head.conv1.conv.weight[:, :, start : start + side, start : start + side]
    with torch.no_grad():
        head.fc.weight.copy_(torch.eye(5, 48))  # the logits are the first features
        pooled = functional.avg_pool2d(model._features(images), 5, stride=3)
        assert pooled.shape[2:] == (side, side)
        features = torch.relu(head.conv1.bn(functional.conv2d(head.conv0(pooled), kernel)))  # [2, 48, 1, 1]
        assert features[:, :5].max() > 0.1
        torch.testing.assert_close(model.forward_with_aux(images).aux_logits, head.fc(features.flatten(1)))


# --- the rest of the package -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bn", ["eval", "batch"])
@pytest.mark.parametrize("name", ["step_ll", "iter_basic"])
def test_attacks_leave_it_as_it_was(name: str, bn: str) -> None:
    model, images, labels = inception(), images_of(), torch.tensor([0, 3])
    before = copy.deepcopy(model.state_dict())
    adv = attacks.create(name, model, eps=2, space=SPACE, bn=bn)(images, labels)
    distance = (adv - images).abs().amax() * 127.5
    assert 1.9 < distance.item() <= 2 + 1e-4
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_evaluation() -> None:
    """Though the model is in training mode, in which it returns two outputs."""
    model, images, labels = inception(num_classes=8), images_of(n=3), torch.tensor([0, 3, 7])
    counts = evaluate(model, [(images, labels)], attack="step_ll", eps=2, space=SPACE)
    assert counts.n == 3 and counts.top5 is not None


def test_channels_last() -> None:
    images = images_of(96, n=8).double()  # an untrained network magnifies rounding
    model = settled(inception().double(), images)
    expected = model.forward_with_aux(images)
    model.to(memory_format=torch.channels_last)
    kept = []
    for convolution in convolutions(model).values():
        convolution.register_forward_hook(
            lambda module, inputs, output: kept.append(output.is_contiguous(memory_format=torch.channels_last))
        )
    got = model.forward_with_aux(images.to(memory_format=torch.channels_last))
    assert kept == [True] * CONVOLUTIONS
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-9)


def test_bfloat16_autocast() -> None:
    """A training step and an attack. What rounding does is seen lower down: an untrained network magnifies it."""
    images, features = images_of(n=8), []
    model = settled(inception(width=0.25), images)
    model.Mixed_5d.register_forward_hook(lambda module, inputs, output: features.append(output.detach().float()))
    expected = model(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(images).dtype == torch.bfloat16 and expected.dtype == torch.float32
        adv = attacks.create("step_ll", model, eps=2, space=SPACE)(images)
        outputs = model.train()(images)
        loss = functional.cross_entropy(outputs.logits + outputs.aux_logits, torch.arange(8) % 5)
    loss.backward()
    full, low, *_ = features
    assert (low - full).norm() < 0.15 * full.norm()
    assert adv.dtype == torch.float32 and 1.9 < (adv - images).abs().max() * 127.5 <= 2 + 1e-4
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_compiles_whole() -> None:
    model, images = inception(), images_of(n=2)
    compiled = torch.compile(copy.deepcopy(model), backend="eager", fullgraph=True)
    torch.manual_seed(0)
    expected = model(images)
    torch.manual_seed(0)
    for mine, theirs in zip(compiled(images), expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_checkpoint_brings_it_back(tmp_path: Path) -> None:
    options = {"width": 0.125, "activation": "relu_decay:0.01", "deeper": True, "dropout": 0.3}
    config = TrainConfig(model=ModelConfig(name="inception_v3", options=options))
    model = models.create("inception_v3", num_classes=7, in_channels=1, **options)
    checkpoint.save(
        tmp_path,
        model=model,
        config=config,
        classes="abcdefg",
        state={},
        meta=checkpoint.Meta(step=1, epoch=0, in_channels=1),
    )
    loaded = checkpoint.load_model(tmp_path)
    assert loaded.config == config and loaded.model.dropout.p == 0.3
    images = images_of(channels=1)
    for mine, theirs in zip(loaded.model.forward_with_aux(images), model.eval().forward_with_aux(images), strict=True):
        assert torch.equal(mine, theirs)
