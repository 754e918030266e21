"""benchmarks.early_stop: the tables that it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torchattacks", reason="trains like benchmarks.autoattack, which compares with torchattacks")

from tests.benchmarks.test_autoattack import rows_of


def test_fewer_gradients_and_the_same_verdicts(tmp_path: Path) -> None:
    from benchmarks.early_stop import main

    out = tmp_path / "early-stop.md"
    small = ("--limit", "600", "--epochs", "3", "--images", "20", "--steps", "40", "--rounds", "1")
    main(["--data-set", "digits", "--out", str(out), *small])
    rows = rows_of(out.read_text(), "digits, 20 test images, small_cnn of width 0.5, trained by fast")
    assert [name for name, *_ in rows] == [
        f"{name}, eps 16, alpha 2, steps 40" for name in ("iter_basic", "pgd") for _ in range(3)
    ]
    for begin in (0, 3):
        variants, gradients = zip(
            *((variant, float(count)) for _, variant, count, *_ in rows[begin : begin + 3]), strict=True
        )
        assert variants == ("all steps", "cycles leave", "early_stop=True")
        assert 40 == gradients[0] > gradients[1] > gradients[2] > 1
    assert all(int(unlike) <= 1 for _, _, _, _, unlike, *_ in rows)
