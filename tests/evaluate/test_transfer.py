from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastadv import PixelSpace
from fastadv.data import ImageSet
from fastadv.evaluate import RecordFile, Subject, Sweep, read_records
from fastadv.evaluate.tables import to_csv, to_markdown
from fastadv.evaluate.transfer import TransferCounts, TransferRecord, draw, run_transfer, transfer
from fastadv.evaluate.transfer_tables import transfer_figure, transfer_table

RAW, SYMMETRIC = PixelSpace.raw(), PixelSpace.symmetric()

# As in test_accuracy: two pixels are the logits, and an attack of size eps moves a lead by 2 eps. A bias moves the
# border of another model.
LEADS = (2, 6, 10, 20, 40, -10, -30)


class Biased(nn.Module):
    """The logits are the two pixels in raw values, the first of them plus ``bias``, times 0.1."""

    def __init__(self, bias: float, space: PixelSpace = RAW) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.1))
        self.bias = nn.Parameter(torch.tensor(float(bias)))
        self.space = space
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:  # [N, 1, 1, 2] -> [N, 2]
        self.calls += 1
        std, mean = self.space.std[0], self.space.mean[0]
        pixels = images.flatten(1) * std + mean
        return self.scale * torch.stack([pixels[:, 0] + self.bias, pixels[:, 1]], dim=1)


def batch() -> tuple[Tensor, Tensor]:
    """Images [7, 1, 1, 2] in raw pixels, all of class 0, with the leads above."""
    images = torch.full((len(LEADS), 2), 100.0)
    images[:, 0] += torch.tensor(LEADS, dtype=torch.float32)
    return images.view(-1, 1, 1, 2), torch.zeros(len(LEADS), dtype=torch.int64)


@pytest.mark.parametrize("other", [RAW, SYMMETRIC], ids=["one space", "two spaces"])
@pytest.mark.parametrize(
    ("attack", "eps", "bias", "fooled", "transferred", "wrong"),
    [
        # fgsm at 4: leads become -6, -2, 2, 12, 32, -18, -38; the source is fooled by the first two.
        ("fgsm", 4, 0, 2, 2, 4),
        ("fgsm", 4, 4, 2, 1, 3),  # the target adds 4 to the lead: -2 becomes 2
        ("fgsm", 4, 7, 2, 0, 2),
        ("fgsm", 4, -5, 2, 2, 5),  # the third candidate, that did not fool the source, is wrong there, too
        # step l.l. helps those that are wrong already: leads become -6, -2, 2, 12, 32, -2, -22.
        ("step_ll", 4, 3, 2, 1, 2),
        ("fgsm", 1, 0, 0, 0, 2),  # a lead of 2 becomes a tie, which the first class wins: none is fooled, no rate
    ],
)
def test_counts_by_hand(
    attack: str, eps: float, bias: float, fooled: int, transferred: int, wrong: int, other: PixelSpace
) -> None:
    targets = [(Biased(bias, other), other)]
    [[counts]] = transfer(Biased(0), targets, [batch()], attack=attack, eps=[eps], space=RAW)
    assert counts == {1: TransferCounts(7, fooled, transferred, wrong)}
    assert (counts[1].rate is None) is (fooled == 0)


def test_rate_is_of_the_fooled_and_error_of_all() -> None:
    counts = TransferCounts(n=1000, fooled=640, transferred=480, wrong=600)
    assert counts.rate is not None
    assert (counts.rate.value, counts.error.value) == (0.75, 0.6)
    assert counts.rate.half_width == pytest.approx(1.96 * (0.75 * 0.25 / 640) ** 0.5)
    assert counts.error.half_width == pytest.approx(1.96 * (0.6 * 0.4 / 1000) ** 0.5)


def test_a_source_shown_to_itself_transfers_wholly_and_is_asked_once() -> None:
    source = Biased(0)
    table = transfer(source, [(source, RAW)], [batch()], attack="fgsm", eps=[4, 8], space=RAW)
    assert [row[0][1].transferred == row[0][1].fooled > 0 for row in table] == [True, True]
    assert source.calls == 1 + 1 + 2  # clean, one gradient, and each size


class Rounds(Biased):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.round())


def test_a_source_that_hides_its_gradient(images: ImageSet, file: RecordFile[TransferRecord]) -> None:
    """It fools nobody, and the tables say why."""
    sources = [Subject("rounds", Rounds(0), RAW), Subject("plain", Biased(1), RAW)]
    with pytest.warns(UserWarning, match="the gradient is zero or not finite for 30 of 30 images"):
        records = run_transfer(sweep(images, attacks=["fgsm"], eps=[8]), sources, file)
    assert [(r.source, r.without_gradient) for r in records] == [("rounds", 30)] * 2 + [("plain", 0)] * 2
    assert read_records(file.path, TransferRecord) == records
    for measure in ("rate", "error"):
        notes = [note for note in transfer_table(records, measure=measure, eps=8).notes if "gradient" in note]
        assert len(notes) == 1 and notes[0].startswith("rounds: the gradient is zero or not finite for 30 of 30 images")


def test_models_are_left_as_they_were() -> None:
    source, target = Biased(0).train(), Biased(1).train()
    transfer(source, [(target, RAW)], [batch()], attack="fgsm", eps=[4], space=RAW)
    assert source.training and target.training and source.scale.grad is None and target.scale.grad is None


# --- recorded --------------------------------------------------------------------------------------------------------


@pytest.fixture
def images() -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (40, 1, 1, 2), generator=generator, dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(40) % 2, ("a", "b"))


def subjects(*biases: float) -> list[Subject]:
    return [Subject(f"{bias:g}", Biased(bias), RAW) for bias in biases]


def sweep(images: ImageSet, **given: Any) -> Sweep:
    return Sweep(
        **{"dataset": "made_up", "images": images, "attacks": ["fgsm", "iter_ll"], "eps": [8, 16], "limit": 30, **given}
    )


@pytest.fixture
def file(tmp_path: Path) -> RecordFile[TransferRecord]:
    return RecordFile(tmp_path / "transfer.jsonl", TransferRecord)


def test_every_source_attack_size_and_target(images: ImageSet, file: RecordFile[TransferRecord]) -> None:
    records = run_transfer(sweep(images), subjects(0, 40), file)
    assert [(r.source, r.attack, r.eps, r.target) for r in records] == [
        (source, attack, eps, target)
        for source in ("0", "40")
        for attack in ("fgsm", "iter_ll")
        for eps in (8.0, 16.0)
        for target in ("0", "40")
    ]
    assert {(r.n, r.total, r.top5) for r in records} == {(30, 40, None)}
    assert read_records(file.path, TransferRecord) == records


def test_only_what_is_new_is_measured(images: ImageSet, file: RecordFile[TransferRecord]) -> None:
    first = run_transfer(sweep(images), subjects(0, 40), file)
    again = subjects(0, 40)
    assert run_transfer(sweep(images), again, file) == first
    assert [one.model.calls for one in again] == [0, 0]
    more = run_transfer(sweep(images), subjects(0, 40, 80), file)
    assert [r for r in more if "80" not in (r.source, r.target)] == first
    assert len(read_records(file.path, TransferRecord)) == len(more) == 3 * 3 * 2 * 2


def test_interrupted_between_two_attacks(images: ImageSet, file: RecordFile[TransferRecord]) -> None:
    whole = run_transfer(sweep(images), subjects(0, 40), RecordFile(file.path.with_name("whole"), TransferRecord))
    run_transfer(sweep(images, attacks=["fgsm"]), subjects(0), file)
    records = run_transfer(sweep(images), subjects(0, 40), RecordFile(file.path, TransferRecord))
    assert [(r.key, r.top1) for r in records] == [(r.key, r.top1) for r in whole]


def test_images_are_drawn_by_the_seed(images: ImageSet) -> None:
    drawn = [draw(images, 10, seed) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0].images, drawn[1].images) and torch.equal(drawn[0].labels, drawn[1].labels)
    assert not torch.equal(drawn[0].images, drawn[2].images)
    assert not torch.equal(drawn[0].images, images.images[:10])
    assert draw(images, None, 0) is images and draw(images, 40, 0) is images


# --- tables and figures ----------------------------------------------------------------------------------------------


def test_tables_in_the_papers_layout(images: ImageSet, file: RecordFile[TransferRecord]) -> None:
    records = run_transfer(sweep(images), subjects(0, 40), file)
    rate, error = (transfer_table(records, measure=measure, eps=16) for measure in ("rate", "error"))
    columns = [("n", "0", "40"), ("0", "40")]
    for table, first, names in zip((rate, error), ((), ("n",)), columns, strict=True):
        heads = [f"{attack}: {name}" for attack in ("fgsm", "iter_ll") for name in names]
        assert table.header == ("Metric", "Source", *first, *heads)
    assert [row[:2] for row in rate.rows] == [("top 1", "0"), ("top 1", "40")]
    assert rate.rows[0][3].value == rate.rows[1][4].value == 1.0
    by_cell = {(r.source, r.attack, r.target): r for r in records if r.eps == 16}
    assert error.rows[1][5] == by_cell["40", "iter_ll", "0"].counts(1).error
    # Of a rate n is what fooled the source, of an error rate all images; a program reads it, too.
    assert [row[5] for row in rate.rows] == [str(by_cell[name, "iter_ll", "0"].top1[0]) for name in ("0", "40")]
    assert [row[2] for row in error.rows] == ["30", "30"]
    assert to_csv(rate).partition("\n")[0].startswith("Metric,Source,fgsm: n,fgsm: 0 (%),fgsm: 0 Wilson low (%),")
    assert "30 of the 40 test images of made_up, drawn at random by seed 0" in to_markdown(rate)
    assert all("In brackets the 95 % confidence interval, Wilson's." in table.notes[-1] for table in (rate, error))


def test_curves(images: ImageSet, file: RecordFile[TransferRecord]) -> None:
    records = run_transfer(sweep(images), subjects(0, 40), file)
    figure = transfer_figure(records, source="0", target="40", measure="error")
    assert "Error rate with 95 % confidence intervals\n" in figure.get_suptitle()
    [axes] = figure.axes
    own = [r for r in records if (r.source, r.target, r.attack) == ("0", "40", "iter_ll")]
    drawn = next(line for line in axes.containers if line.get_label() == "iter_ll").lines[0]
    assert drawn.get_xdata().tolist() == [8, 16]
    assert drawn.get_ydata().tolist() == [100 * r.counts(1).error.value for r in own]
    with pytest.raises(ValueError, match="made with 0 and shown to 1"):
        transfer_figure(records, source="0", target="1", measure="rate")


@pytest.mark.parametrize(
    ("fooled", "drawn", "head", "texts"),
    [
        ([1, 9, 10, 300], [16, 32], "n = 10 to 300; n < 10 left out", ["10", "300"]),
        ([70, 70, 70, 70], [4, 8, 16, 32], "n = 70", []),
        ([0, 1, 2, 9], [], "n < 10 left out", ["no rate of 10 images or more"]),
    ],
)
def test_curves_are_of_enough_images_and_say_of_how_many(
    images: ImageSet,
    file: RecordFile[TransferRecord],
    fooled: list[int],
    drawn: list[float],
    head: str,
    texts: list[str],
) -> None:
    [record] = run_transfer(sweep(images, attacks=["fgsm"], eps=[8]), subjects(0), file)
    records = [
        replace(record, eps=eps, n=1000, top1=[n, n, n]) for eps, n in zip([4.0, 8.0, 16.0, 32.0], fooled, strict=True)
    ]
    [axes] = transfer_figure(records, source="0", target="0", measure="rate").axes
    assert axes.containers[0].lines[0].get_xdata().tolist() == drawn
    assert axes.get_title() == f"0 to 0, top 1\n{head}"
    left, right = axes.get_xlim()
    assert left < 4 and right > 32  # with a margin, whatever is left out
    assert [text.get_text() for text in axes.texts] == texts


def test_a_source_that_none_fools_has_no_rate(images: ImageSet, file: RecordFile[TransferRecord]) -> None:
    [record] = run_transfer(sweep(images, attacks=["fgsm"], eps=[8]), subjects(0), file)
    table = transfer_table([replace(record, top1=[0, 0, 3])], measure="rate", eps=8)
    assert table.rows == (("top 1", "0", "0", None),)


def test_records_of_different_images_do_not_mix(images: ImageSet, file: RecordFile[TransferRecord]) -> None:
    records = [*run_transfer(sweep(images), subjects(0), file), *run_transfer(sweep(images, seed=1), subjects(0), file)]
    with pytest.raises(ValueError, match="records of different images"):
        transfer_table(records, measure="rate", eps=8)
