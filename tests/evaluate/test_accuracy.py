from __future__ import annotations

import io
import warnings
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fastadv import PixelSpace, TruncatedNormalEps, attacks
from fastadv.evaluate import Counts, evaluate, evaluate_each
from fastadv.evaluate.accuracy import add_counts
from fastadv.evaluate.transfer import transfer
from fastadv.train import AdversarialTask

RAW = PixelSpace.raw()

# Two pixels, and a model whose logits are those pixels, times 0.1 so that no softmax saturates. The cost's gradient
# has opposite signs on them, so an attack of size eps moves the label's lead over the other class by 2 eps: down,
# where the label has the lead; up, where it has not and is the least likely class.
LEADS = (2, 6, 10, 20, 40, -10, -30)


class Pixels(nn.Module):
    """The logits are the pixels, times 0.1."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.1))

    def forward(self, images: Tensor) -> Tensor:  # [N, C, H, W] -> [N, C * H * W]
        return self.scale * images.flatten(1)


def two_pixels() -> tuple[Tensor, Tensor]:
    """Images [7, 1, 1, 2] with the leads above, labels [7] of both classes."""
    labels = torch.tensor([0, 1, 0, 1, 0, 1, 0])
    images = torch.full((len(LEADS), 2), 100.0)
    images[torch.arange(len(LEADS)), labels] += torch.tensor(LEADS, dtype=torch.float32)
    return images.view(-1, 1, 1, 2), labels


def batched(images: Tensor, labels: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(images.split(size), labels.split(size), strict=True))


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
@pytest.mark.parametrize(
    ("attack", "eps", "top1"),
    [
        ("clean", 0, 5),
        ("step_ll", 2, 4),  # leads above 4 stay
        ("step_ll", 4, 3),
        ("step_ll", 8, 3),  # 20 and 40 stay, and -10 becomes 6
        ("step_ll", 16, 3),  # 40 stays, -10 and -30 become 22 and 2
        ("fgsm", 8, 2),  # the true label: -10 becomes -26
        ("fgsm", 16, 1),
        ("fgsm_pred", 8, 3),
        ("iter_ll", 4, 3),
        ("iter_basic", 8, 2),
    ],
)
def test_counts_by_hand(attack: str, eps: float, top1: int, batch_size: int) -> None:
    batches = batched(*two_pixels(), batch_size)
    counts = evaluate(Pixels(), batches, attack=attack, eps=eps, space=RAW)
    assert (counts.n, counts.top1, counts.top5) == (7, top1, None)


@pytest.mark.parametrize(
    ("attack", "eps", "correct"),
    [("clean", 0, [lead > 0 for lead in LEADS]), ("fgsm", 8, [lead > 16 for lead in LEADS])],
)
def test_which_images_are_correct(attack: str, eps: float, correct: list[bool]) -> None:
    counts = evaluate(Pixels(), batched(*two_pixels(), 3), attack=attack, eps=eps, space=RAW)
    assert counts.correct.tolist() == correct


@pytest.mark.parametrize(
    ("logits", "label", "top1", "top5"),
    [
        ([9, 8, 7, 6, 5, 4], 0, 1, 1),
        ([9, 8, 7, 6, 5, 4], 4, 0, 1),
        ([9, 8, 7, 6, 5, 4], 5, 0, 0),
        ([5, 5, 5, 5, 5, 5], 0, 1, 1),  # of equal logits the first comes first
        ([5, 5, 5, 5, 5, 5], 4, 0, 1),
        ([5, 5, 5, 5, 5, 5], 5, 0, 0),
        ([float("nan")] * 6, 0, 0, 0),  # no prediction
        ([float("nan"), 9, 8, 7, 6, 5], 1, 0, 0),
        ([float("-inf"), 9, 8, 7, 6, 5], 1, 1, 1),
        ([1, 2, 3, 4, 5], 4, 1, None),
        ([1, 2, 3, 4, 5], 0, 0, None),
    ],
)
def test_ranks_by_hand(logits: list[float], label: int, top1: int, top5: int | None) -> None:
    batch = (torch.zeros(1, 1, 1, 1), torch.tensor([label]))
    counts = evaluate(Fixed(torch.tensor([logits])), [batch], space=RAW)
    assert (counts.n, counts.top1, counts.top5) == (1, top1, top5)


def test_any_loader_and_its_uneven_last_batch() -> None:
    loader = DataLoader(TensorDataset(*two_pixels()), batch_size=4)
    counts = evaluate(Pixels(), loader, attack="step_ll", eps=2, space=RAW)
    assert (counts.n, counts.top1) == (7, 4)


def test_the_seed_alone_decides_and_not_the_batches() -> None:
    images = torch.rand(200, 6, 1, 1, generator=torch.Generator().manual_seed(0)) * 20 + 100
    labels = torch.arange(200) % 6

    def counts(seed: int, size: int) -> Counts:
        torch.manual_seed(size)  # nor the generator that belongs to the caller
        return evaluate(Pixels(), batched(images, labels, size), attack="random_sign", eps=8, space=RAW, seed=seed)

    results = {seed: {counts(seed, size) for size in (7, 64, 200)} for seed in range(4)}
    assert [len(result) for result in results.values()] == [1] * 4
    assert len(set.union(*results.values())) > 1


def noisy_pixels() -> tuple[Tensor, Tensor]:
    """Images [60, 7, 1, 1] whose classes are hard to tell, and labels of which some are right."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(60, 7, 1, 1, generator=generator) * 20 + 100
    return images, (images.flatten(1).argmax(dim=1) + torch.arange(60) % 2) % 7


@pytest.mark.parametrize("attack", attacks.names())
def test_sizes_measured_together_count_as_each_alone(attack: str) -> None:
    model, batches, sizes = Pixels(), batched(*noisy_pixels(), 16), [3.0, 2.0, 1.0, 8.0, 16.0]
    given: dict[str, Any] = {"attack": attack, "space": RAW, "seed": 3, "validate": "never"}
    together = evaluate_each(model, batches, eps=sizes, **given)
    assert together == [evaluate(model, batches, eps=size, **given) for size in sizes]
    assert len(set(together)) > 1


class Called(Pixels):
    """Counts its calls."""

    calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(images)


@pytest.mark.parametrize(
    ("attack", "gradients"),
    [
        (name, 1)
        for name in ("fgsm", "fgsm_pred", "fast_entropy", "fast_grad_l2", "fast_grad_linf", "step_ll", "step_rnd")
    ]
    + [("random_sign", 0), ("random_normal", 0), ("iter_ll", 1 + 2 + 5), ("pgd", 30)],
)
def test_one_step_attacks_ask_for_one_gradient(attack: str, gradients: int) -> None:
    model = Called()
    evaluate_each(model, [noisy_pixels()], attack=attack, eps=[1, 2, 4], space=RAW, early_stop=False)
    assert model.calls == gradients + 3  # and one forward for the counts of each size
    assert attacks.get(attack).one_gradient is (gradients == 1)


def test_options_reach_the_attack() -> None:
    batches = batched(*two_pixels(), 7)
    counts = evaluate(Pixels(), batches, attack="iter_basic", eps=8, space=RAW, alpha=1, steps=2)
    assert counts.top1 == 4  # two steps of 1: leads shrink by 4, to -2, 2, 6, 16, 36


class Modes(nn.Module):
    """Notes its mode at each forward; has a frozen part."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.pixels = Pixels()
        self.frozen = nn.BatchNorm2d(1).eval()
        self.dropout = nn.Dropout(0.5)
        self.fails = fails
        self.seen: set[bool] = set()

    def forward(self, images: Tensor) -> Tensor:
        self.seen.add(self.training or self.dropout.training)
        if self.fails:
            raise RuntimeError("the model failed")
        return self.pixels(self.dropout(self.frozen(images)))


@pytest.mark.parametrize("attack", ["clean", "step_ll"])
@pytest.mark.parametrize("fails", [False, True])
def test_eval_mode_meanwhile_and_every_modules_own_mode_afterwards(fails: bool, attack: str) -> None:
    model = Modes(fails).train()
    model.frozen.eval()
    modes = [module.training for module in model.modules()]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        evaluate(model, [two_pixels()], attack=attack, eps=0 if attack == "clean" else 2, space=RAW)
    except RuntimeError as error:
        assert fails and str(error) == "the model failed"
    assert model.seen == {False}
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_images_are_left_as_they_are() -> None:
    images, labels = two_pixels()
    before = images.clone()
    evaluate(Pixels(), [(images, labels)], attack="step_ll", eps=8, space=RAW)
    assert torch.equal(images, before)


class Fixed(nn.Module):
    """Gives the same output for any images."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, images: Tensor) -> Any:
        return self.output


@pytest.mark.parametrize(
    ("model", "label", "given", "message"),
    [
        (Pixels(), 0, {"attack": "nothing", "eps": 2}, "nothing"),
        (Pixels(), 0, {"eps": 2}, "clean images take no eps"),
        (Pixels(), 0, {"alpha": 2}, "clean images take no eps and no options"),
        (Pixels(), 2, {}, r"labels must lie in 0\.\.1.*got 2\.\.2"),
        (Pixels(), -1, {}, r"labels must lie in 0\.\.1.*got -1\.\.-1"),
        (Pixels(), 0, {"attack": "step_ll", "eps": 2, "space": PixelSpace.unit()}, "outside the pixel range"),
        (Fixed((torch.zeros(1, 2), None)), 0, {}, r"logits \[1, K\].*got tuple"),
        (Fixed(torch.zeros(1, 2, 1)), 0, {}, r"got \[1, 2, 1\]"),
        (Fixed(torch.zeros(3, 2)), 0, {}, r"got \[3, 2\]"),
    ],
)
def test_refuses(model: nn.Module, label: int, given: dict[str, Any], message: str) -> None:
    batch = (torch.full((1, 1, 1, 2), 100.0), torch.tensor([label]))
    with pytest.raises(ValueError, match=message):
        evaluate(model, [batch], **{"space": RAW, **given})


def test_no_images_have_no_accuracy() -> None:
    with pytest.raises(ValueError, match="no images"):
        evaluate(Pixels(), [], space=RAW)


def test_an_attack_without_a_size_is_no_measurement() -> None:
    with pytest.raises(ValueError, match="step_ll needs eps, in pixel values"):
        evaluate(Pixels(), [two_pixels()], attack="step_ll", space=RAW)


@pytest.mark.parametrize("attack", ["clean", "step_ll"])
def test_every_batch_is_in_the_space(attack: str) -> None:
    images, labels = two_pixels()
    given = {} if attack == "clean" else {"attack": attack, "eps": 2.0}
    with pytest.raises(ValueError, match="outside the pixel range"):
        evaluate(Pixels(), [(images, labels), (images + 300, labels)], space=RAW, **given)


def test_an_attack_of_ones_own() -> None:
    named = evaluate(Pixels(), [two_pixels()], attack="step_ll", eps=2, space=RAW)
    assert evaluate(Pixels(), [two_pixels()], attack=attacks.StepLL, eps=2, space=RAW) == named
    with pytest.raises(TypeError, match="an attack is a name or a class, got NoneType"):
        evaluate(Pixels(), [two_pixels()], attack=None, eps=2, space=RAW)  # type: ignore[arg-type]


class Rounds(Pixels):
    """Rounds its input, and so has no gradient."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.round())


class RoundsSome(Pixels):
    """Has no gradient where the first pixel is far ahead: in two_pixels the leads 10, 40 and, of the second, -10."""

    def forward(self, images: Tensor) -> Tensor:
        ahead = images[..., :1] - images[..., 1:] > 8
        return super().forward(torch.where(ahead, images.round(), images))


@pytest.mark.parametrize("batch_size", [2, 7])
@pytest.mark.parametrize(
    ("attack", "counted"), [("clean", None), ("random_sign", None), ("fgsm", 3), ("iter_ll", 3), ("pgd", 3)]
)
def test_images_that_are_not_attacked_are_counted(attack: str, counted: int | None, batch_size: int) -> None:
    """And said once: by the first batch, or, if that has none of them, at the end."""
    given = {} if attack == "clean" else {"attack": attack, "eps": 2.0}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        counts = evaluate(RoundsSome(), batched(*two_pixels(), batch_size), space=RAW, **given)
    assert counts.without_gradient == counted
    assert [warning.filename for warning in caught] == [__file__] * bool(counted)
    assert all("for 3 of 7 images" in str(warning.message) for warning in caught)


def test_a_network_that_rounds_is_not_reported_as_robust_without_a_word() -> None:
    images, labels = two_pixels()
    with pytest.warns(UserWarning, match="fgsm: the gradient is zero or not finite for 7 of 7 images"):
        [small, large] = evaluate_each(Rounds(), [(images, labels)], attack="fgsm", eps=[2, 32], space=RAW)
    assert (small.top1, large.top1, small.without_gradient, large.without_gradient) == (5, 5, 7, 7)
    both = add_counts([small, large])
    assert (both.n, both.without_gradient) == (14, 14)


class Towards(attacks.FGSM):
    """Steps towards the labels that it is given."""

    name = "towards"
    ascend = False


def test_steps_towards_the_true_label_are_no_attack() -> None:
    """All but the two images that are far behind would be right."""
    message = "towards is targeted: it steps towards the labels .* true classes"
    with pytest.raises(ValueError, match=message):
        evaluate(Pixels(), [two_pixels()], attack=Towards, eps=8, space=RAW)
    with pytest.raises(ValueError, match=message):
        transfer(Pixels(), [], [two_pixels()], attack=Towards, eps=[8], space=RAW)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        AdversarialTask(Pixels(), attack=Towards, space=RAW)
    images, labels = two_pixels()
    assert not torch.equal(Towards(Pixels(), eps=8, space=RAW)(images, 1 - labels), images)  # of its own target


def test_a_cost_of_ones_own_may_descend() -> None:
    class Margin(Towards):
        """Descends the label's lead."""

        def loss(self, logits: Tensor, target: Tensor) -> Tensor:  # [N, K], [N] -> [N]
            return -super().loss(logits, target)

    counts = evaluate(Pixels(), [two_pixels()], attack=Margin, eps=8, space=RAW)
    assert counts == evaluate(Pixels(), [two_pixels()], attack="fgsm", eps=8, space=RAW)


def test_a_notebook_shows_counts() -> None:
    counts = Counts(1000, 950, 990, torch.ones(1000, dtype=torch.bool), without_gradient=12)
    shown = counts._repr_html_()
    for part in ("95.0% [93.5-96.2]", "950 of 1,000", "top 5", "12 images had no usable gradient"):
        assert part in shown
    assert "top 5" not in Counts(10, 9, None, torch.ones(10, dtype=torch.bool))._repr_html_()


@pytest.mark.parametrize("batches", [[two_pixels()] * 3, iter([two_pixels()] * 3)], ids=["a list", "of unknown length"])
def test_a_progress_bar_counts_batches(batches: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr("rich.console.Console", lambda **_: terminal)
    counts = evaluate(Pixels(), batches, attack="fgsm", eps=4, space=RAW, progress=True)
    shown = terminal.file.getvalue()  # type: ignore[attr-defined]
    assert counts.n == 3 * len(LEADS) and "fgsm" in shown and ("3/3" in shown or "3/?" in shown)


def test_no_progress_bar_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(Pixels(), [two_pixels()], attack="fgsm", eps=4, space=RAW)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


# --- several attacks, and attacks in every form ----------------------------------------------------------------------


def test_an_attack_in_every_form() -> None:
    batches = batched(*two_pixels(), 3)
    expected = evaluate(Pixels(), batches, attack="pgd", eps=8, steps=3, random_start=False, space=RAW)
    text = "pgd:steps=3:random_start=false"
    created = attacks.create("pgd", Pixels(), eps=8, steps=3, random_start=False, space=RAW)
    code = "fastadv.attacks:PGD:steps=3:random_start=false"
    for attack, eps in ((text, 8), (created, None), (created, 8), (code, 8)):
        found = evaluate(Pixels(), batches, attack=attack, eps=eps, space=RAW)
        assert found == expected and torch.equal(found.correct, expected.correct)
    assert not created.counting and created.looks  # as they were
    with pytest.warns(
        UserWarning, match="^pgd was created with eps=8, and is measured with the eps=2 of this evaluation"
    ):
        weaker = evaluate(Pixels(), batches, attack=created, eps=2, space=RAW)
    assert weaker.top1 > expected.top1
    [one, other] = evaluate_each(Pixels(), batches, attack=text, eps=[2, 8], space=RAW)
    assert (one, other) == (weaker, expected)


def test_a_created_attack_goes_on_with_its_random_numbers() -> None:
    created = attacks.create("random_sign", Pixels(), eps=8, space=RAW, seed=1)
    batches = [two_pixels()]
    expected = evaluate_each(Pixels(), batches, attack=created, eps=[8], space=RAW)
    created.stream.offset = 5
    assert evaluate_each(Pixels(), batches, attack=created, eps=[8], space=RAW) == expected
    assert created.stream.offset == 5


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_the_worst_case_of_several(batch_size: int) -> None:
    images, labels = two_pixels()
    batches = batched(images, labels, batch_size)
    found = evaluate(Pixels(), iter(batches), attack=["step_ll", "fgsm"], eps=8, space=RAW)
    assert list(found.each) == ["clean", "step_ll", "fgsm"]
    for name, counts in found.each.items():
        alone = evaluate(Pixels(), batches, attack=name, eps=None if name == "clean" else 8, space=RAW)
        assert counts == alone and torch.equal(counts.correct, alone.correct)
    # step_ll makes the image of lead -10 correct: it counts as wrong, as it is when clean.
    clean, least_likely, label = (counts.correct for counts in found.each.values())
    assert bool(least_likely[5]) and not clean[5]
    assert found.worst.correct.tolist() == (clean & least_likely & label).tolist()
    assert (found.worst.n, found.worst.top1, found.worst.top5) == (7, 2, None)
    assert "worst case" in found._repr_html_()


def test_the_worst_case_at_top_five() -> None:
    """An image counts if its class is among the five likeliest under each attack."""
    images, labels = 255 * torch.rand(20, 1, 1, 8, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 8
    found = evaluate(Pixels(), [(images, labels)], attack=["fgsm", "random_sign"], eps=32, space=RAW)
    assert found.worst.top5 is not None
    assert found.worst.top1 <= found.worst.top5 <= min(counts.top5 or 0 for counts in found.each.values())


@pytest.mark.parametrize(
    ("attack", "options", "error", "message"),
    [
        ([], {}, ValueError, "the list of attacks is empty"),
        (["clean"], {}, ValueError, "the list of attacks is empty"),
        (["fgsm", "fgsm"], {}, ValueError, "two attacks are called fgsm: name each with its options"),
        ([type("Clean", (attacks.FGSM,), {"name": "clean"})], {}, ValueError, "two attacks are called clean"),
        (["fgsm", "pgd"], {"steps": 2}, ValueError, "fgsm has no option steps"),
        ("pgd:steps=2", {"steps": 3}, ValueError, "steps: given in 'pgd:steps=2' and as a keyword"),
        ("pgd:stps=2", {}, ValueError, r"did you mean steps\?"),
        (attacks.create("fgsm", Pixels(), space=PixelSpace.unit()), {}, ValueError, "fgsm was created for images in"),
        (attacks.create("fgsm", Pixels(), space=RAW), {"bn": "eval"}, ValueError, "takes no others here: bn"),
        (3, {}, TypeError, "an attack is a name or a class, got int"),
    ],
)
def test_attacks_that_are_refused(attack: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        evaluate(Pixels(), [two_pixels()], attack=attack, eps=8, space=RAW, **options)


def test_a_created_attack_needs_one_size() -> None:
    attack = attacks.create("fgsm", Pixels(), eps=TruncatedNormalEps(8, 16), space=RAW)
    with pytest.raises(TypeError, match="give the evaluation one number for all images, by eps="):
        evaluate(Pixels(), [two_pixels()], attack=attack, space=RAW)
    assert evaluate(Pixels(), [two_pixels()], attack=attack, eps=8, space=RAW).top1 == 2
