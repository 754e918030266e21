"""A network is tried on two images before training: a mismatch raises, and nothing changes."""

from __future__ import annotations

import pytest
import torch

from fastadv import models
from fastadv.models.check_input import check_accepts


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("inception_v3", (3, 74, 75), "inception_v3 takes images .* of at least 75 x 75 pixels, got .2, 3, 74, 75."),
        ("inception_v4", (3, 32, 32), "Kernel size can't be greater than actual input size"),
        ("torchvision/alexnet", (3, 32, 32), "Output size is too small"),
        ("timm/vit_tiny_patch16_224", (3, 64, 64), r"Input height \(64\) doesn't match model \(224\)"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_images_that_do_not_fit(name: str, shape: tuple[int, ...], said: str, training: bool) -> None:
    model = models.create(name, num_classes=10, in_channels=shape[0]).train(training)
    with pytest.raises(ValueError, match=r"images \[C, H, W\] = \[3, .* do not fit: .*" + said) as error:
        check_accepts(model, shape)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        ("small_cnn", (1, 8, 8), {"dropout": 0.5}),
        ("inception_v3", (3, 75, 75), {"width": 0.25}),
        ("timm/resnet18", (3, 16, 16), {"drop_rate": 0.5, "drop_path_rate": 0.5}),
        ("torchvision/googlenet", (3, 16, 16), {}),
    ],
)
def test_what_fits_leaves_no_trace(
    name: str, shape: tuple[int, ...], options: dict[str, float], training: bool
) -> None:
    """Running statistics, their counters, gradients, modes and the generator that dropout draws from."""
    model = models.create(name, num_classes=10, in_channels=shape[0], **options).train(training)
    before = {entry: tensor.clone() for entry, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    check_accepts(model, shape)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[entry]) for entry, tensor in model.state_dict().items())
    assert all(module.training == training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_one_image_where_minibatches_have_one() -> None:
    """BatchNorm of a single value has no statistics; the first iteration reports it, as it depends on m."""
    model = models.create("timm/resnet18", num_classes=10, in_channels=1)
    check_accepts(model, (1, 8, 8))
    with pytest.raises(ValueError, match="do not fit: Expected more than 1 value per channel when training"):
        check_accepts(model, (1, 8, 8), count=1)
