"""at_each: several sizes at once, bit for bit equal to a call with each size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastadv import PixelSpace, TruncatedNormalEps, attacks, models

SIZES = [0.0, 2.0, 16.0, 4.0]
UNIT = PixelSpace.unit()


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return models.create("small_cnn", num_classes=7, in_channels=1, width=0.25, dropout=0.5)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(9, 1, 8, 8, generator=generator), torch.randint(0, 7, (9,), generator=generator)


@pytest.mark.parametrize("bn", ["eval", "batch"])
@pytest.mark.parametrize("name", attacks.names())
def test_equal_to_a_call_with_each_size(name: str, bn: str) -> None:
    model, (images, labels) = network(), batch()

    def create() -> attacks.Attack:
        return attacks.create(name, model, space=UNIT, seed=5, bn=bn)

    for each, size in zip(create().at_each(images, labels, eps=SIZES), SIZES, strict=True):
        assert torch.equal(each, create()(images, labels, eps=size))
        assert not each.requires_grad


@pytest.mark.parametrize("name", ["fgsm", "step_ll", "iter_ll"])
def test_with_folded_batch_norm(name: str) -> None:
    model, (images, labels) = network().eval(), batch()
    attack = attacks.create(name, model, space=UNIT, fold_bn=True)
    for each, size in zip(attack.at_each(images, labels, eps=SIZES), SIZES, strict=True):
        assert torch.equal(each, attack(images, labels, eps=size))


def test_one_gradient_is_promised_only_by_methods_that_start_from_the_clean_image() -> None:
    assert attacks.FGSM.one_gradient and not attacks.NFGSM.one_gradient


@pytest.mark.parametrize("name", ["random_sign", "step_rnd", "step_ll", "pgd"])
def test_the_stream_advances_once_for_all_sizes(name: str) -> None:
    model, (images, labels) = network(), batch()
    one, other = (attacks.create(name, model, space=UNIT, seed=5) for _ in range(2))
    list(one.at_each(images, labels, eps=SIZES))
    other(images, labels)
    assert one.stream.offset == other.stream.offset


@pytest.mark.parametrize("name", ["step_ll", "iter_ll"])
def test_leaves_images_and_model_as_they_were_between_two_sizes(name: str) -> None:
    model, (images, labels) = network().train(), batch()
    before, state = images.clone(), {key: value.clone() for key, value in model.state_dict().items()}
    attack = attacks.create(name, model, space=UNIT)
    with torch.inference_mode():
        for adv in attack.at_each(images, labels, eps=SIZES):
            assert model.training and torch.is_inference_mode_enabled()
            assert torch.equal(images, before)
            adv.zero_()  # the caller's own
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


class Elsewhere(attacks.StepLL):
    """A one-step attack with a random start, so that its gradient depends on eps."""

    def start_(self, adv: Tensor, clean: Tensor, eps: float | Tensor, seed: int | Tensor, offset: int) -> None:
        adv.sub_(torch.as_tensor(eps) / 510).clamp_(0, 1)


def test_a_start_that_depends_on_eps_is_not_shared() -> None:
    model, (images, labels) = network(), batch()
    attack = Elsewhere(model, space=UNIT)
    for each, size in zip(attack.at_each(images, labels, eps=SIZES), SIZES, strict=True):
        assert torch.equal(each, attack(images, labels, eps=size))


def test_no_images_and_no_sizes() -> None:
    model, (images, labels) = network(), batch()
    attack = attacks.StepLL(model, space=UNIT)
    assert [adv.shape for adv in attack.at_each(images[:0], labels[:0], eps=[2.0, 4.0])] == [images[:0].shape] * 2
    assert list(attack.at_each(images, labels, eps=[])) == []


@pytest.mark.parametrize(
    ("eps", "error", "message"),
    [
        ([2.0, -1.0], ValueError, "eps must be zero or more"),
        ([torch.ones(9)], TypeError, "eps must be numbers here, each for all images"),
        ([TruncatedNormalEps()], TypeError, "eps must be numbers here, each for all images"),
    ],
)
def test_refuses_at_once(eps: list[float], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        attacks.StepLL(network(), space=UNIT).at_each(*batch(), eps=eps)


def test_labels_are_asked_for_at_once() -> None:
    with pytest.raises(ValueError, match="fgsm uses the true label"):
        attacks.FGSM(network(), space=UNIT).at_each(batch()[0], eps=[2.0])
