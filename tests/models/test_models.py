"""Models by name, activations by hand-computed values, and a small convnet that learns the digits."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastadv import data, models
from fastadv.pixels import PixelSpace

# --- activations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        ("relu", [-2.0, 0.0, 3.0, 8.0], [0.0, 0.0, 3.0, 8.0]),
        ("relu6", [-2.0, 0.0, 3.0, 8.0], [0.0, 0.0, 3.0, 6.0]),
        ("tanh", [-1e3, 0.0, 0.5, 1e3], [-1.0, 0.0, 0.46211716, 1.0]),
        ("elu", [-1e3, -1.0, 0.0, 3.0], [-1.0, -0.63212056, 0.0, 3.0]),
        ("relu_decay:0.1", [-2.0, 0.0, 1.0, 10.0], [0.0, 0.0, 1 / 1.1, 10 / 11]),
        ("relu_decay:0.01", [-2.0, 0.0, 2.0, 10.0], [0.0, 0.0, 2 / 1.04, 5.0]),
        ("relu_decay:1e-3", [10.0, 100.0], [10 / 1.1, 100 / 11]),
    ],
)
def test_activation_values(name: str, x: list[float], expected: list[float]) -> None:
    torch.testing.assert_close(models.create_activation(name)(torch.tensor(x)), torch.tensor(expected))


@pytest.mark.parametrize(("x", "slope"), [(-1.0, 0.0), (0.5, (1 - 0.025) / 1.025**2), (10**0.5, 0.0), (10.0, -9 / 121)])
def test_relu_decay_slope(x: float, slope: float) -> None:
    """(1 - beta x^2) / (1 + beta x^2)^2 for positive x: falling beyond 1 / sqrt(beta)."""
    point = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    models.ReluDecay(beta=0.1)(point).backward()
    assert point.grad is not None
    assert point.grad.item() == pytest.approx(slope, abs=1e-12)


def test_relu_decay_in_half_precision() -> None:
    x = torch.tensor([300.0, 2000.0], dtype=torch.float16)  # x^2 is not a float16
    torch.testing.assert_close(
        models.ReluDecay(beta=0.001)(x).float(), torch.tensor([300 / 91, 2000 / 4001]), rtol=1e-2, atol=0
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gelu", "unknown activation 'gelu'; accepted: relu, relu6, tanh, elu, relu_decay:<beta>"),
        ("relu:2", "unknown activation 'relu:2'"),
        ("relu_decay", "'relu_decay': write relu_decay:<beta> with a positive number"),
        ("relu_decay:big", "'relu_decay:big': write relu_decay:<beta>"),
        ("relu_decay:-0.1", "'relu_decay:-0.1': write relu_decay:<beta>"),
        ("relu_decay:nan", "'relu_decay:nan': write relu_decay:<beta>"),
    ],
)
def test_unknown_activation(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.create_activation(name)


# --- the registry ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "resnet",
            {},
            "unknown model 'resnet'; accepted: small_cnn, inception_v3, .*, timm/<name>, torchvision/<name>",
        ),
        ("resnet18", {}, "unknown model 'resnet18' .did you mean torchvision/resnet18 or timm/resnet18... accepted:"),
        ("vit_b_16", {}, "unknown model 'vit_b_16' .did you mean torchvision/vit_b_16... accepted:"),
        ("convnext_atto", {}, "unknown model 'convnext_atto' .did you mean timm/convnext_atto... accepted:"),
        ("Inception-v3", {}, "unknown model 'Inception-v3' .did you mean inception_v3... accepted: small_cnn"),
        ("keras/resnet50", {}, "unknown model 'keras/resnet50'; accepted"),
        ("small_cnn", {"widht": 2.0}, "small_cnn has no option widht; accepted: width, activation, dropout"),
        ("small_cnn", {"width": 0.0}, "width, which multiplies the .* filters, must be a positive number, got 0.0"),
        ("small_cnn", {"width": float("inf")}, "width, .* must be a positive number, got inf"),
        ("small_cnn", {"width": "x"}, "width, .* must be a positive number, got 'x'"),
        ("small_cnn", {"deeper": 99}, "deeper must be true or false, got 99"),
        ("small_cnn", {"dropout": "x"}, "dropout must be a number at least 0 and at most 1, got 'x'"),
        ("small_cnn", {"dropout": True}, "dropout must be a number at least 0 and at most 1, got True"),
        ("small_cnn", {"activation": 3}, "unknown activation 3; accepted: relu"),
        ("inception_v3", {"width": "x"}, "width must be a positive multiple of 1/16, .* got 'x'"),
        ("inception_v3", {"deeper": "yes"}, "deeper must be true or false, got 'yes'"),
        ("inception_v3", {"aux": 0.4}, "aux must be true or false, got 0.4"),
        ("small_cnn", {"activation": "gelu"}, "unknown activation 'gelu'"),
        ("small_cnn", {"dropout": 1.5}, "dropout must be a number at least 0 and at most 1, got 1.5"),
        ("small_cnn", {"pretrained": True}, "pretrained: no weights are downloaded.*load your own checkpoint"),
        ("inception_v3", {"widht": 2.0}, "no option widht; accepted: width, activation, deeper, aux, dropout"),
        ("inception_v3", {"weights": "DEFAULT"}, "weights: no weights are downloaded.*load your own checkpoint"),
        ("inception_v3", {"width": 0.3}, "width must be a positive multiple of 1/16, such as 0.25 or 1.5, got 0.3"),
        ("inception_v3", {"width": 0}, "width must be a positive multiple of 1/16, .* got 0"),
        ("inception_v3", {"width": -0.5}, "width must be a positive multiple of 1/16, .* got -0.5"),
        ("inception_v3", {"width": float("nan")}, "width must be a positive multiple of 1/16, .* got nan"),
        ("inception_v3", {"width": float("inf")}, "width must be a positive multiple of 1/16, .* got inf"),
        ("inception_v3", {"activation": "gelu"}, "unknown activation 'gelu'"),
        ("inception_v3", {"dropout": 1.5}, "dropout must be a number at least 0 and at most 1, got 1.5"),
        ("small_cnn", {"num_classes": 1}, "num_classes must be an integer of at least 2, got 1"),
        ("small_cnn", {"num_classes": True}, "num_classes must be an integer of at least 2, got True"),
        ("small_cnn", {"num_classes": "10"}, "num_classes must be an integer of at least 2, got '10'"),
        ("small_cnn", {"in_channels": 0}, "in_channels must be an integer of at least 1, got 0"),
    ],
)
def test_create_refuses(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.create(name, **{"num_classes": 10, **options})


def test_a_model_is_created_by_its_name() -> None:
    with pytest.raises(TypeError, match="name must be a model's name, such as 'small_cnn', got type"):
        models.create(models.SmallCNN, num_classes=10)  # type: ignore[arg-type]


def test_names_are_looked_for_in_the_libraries_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, found in (("timm", "torchvision/resnet18"), ("torchvision.models", "timm/resnet18")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(ValueError, match=rf"unknown model 'resnet18' .did you mean {found}... accepted"):
                models.create("resnet18", num_classes=10)


def test_names() -> None:
    assert models.names() == ["small_cnn", "inception_v3", "inception_v4", "timm/<name>", "torchvision/<name>"]


# --- SmallCNN -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(3, 1, 8, 8), (2, 1, 28, 28), (2, 3, 32, 32), (2, 3, 64, 48), (2, 2, 1, 1), (0, 1, 8, 8)]
)
def test_small_cnn_takes_any_image_size(shape: tuple[int, ...]) -> None:
    model = models.create("small_cnn", num_classes=7, in_channels=shape[1]).eval()
    assert model(torch.rand(shape)).shape == (shape[0], 7)


def test_defaults() -> None:
    model = models.create("small_cnn", num_classes=10)
    assert model.training
    assert model(torch.rand(2, 3, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(
    ("width", "filters"),
    [(1.0, [16, 32, 32, 64, 64]), (0.5, [8, 16, 16, 32, 32]), (1.5, [24, 48, 48, 96, 96]), (0.01, [1, 1, 1, 1, 1])],
)
def test_width_multiplies_the_filters(width: float, filters: list[int]) -> None:
    model = models.create("small_cnn", num_classes=10, width=width)
    assert [module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d)] == filters


def test_every_convolution_is_normalised_and_has_no_bias() -> None:
    model = models.create("small_cnn", num_classes=10, activation="relu_decay:0.1", dropout=0.25)
    kinds = [type(module) for module in model.modules() if not list(module.children())]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, models.ReluDecay] * 5 + [nn.AdaptiveAvgPool2d, nn.Dropout, nn.Linear]
    assert all(module.bias is None for module in model.modules() if isinstance(module, nn.Conv2d))
    assert model.dropout.p == 0.25


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For tiny batches: on a busy machine threads that wait for each other take twenty times as long as one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_small_cnn_learns_the_digits() -> None:
    digits, space = data.load("digits"), PixelSpace.unit()
    train = data.TensorLoader(digits.train, 64, space=space)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.create("small_cnn", num_classes=10, in_channels=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for epoch in range(6):
        for images, labels in train.epoch(epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    ((images, labels),) = data.TensorLoader(digits.test, 500, space=space, shuffle=False).epoch(0)
    with torch.no_grad():
        accuracy = (model.eval()(images).argmax(1) == labels).float().mean().item()
    assert accuracy >= 0.97
