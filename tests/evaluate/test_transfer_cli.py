"""``fastadv transfer``: what a second command into a folder does to the results of the first."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastadv.cli import main, measure_transfer
from fastadv.evaluate import TransferRecord, read_records
from tests.evaluate.test_evaluate_cli import save_network

OPTIONS = ("--dataset", "digits", "--space", "unit", "--attacks", "fgsm", "--device", "cpu")


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    def drawn(_: object, stem: Path) -> list[Path]:  # drawing takes seconds
        stem.parent.mkdir(exist_ok=True)
        stem.with_suffix(".svg").touch()
        return [stem.with_suffix(".svg")]

    monkeypatch.setattr(measure_transfer, "save_figure", drawn)
    return [save_network(tmp_path / folder / "net.pth", seed) for seed, folder in enumerate("abc")]


def transfer(*arguments: str | Path) -> int:
    return main(["transfer", *map(str, arguments), *OPTIONS])


def test_tables_show_the_last_setting(networks: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = (f"A={networks[0]}", f"B={networks[1]}", "--out", out)
    assert transfer(*command, "--eps", "8,16", "--limit", "20") == 0
    names = {path.name for path in (*(out / "tables").iterdir(), *(out / "figures").iterdir())}
    assert {"transfer-rate-eps-8.md", "transfer-error-eps-16.csv", "transfer-rate.svg"} <= names
    capsys.readouterr()
    assert transfer(*command, "--eps", "8", "--limit", "10", "--curve", "A:B") == 0
    said = capsys.readouterr().err
    assert "--curve: no curve is drawn of a single eps" in said
    assert "transfer.jsonl, but in no table or figure of this command:\n  8 measurements on 20 images" in said
    assert f"  {out}/figures/transfer-rate.svg\n" in said and not [*(out / "figures").iterdir()]
    tables = {f"transfer-{measure}-eps-8.{kind}" for measure in ("rate", "error") for kind in ("csv", "json", "md")}
    assert {path.name for path in (out / "tables").iterdir()} == tables
    assert [record.n for record in read_records(out / "transfer.jsonl", TransferRecord)] == [20] * 8 + [10] * 4


def test_a_name_stands_for_one_file(networks: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    options = ("--eps", "8", "--limit", "10", "--out", out)
    assert transfer(networks[0], f"B={networks[1]}", *options) == 0
    assert transfer(f"B={networks[1]}", networks[2], *options) == 2
    expected = f"{out} has results of {tmp_path}/a/net.pth under the name 'net': give {tmp_path}/c/net.pth another name"
    assert expected in capsys.readouterr().err


def test_the_limit_of_the_paper_is_not_mentioned(
    networks: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --limit, 1,000 images are drawn, and digits has 500."""
    assert transfer(f"A={networks[0]}", f"B={networks[1]}", "--eps", "8", "--out", tmp_path / "out") == 0
    assert "--limit" not in capsys.readouterr().err
    assert {record.n for record in read_records(tmp_path / "out/transfer.jsonl", TransferRecord)} == {500}
