from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastadv import PixelSpace
from fastadv.data import ImageSet
from fastadv.evaluate import Record, RecordFile, Subject, Sweep, read_records, run
from fastadv.evaluate.sweep import fingerprint


class Linear(nn.Module):
    """A linear model that counts its calls and can be interrupted."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 6)
        nn.init.constant_(self.layer.weight, weight)
        self.layer.weight.data[0] += 0.5
        self.calls = 0
        self.interrupt_at: int | None = None

    def forward(self, images: Tensor) -> Tensor:  # [N, 1, 2, 2] -> [N, 6]
        self.calls += 1
        if self.calls == self.interrupt_at:
            raise KeyboardInterrupt
        return self.layer(images.flatten(1))


def subject(name: str = "linear", weight: float = 0.1, space: PixelSpace | None = None) -> Subject:
    torch.manual_seed(0)
    return Subject(name, Linear(weight), space or PixelSpace.unit())


@pytest.fixture
def images() -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (10, 1, 2, 2), generator=generator, dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(10) % 6, tuple("abcdef"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "robustness.jsonl"


def sweep(images: ImageSet, **given: Any) -> Sweep:
    return Sweep(
        **{"dataset": "made_up", "images": images, "attacks": ["step_ll"], "eps": [2, 4], "batch_size": 4, **given}
    )


def test_clean_then_every_attack_at_every_eps_for_each_model(images: ImageSet, path: Path) -> None:
    subjects = [subject("a", 0.1), subject("b", 0.2)]
    records = run(sweep(images, attacks=["step_ll", "fgsm"]), subjects, RecordFile(path, Record))
    cells = [("clean", 0.0), ("step_ll", 2.0), ("step_ll", 4.0), ("fgsm", 2.0), ("fgsm", 4.0)]
    assert [(r.model, r.attack, r.eps) for r in records] == [(name, *cell) for name in "ab" for cell in cells]
    assert read_records(path, Record) == records
    for record in records:
        assert (record.dataset, record.split, record.n, record.total, record.classes) == ("made_up", "test", 10, 10, 6)
        assert record.top5 is not None and 0 <= record.top1 <= record.top5 <= 10
        assert len(record.hits) == 10 and record.hits.sum() == record.top1
        assert record.device == "cpu" and set(record.versions) == {"fastadv", "torch"}


def test_done_is_not_done_again(images: ImageSet, path: Path) -> None:
    first = run(sweep(images), [subject()], RecordFile(path, Record))
    again = subject()
    assert run(sweep(images, batch_size=3), [again], RecordFile(path, Record)) == first
    assert again.model.calls == 0
    assert read_records(path, Record) == first


def test_only_what_is_new_is_measured(images: ImageSet, path: Path) -> None:
    run(sweep(images), [subject()], RecordFile(path, Record))
    again = subject()
    records = run(sweep(images, eps=[2, 4, 8]), [again], RecordFile(path, Record))
    assert [record.eps for record in records] == [0.0, 2.0, 4.0, 8.0]
    assert again.model.calls == 6  # 3 batches: each has a forward pass for the attack and one for the logits


def test_sizes_of_a_one_step_attack_share_its_gradient(images: ImageSet, path: Path) -> None:
    one = subject()
    run(sweep(images, eps=[2]), [subject()], RecordFile(path, Record))  # one size is there already
    records = run(sweep(images, eps=[2, 4, 8, 16]), [one], RecordFile(path, Record))
    assert one.model.calls == 3 * (1 + 3)  # of each batch one gradient, and a forward for each of three sizes
    assert [record.eps for record in records] == [0.0, 2.0, 4.0, 8.0, 16.0]
    apart = [run(sweep(images, eps=[eps]), [subject()], RecordFile(path.with_name(f"{eps}"), Record)) for eps in (4, 8)]
    assert [(r.top1, r.top5) for r in records[2:4]] == [(r[1].top1, r[1].top5) for r in apart]


@pytest.mark.parametrize("call", [1, 2, 4, 9, 10, 15])
def test_an_interrupted_sweep_goes_on_where_it_stopped(images: ImageSet, path: Path, call: int) -> None:
    # An iterative attack: each size is recorded before the next is begun.
    given = {"attacks": ["iter_ll:steps=1"]}
    whole = run(sweep(images, **given), [subject()], RecordFile(path.with_name("whole.jsonl"), Record))
    broken = subject()
    broken.model.interrupt_at = call
    with pytest.raises(KeyboardInterrupt):
        run(sweep(images, **given), [broken], RecordFile(path, Record))
    done = RecordFile(path, Record).records
    assert len(done) == (0 if call <= 3 else 1 if call <= 9 else 2)  # 3 forwards clean, then 6 for each attack

    path.open("ab").write(b'{"model": "lin')  # and a crash tore the line after them
    resumed = subject()
    records = run(sweep(images, **given), [resumed], RecordFile(path, Record))
    whole_batches = call - 1 if call <= 3 else 3 + 2 * ((call - 4) // 2)  # the calls for batches that were done
    assert resumed.model.calls == 15 - whole_batches
    assert sorted(path.parent.iterdir()) == [path, path.with_name("whole.jsonl")]
    assert records[: len(done)] == done
    assert read_records(path, Record) == records
    assert [(r.key, r.top1, r.top5) for r in records] == [(r.key, r.top1, r.top5) for r in whole]


@pytest.mark.parametrize(
    "changed",
    [subject(weight=0.2), subject(space=PixelSpace.symmetric())],
    ids=["other weights", "other space"],
)
def test_a_changed_model_under_the_same_name_is_measured(images: ImageSet, path: Path, changed: Subject) -> None:
    changed.model.calls = 0
    run(sweep(images), [subject()], RecordFile(path, Record))
    records = run(sweep(images), [changed], RecordFile(path, Record))
    assert changed.model.calls == 12
    assert len(read_records(path, Record)) == 6
    assert {record.space for record in records} == {str(changed.space)}


def test_changed_images_under_the_same_name_are_measured(images: ImageSet, path: Path) -> None:
    run(sweep(images), [subject()], RecordFile(path, Record))
    changed = subject()
    run(sweep(ImageSet(images.images, images.labels.flip(0), images.classes)), [changed], RecordFile(path, Record))
    assert changed.model.calls == 12


def test_another_name_for_the_same_weights_is_recorded_but_not_measured(images: ImageSet, path: Path) -> None:
    first = run(sweep(images), [subject("a")], RecordFile(path, Record))
    other = subject("b")
    for _ in range(2):
        records = run(sweep(images), [subject("a"), other], RecordFile(path, Record))
    assert other.model.calls == 0
    assert [record.model for record in records] == ["a"] * 3 + ["b"] * 3
    assert [record.top1 for record in records] == [record.top1 for record in first] * 2
    assert len(read_records(path, Record)) == 6


def test_options_of_an_attack_make_another_evaluation(images: ImageSet, path: Path) -> None:
    texts = ["pgd", "pgd:steps=1", "pgd:steps=1:alpha=0.5"]
    for first, calls in ((["pgd"], 6 + 3 * 10), (texts, 3 * 2 + 3 * 2), (texts, 0)):
        again = subject()
        records = run(sweep(images, attacks=first, eps=[2]), [again], RecordFile(path, Record))
        # Three batches, each classified once and differentiated once a step; clean ones are classified only.
        assert again.model.calls == calls
    assert [(record.attack, record.options) for record in records] == [
        ("clean", {}),
        ("pgd", {}),
        ("pgd:steps=1", {"steps": 1}),
        ("pgd:steps=1:alpha=0.5", {"steps": 1, "alpha": 0.5}),
    ]


def test_a_limit_takes_the_first_images(images: ImageSet, path: Path) -> None:
    records = run(sweep(images, limit=3), [subject()], RecordFile(path, Record))
    assert {(record.n, record.total) for record in records} == {(3, 10)}
    few = ImageSet(images.images[:3], images.labels[:3], images.classes)
    alone = run(sweep(few), [subject()], RecordFile(path.with_name("few.jsonl"), Record))
    assert [(r.top1, r.top5, r.images) for r in records] == [(r.top1, r.top5, r.images) for r in alone]


class Rounds(Linear):
    """Has no gradient for bright images."""

    def forward(self, images: Tensor) -> Tensor:
        bright = images.mean((1, 2, 3), keepdim=True) > 0.5
        return super().forward(torch.where(bright, images.round(), images))


def test_images_that_were_not_attacked_are_recorded_and_printed(
    images: ImageSet, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bright = int((images.images.double().mean((1, 2, 3)) > 127.5).sum())
    assert 0 < bright < 10
    with pytest.warns(UserWarning, match="the gradient is zero or not finite"):
        records = run(
            sweep(images, attacks=["fgsm", "pgd", "random_sign"], eps=[2]),
            [Subject("rounds", Rounds(0.1), PixelSpace.unit())],
            RecordFile(path, Record),
        )
    assert [record.without_gradient for record in records] == [None, bright, bright, None]
    assert read_records(path, Record) == records
    assert capsys.readouterr().err.count(f", with no gradient for {bright} images\n") == 2


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_of_no_images_is_refused(images: ImageSet, limit: int) -> None:
    with pytest.raises(ValueError, match=f"limit must be at least 1, got {limit}"):
        sweep(images, limit=limit)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": torch.ones(2), "b": torch.zeros(())}, {"b": torch.zeros(()), "a": torch.ones(2)}, True),
        ({"a": torch.ones(2, 3)}, {"a": torch.ones(3, 2).t()}, True),
        ({"a": torch.ones(2)}, {"b": torch.ones(2)}, False),
        ({"a": torch.ones(2)}, {"a": torch.ones(2, 1)}, False),
        ({"a": torch.ones(2)}, {"a": torch.ones(2).double()}, False),
        ({"a": torch.zeros(2)}, {"a": torch.zeros(2).bfloat16()}, False),
        ({"a": torch.ones(2)}, {"a": torch.tensor([1.0, 1.0000001])}, False),
        ({"a": torch.tensor(True)}, {"a": torch.tensor(False)}, False),
        ({}, {"a": torch.empty(0)}, False),
    ],
)
def test_fingerprints(one: dict[str, Tensor], other: dict[str, Tensor], same: bool) -> None:
    assert (fingerprint(one) == fingerprint(other)) is same


def test_options_of_an_attack_are_another_evaluation(images: ImageSet, path: Path) -> None:
    """Each has a row and a record of its own, and is found again."""
    texts = ["pgd:steps=2", "pgd:steps=2:restarts=3", "pgd:steps=2:targets=predicted", "pgd:steps=2:loss=margin"]
    records = run(sweep(images, attacks=texts, eps=[8]), [subject()], RecordFile(path, Record))
    assert [record.attack for record in records] == ["clean", *texts]
    assert len({record.key for record in records}) == 5
    assert records[2].options == {"steps": 2, "restarts": 3}
    again = subject()
    assert run(sweep(images, attacks=texts, eps=[8]), [again], RecordFile(path, Record)) == records
    assert again.model.calls == 0


def test_steps_towards_the_true_classes_are_refused(images: ImageSet, path: Path) -> None:
    with pytest.raises(ValueError, match="pgd is targeted"):
        run(sweep(images, attacks=["pgd:targeted=true"]), [subject()], RecordFile(path, Record))
