from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fastadv import PixelSpace
from fastadv.data import ImageSet
from fastadv.evaluate import RecordFile, Subject, Sweep, read_records
from fastadv.evaluate.label_leaking import LeakCounts, LeakRecord, leaking, run_leaking

RAW = PixelSpace.raw()


class Backwards(nn.Module):
    """Two logits from one pixel; class 1 where 0.01 x (x^2 - 9) > 0, for x = pixel - 100: in (-3, 0) and above 3.

    Its slope turns at +-1.73, so that a step may end where the gradient did not lead.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:  # [N, 1, 1, 1] -> [N, 2]
        self.calls += 1
        x = images.flatten(1) - 100  # [N, 1]
        logit = self.scale * 0.01 * x * (x * x - 9)
        return torch.cat([-logit, logit], dim=1)


def at(*offsets: float) -> Tensor:
    return torch.tensor(offsets).view(-1, 1, 1, 1) + 100


def test_counts_by_hand() -> None:
    # offset, label: FGSM goes to, FGSM with the predicted class goes to
    #   -4, 1: -6 wrong,  -2 right   wrong when clean, so that the two go opposite ways
    #   -1, 0: -3 right,   1 right   at -3 the logits are equal, and class 0 comes first
    #   -2, 0:  0 right,  -4 right
    #    2, 1:  0 wrong,   4 right
    #    1, 1:  3 wrong,  -1 right
    #  1.5, 1: 3.5 right, -0.5 right  the first step went beyond the region it was to stay in
    #   -2, 1: -4 wrong,  -4 wrong   right when clean, and the two are the same
    #  1.9, 0: 3.9 wrong, 3.9 wrong
    images = at(-4, -1, -2, 2, 1, 1.5, -2, 1.9)
    labels = torch.tensor([1, 0, 0, 1, 1, 1, 1, 0])
    [counts] = leaking(Backwards(), [(images, labels)], eps=[2.0], space=RAW)
    assert counts == LeakCounts(n=8, clean=2, with_label=3, without_label=6, leaked=0)


def test_a_gradient_that_is_zero_is_counted() -> None:
    class Rounds(Backwards):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images.round())

    with pytest.warns(UserWarning, match="fgsm: the gradient is zero or not finite for 2 of 2 images"):
        counts = leaking(Rounds(), [(at(-3.2, -1.6), torch.tensor([1, 0]))] * 2, eps=[5.0, 8.0], space=RAW)
    assert [count.without_gradient for count in counts] == [4, 4]


def test_a_label_that_leaks() -> None:
    # -3.2, 1: -8.2 wrong, 1.8 wrong
    # -1.6, 0: -6.6 right, 3.4 wrong: leaked
    [counts] = leaking(Backwards(), [(at(-3.2, -1.6), torch.tensor([1, 0]))], eps=[5.0], space=RAW)
    assert counts == LeakCounts(n=2, clean=0, with_label=1, without_label=0, leaked=1)


def test_all_sizes_in_one_pass() -> None:
    model = Backwards()
    batch = (at(-1.6, 2.0, -4.0), torch.tensor([0, 1, 1]))
    together = leaking(model, [batch], eps=[2.0, 5.0, 8.0], space=RAW)
    assert model.calls == 1 + 2 + 3 * 2  # clean, a gradient of each attack, and both images of each size
    assert together == [leaking(Backwards(), [batch], eps=[eps], space=RAW)[0] for eps in (2.0, 5.0, 8.0)]


@pytest.mark.parametrize(
    ("attack", "without", "message"),
    [
        ("step_ll", "fgsm_pred", "step_ll does not use the true label"),
        ("fgsm", "iter_basic", "iter_basic uses the true label"),
        ("fgsm", "nothing", "unknown attack"),
    ],
)
def test_refuses(attack: str, without: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        leaking(Backwards(), [], attack=attack, without=without, eps=[2.0], space=RAW)


def test_no_images() -> None:
    with pytest.raises(ValueError, match="no images"):
        leaking(Backwards(), [], eps=[2.0], space=RAW)


def test_recorded_once(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(90, 110, (20, 1, 1, 1), generator=generator, dtype=torch.uint8)
    images = ImageSet(pixels, torch.arange(20) % 2, ("a", "b"))
    sweep = Sweep(dataset="made_up", images=images, attacks=[], eps=[2, 5], limit=15)
    pairs = [("fgsm", "fgsm_pred"), ("fgsm", "step_ll")]
    file = RecordFile(tmp_path / "leaking.jsonl", LeakRecord)
    records = run_leaking(sweep, pairs, [Subject("one", Backwards(), RAW)], file)
    assert [(r.attack, r.without, r.eps, r.n) for r in records] == [
        ("fgsm", without, eps, 15) for without in ("fgsm_pred", "step_ll") for eps in (2.0, 5.0)
    ]
    again = Backwards()
    other = run_leaking(sweep, pairs, [Subject("two", again, RAW)], RecordFile(file.path, LeakRecord))
    assert again.calls == 0
    assert [(r.model, r.leaked) for r in other] == [("two", r.leaked) for r in records]
    assert len(read_records(file.path, LeakRecord)) == 8
