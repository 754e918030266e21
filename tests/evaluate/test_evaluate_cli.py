from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from fastadv import attacks, models
from fastadv.cli import evaluate as evaluate_cli
from fastadv.cli import main, measure_accuracy
from fastadv.cli.arguments import parse
from fastadv.evaluate import Record, read_records
from fastadv.evaluate.sweep import fingerprint
from fastadv.train import DataConfig, TrainConfig, checkpoint

TABLE_FILES = [f"tables/robustness-{attack}.{kind}" for attack in ("fgsm", "step_ll") for kind in ("csv", "json", "md")]
FIGURE_FILES = [f"figures/robustness-{top}.{kind}" for top in ("top1", "top5") for kind in ("png", "svg")]


DIGITS = tuple("0123456789")


def save_run(folder: Path, seed: int = 0, classes: Sequence[str] = DIGITS, **config: str) -> Path:
    """The folder of a run with one checkpoint of an untrained network."""
    torch.manual_seed(seed)
    checkpoint.save(
        folder,
        model=models.create("small_cnn", num_classes=len(classes), in_channels=1),
        config=TrainConfig(data=DataConfig(**config)),  # type: ignore[arg-type]
        classes=classes,
        state={},
        meta=checkpoint.Meta(step=1, epoch=1, in_channels=1),
    )
    return folder


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return save_run(tmp_path / "standard")


@pytest.fixture
def records_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a small command's time."""
    monkeypatch.setattr(measure_accuracy, "_write", lambda *_: [])


def evaluate(*arguments: str | Path) -> int:
    return evaluate_cli.main([*map(str, arguments), "--limit", "20", "--device", "cpu"])


def test_end_to_end(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other, out = save_run(tmp_path / "other", seed=1), tmp_path / "out"
    command = (run_folder, f"Adv.={other}", "--attacks", "step_ll,fgsm", "--eps", "4,2", "--out", out)
    assert evaluate(*command) == 0
    shown = capsys.readouterr().out
    for part in ("Accuracy on step_ll", "Accuracy on fgsm", "standard", "top 5", "eps = 4", "20 of the 500"):
        assert part in shown

    files = sorted(str(path.relative_to(out)) for path in out.rglob("[!.]*") if path.is_file())
    assert files == sorted([*TABLE_FILES, *FIGURE_FILES, "models.json", "robustness.jsonl"])
    assert all(str(out / name) in shown for name in files if name != "models.json")

    records = read_records(out / "robustness.jsonl", Record)
    assert [(r.attack, r.eps) for r in records[:5]] == [
        *(("clean", 0.0), ("step_ll", 2.0), ("step_ll", 4.0), ("fgsm", 2.0), ("fgsm", 4.0))
    ]
    assert {(r.dataset, r.n, r.total, r.classes) for r in records} == {("digits", 20, 500, 10)}
    rows = json.loads((out / "tables/robustness-fgsm.json").read_text())["rows"]
    assert [row[:2] for row in rows] == [[name, top] for name in ("standard", "Adv.") for top in ("top 1", "top 5")]
    assert rows[0][2]["value"] == records[0].top1 / 20


@pytest.mark.usefixtures("records_only")
def test_fast_options_count_the_same(run_folder: Path, tmp_path: Path) -> None:
    def measured(*more: str) -> list[Record]:
        out = tmp_path / "-".join(["out", *more])
        assert evaluate(run_folder, "--attacks", "iter_ll,random_sign", "--eps", "4", "--out", out, *more) == 0
        return list(read_records(out / "robustness.jsonl", Record))

    plain, fast = measured(), measured("--fast")
    assert [(r.attack, r.top1, r.top5) for r in fast] == [(r.attack, r.top1, r.top5) for r in plain]
    assert [r.options for r in plain] == [{}, {"early_stop": True}, {}]
    # Clean images and noise have nothing to be fast at, and no second iterate.
    assert [r.options for r in fast] == [{}, {"fast": True, "early_stop": True}, {}]


@pytest.mark.usefixtures("records_only")
def test_the_same_command_again_measures_nothing(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (run_folder, "--attacks", "step_ll", "--eps", "2", "--out", tmp_path / "out")
    assert evaluate(*command) == 0
    before = (tmp_path / "out/robustness.jsonl").read_text()
    monkeypatch.setattr("fastadv.evaluate.sweep.count_batches", lambda *_, **__: pytest.fail("measured again"))
    assert evaluate(*command) == 0
    assert (tmp_path / "out/robustness.jsonl").read_text() == before


@pytest.mark.usefixtures("records_only")
def test_a_run_that_went_on_is_measured_again(run_folder: Path, tmp_path: Path) -> None:
    command = (run_folder, "--attacks", "step_ll", "--eps", "2", "--out", tmp_path / "out")
    assert evaluate(*command) == 0
    save_run(run_folder, seed=1)
    assert evaluate(*command) == 0
    records = read_records(tmp_path / "out/robustness.jsonl", Record)
    assert [record.model for record in records] == ["standard"] * 4
    assert [record.checkpoint for record in records[:2]] != [record.checkpoint for record in records[2:]]


@pytest.mark.usefixtures("records_only")
def test_averaged_weights(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    networks = []
    for seed in range(2):
        torch.manual_seed(seed)
        networks.append(models.create("small_cnn", num_classes=10, in_channels=1))
    meta = checkpoint.Meta(step=1, epoch=1, in_channels=1)
    both, about = tmp_path / "both", {"config": TrainConfig(), "classes": DIGITS, "state": {}, "meta": meta}
    checkpoint.save(both, model=networks[0], averaged=networks[1], **about)
    options = ("--attacks", "step_ll", "--eps", "4", "--out", tmp_path / "out")
    assert evaluate(both, *options) == evaluate(f"averaged={both}", "--averaged", *options) == 0
    records = read_records(tmp_path / "out/robustness.jsonl", Record)
    expected = [fingerprint(dict(network.state_dict())) for network in networks]
    assert list(dict.fromkeys(record.checkpoint for record in records)) == expected
    assert evaluate(run_folder, "--averaged", *options) == 2
    assert "has no averaged weights: its run was trained without --ema-decay" in capsys.readouterr().err


@pytest.mark.usefixtures("records_only")
def test_an_interruption_says_that_it_can_go_on(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (run_folder, "--attacks", "step_ll", "--eps", "2", "--out", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr("fastadv.attacks.StepLL.at_each", _interrupt)
        assert evaluate(*command) == 130
    assert "interrupted; run the same command again to continue" in capsys.readouterr().err
    [clean] = read_records(tmp_path / "out/robustness.jsonl", Record)
    assert evaluate(*command) == 0
    records = read_records(tmp_path / "out/robustness.jsonl", Record)
    assert [record.attack for record in records] == ["clean", "step_ll"]
    assert records[0] == clean


@pytest.mark.usefixtures("records_only")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(
    number: signal.Signals, code: int, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(number)
    monkeypatch.setattr("fastadv.attacks.StepLL.at_each", lambda *_, **__: signal.raise_signal(number))
    assert evaluate(run_folder, "--attacks", "step_ll", "--eps", "2", "--out", tmp_path / "out") == code
    assert [record.attack for record in read_records(tmp_path / "out/robustness.jsonl", Record)] == ["clean"]
    assert signal.getsignal(number) is before


@pytest.mark.usefixtures("records_only")
def test_a_line_for_each_measured_record_without_a_terminal(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (run_folder, "--attacks", "pgd:steps=1", "--out", tmp_path / "out", "--batch_size", 20, "--eps")
    for sizes, expected in (
        ("2", [r"1/2  standard: clean eps = 0: top 1 \d", r"2/2  standard: pgd:steps=1 eps = 2: top 1 \d"]),
        ("2,4", [r"1/1  standard: pgd:steps=1 eps = 4: top 1 \d"]),
        ("2,4", []),
    ):
        assert evaluate(*command, sizes) == 0
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == len(expected) and all(map(re.match, expected, lines)), lines


@pytest.mark.usefixtures("records_only")
def test_sizes_on_another_scale_are_warned_of_once_in_each_command(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if the file has all numbers, so that no attack runs."""
    for _ in range(2):
        command = ("evaluate", run_folder, "--attacks", "fgsm", "--eps", "0.03", "--limit", "5", "--device", "cpu")
        assert main([*map(str, command), "--out", str(tmp_path / "out")]) == 0
        assert capsys.readouterr().err.count("eps = 0.03 is in pixel values") == 1


def test_a_second_command_shows_what_the_first_one_measured(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[list[str]] = []
    monkeypatch.setattr(
        measure_accuracy, "_write", lambda records, _: written.append([r.attack for r in records]) or []
    )
    command = (run_folder, "--eps", "2", "--out", tmp_path / "out", "--attacks")
    assert evaluate(*command, "fgsm") == evaluate(*command, "random_sign") == 0
    shown = capsys.readouterr()
    assert "in no table" not in shown.err and shown.out.count("Accuracy on fgsm") == 1
    first, second = shown.out.split("Accuracy on random_sign")
    hint = f"all attacks and the worst case per image in one table: fastadv report {tmp_path / 'out'}\n"
    assert hint not in first and second.endswith(hint)
    assert evaluate(*command, "fgsm", "--seed", "1") == 0
    assert "\n  3 measurements with seed 0 (this command: 1)\n" in capsys.readouterr().err
    assert written == [["clean", "fgsm"], ["clean", "random_sign", "fgsm"], ["clean", "fgsm"]]


def save_network(path: Path, seed: int) -> str:
    """The argument for a file with the weights of an untrained network."""
    torch.manual_seed(seed)
    path.parent.mkdir(exist_ok=True)
    torch.save(models.create("small_cnn", num_classes=10, in_channels=1).state_dict(), path)
    return f"small_cnn@{path}"


@pytest.mark.usefixtures("records_only")
def test_a_name_stands_for_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused before anything is measured: else the rows of the first file would vanish from the tables."""
    one, other = (save_network(tmp_path / folder / "net.pth", seed) for seed, folder in enumerate("ab"))
    out = tmp_path / "out"
    options = ("--dataset", "digits", "--space", "unit", "--attacks", "fgsm", "--eps", "8", "--out", out)
    assert evaluate(one, *options) == 0
    before = (out / "robustness.jsonl").read_bytes()
    capsys.readouterr()
    assert evaluate(other, *options) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"fastadv evaluate: {out} has results of {tmp_path}/a/net.pth under the name 'net': give "
        f"{tmp_path}/b/net.pth another name, as in 'net 2={other}', or write to another folder with --out"
    )
    assert (out / "robustness.jsonl").read_bytes() == before
    assert evaluate(f"net 2={other}", *options) == 0
    records = read_records(out / "robustness.jsonl", Record)
    assert [record.model for record in records] == ["net", "net", "net 2", "net 2"]
    save_network(tmp_path / "a" / "net.pth", seed=2)  # trained further
    assert evaluate(one, *options) == 0
    assert "2 measurements of net, with other weights or attack options" in capsys.readouterr().err
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "net.pth").write_bytes((tmp_path / "a" / "net.pth").read_bytes())
    assert evaluate(f"small_cnn@{tmp_path}/c/net.pth", *options) == 0  # the same weights


def test_files_of_another_setting_are_removed_and_their_records_kept(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def drawn(_: object, stem: Path) -> list[Path]:
        stem.parent.mkdir(exist_ok=True)
        stem.with_suffix(".png").touch()
        return [stem.with_suffix(".png")]

    monkeypatch.setattr(measure_accuracy, "save_figure", drawn)
    out = tmp_path / "out"
    assert evaluate(run_folder, "--attacks", "fgsm,step_ll", "--eps", "2", "--out", out) == 0
    (out / "tables/robustness-of-mine.md").touch()
    capsys.readouterr()
    command = (run_folder, "--attacks", "step_ll", "--eps", "2", "--out", out, "--limit", "10", "--device", "cpu")
    assert evaluate_cli.main([*map(str, command)]) == 0
    said = capsys.readouterr().err
    assert f"kept in {out}/robustness.jsonl, but in no table or figure of this command:\n  3 measurements on 20" in said
    removed = [f"  {out}/tables/robustness-fgsm.{kind}" for kind in ("csv", "json", "md")]
    assert said.splitlines()[-4:] == ["removed, since they showed such records:", *removed]
    tables = sorted(path.name for path in (out / "tables").iterdir())
    assert tables == ["robustness-of-mine.md", *(f"robustness-step_ll.{kind}" for kind in ("csv", "json", "md"))]
    assert [record.n for record in read_records(out / "robustness.jsonl", Record)] == [20] * 3 + [10] * 2


@pytest.mark.usefixtures("records_only")
def test_a_limit_beyond_the_set_is_said(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", str(run_folder), "--attacks", "random_sign", "--eps", "2", "--out", str(tmp_path / "out")]
    for limit, said in (("501", True), ("500", False)):
        assert main([*command, "--limit", limit, "--device", "cpu"]) == 0
        assert ("--limit 501: digits has 500 test images, and all are used" in capsys.readouterr().err) is said


def test_results_are_shown_on_an_ascii_terminal(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is not UTF-8 works like any other; characters that ASCII lacks are escaped."""
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr(measure_accuracy, "save_figure", lambda *_: [])
    name = "Adv. \u03b5 \u00b1".encode().decode("ascii", "surrogateescape")
    command = ["evaluate", f"{name}={run_folder}", "--attacks", "fgsm", "--eps", "2", "--limit", "20"]
    assert main([*command, "--device", "cpu", "--out", str(tmp_path / "out")]) == 0
    shown = terminal.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert "Adv. \\u03b5 \\xb1" in shown and "written:" in shown
    assert "| Adv. \u03b5 \u00b1 | top 1 |" in (tmp_path / "out/tables/robustness-fgsm.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("records_only")
def test_a_full_disk_is_a_line(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("fastadv.evaluate.records.os.fsync", full)
    assert evaluate(run_folder, "--attacks", "step_ll", "--eps", "2", "--out", tmp_path / "out") == 1
    assert "fastadv evaluate: [Errno 28] No space left" in capsys.readouterr().err


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_an_l2_norm_may_be_above_the_pixel_range(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The 3.0 of benchmarks on ImageNet is 765."""
    assert evaluate(run_folder, "--attacks", "pgd:norm=l2:steps=1", "--eps", "765", "--out", tmp_path, "--json") == 0
    assert {record["eps"] for record in json.loads(capsys.readouterr().out)["records"]} == {0.0, 765.0}


def test_models_of_different_data_sets(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = save_run(tmp_path / "other", name="mnist")
    assert evaluate(run_folder, other, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "standard was trained on digits, other on mnist" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "A={run}", "A={run}"], "two models would be named 'A'"),
        (["{run}", "{run}"], "two models would be named 'standard': leave one out, or name it, as in 'standard 2="),
        (["nowhere"], "nowhere is neither a checkpoint nor"),
        (["A=nowhere"], "nowhere is neither a checkpoint nor"),
        (
            ["{run}", "--attacks", "fgsm:aux_weight=1"],
            "needs a model with a method forward_with_aux, as inception_v3 has",
        ),
        (["{run}", "--attacks", "pgd:norm=l2,fgsm", "--eps", "765"], "eps must be at most 255, the whole pixel range"),
        (["{run}", "--device", "abacus"], "device must be auto, cpu"),
        (["{run}", "--out", "{run}/checkpoints/step-00000001/meta.json"], "meta.json: it is a file"),
        (["{run}", "--out", "{run}/checkpoints/step-00000001/meta.json/a"], "meta.json/a: Not a directory"),
        (["{run}", "--out", "/proc/results"], "cannot write to the folder /proc/results: "),
    ],
)
def test_a_users_mistake_is_a_message_and_exit_code_2(
    run_folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    arguments = [argument.format(run=run_folder) for argument in arguments]
    assert evaluate_cli.main(["--out", str(run_folder / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: [NAME=]MODEL"),
        (["x", "--attacks", "step_ll,nonsense"], f"unknown attack 'nonsense'; accepted: {', '.join(attacks.names())}"),
        (["x", "--attacks", "clean"], "unknown attack 'clean'"),
        (["x", "--attacks", "pgd:step=3"], "pgd has no option step (did you mean steps?); its options are alpha,"),
        (["x", "--attacks", "fgsm,"], "--attacks: a name is missing before or after a comma, got 'fgsm,'"),
        (["x", "--attacks", "pgd:steps=many"], "pgd:steps=many: steps must be an integer, got 'many'"),
        (["x", "--attacks", "pgd:steps"], "written as in pgd:steps=20:alpha=2, got 'steps' in 'pgd:steps'"),
        (["x", "--attacks", "pgd:eps=4"], "eps is the same for all attacks"),
        (["x", "--eps", "8/255"], "8/255 on a [0, 1] scale is 8 here"),
        (["x", "--eps", "2,much"], "each eps must be a number above 0, in pixel values of [0, 255], got '2,much'"),
        (["x", "--attacks", "pgd:targeted=True"], "pgd is targeted: it steps towards the labels"),  # as true, in JSON
        (["x", "--eps", "0,2"], "clean accuracy is always measured"),
        (["x", "--eps", "inf"], "each eps must be"),
        (["x", "--eps", ""], "each eps must be"),
        (
            ["x", "--limit", "0"],
            "--limit: must be a whole number of at least 1, got '0'",
        ),
        (
            ["x", "--batch-size", "1.5"],
            "must be a whole number of at least 1, got '1.5'",
        ),
        (["x", "--seed", "-1"], "--seed"),
        (["x", "--threads", "99999"], "--threads: must be a whole number of at least 1 and at most 1024, got '99999'"),
        (["x", "--seed", str(2**63)], "--seed: must be a whole number of at least 0 and at most 9223372036854775807"),
        (["x", "--threads", "two"], "--threads: must be a whole number"),
        (["x", "--limt", "20"], "unrecognized arguments: --limt 20 (did you mean --limit?)"),
        (["x", "--epsilon=2"], "unrecognized arguments: --epsilon=2 (did you mean --eps?)"),
        (["x", "--batchsize", "9"], "(did you mean --batch-size?)"),
        (["x", "--lim", "20"], "(did you mean --limit?)"),
        (["x", "--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["x", "y", "--averaged", "z"], "unrecognized arguments: z"),
        (["x", "--eps", "2", "4"], "argument --eps: a list is one word with commas, as in --eps 2,4"),
        (["--eps", "2,", "4,8", "x"], "argument --eps: a list is one word with commas, as in --eps 2,4,8"),
        (["--attacks", "fgsm", "pgd:steps=3", "x"], "as in --attacks fgsm,pgd:steps=3"),
        (["x", "--eps", "2", "--attacks"], "argument --attacks: expected one argument"),
    ],
)
def test_an_option_out_of_range_ends_before_any_work(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        evaluate_cli.main(arguments)
    assert stopped.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_file_after_a_list_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_run(Path("16"))
    arguments = parse(evaluate_cli._parser(), ["--eps", "2", "16"])
    assert (arguments.eps, arguments.models) == ([2.0], ["16"])


def test_images_that_do_not_fit_are_a_mistake_in_the_data(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unfit(*_: object, **__: object) -> None:
        raise ValueError("images hold values that are not finite")

    monkeypatch.setattr("fastadv.evaluate.sweep.count_batches", unfit)
    assert evaluate(run_folder, "--out", run_folder / "out") == 2
    assert "fastadv evaluate: images hold values that are not finite" in capsys.readouterr().err


def test_help_names_every_attack_and_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        evaluate_cli.main(["--help"])
    assert stopped.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for part in (*attacks.names(), "default: step_ll,iter_ll,iter_basic", "default: 2,4,8,16", "exit codes"):
        assert part in shown
