"""Pages of tables and figures: what fits on them, and what printing shows."""

from __future__ import annotations

import re

from fastadv.evaluate.intervals import proportion
from fastadv.evaluate.pages import html_page, table_html
from fastadv.evaluate.tables import Table


def table(columns: int, bold: frozenset[tuple[int, int]] = frozenset()) -> Table:
    """A row of intervals."""
    cells = tuple(proportion(800, 1000) for _ in range(columns))
    return Table("Accuracy", ("Network", *map(str, range(columns))), (("a", *cells),), labels=1, bold=bold)


def box_of(html: str) -> str:
    return html.partition(">")[0]


def test_intervals_of_a_wide_table_stand_below_the_values() -> None:
    narrow, wide = table_html(table(4)), table_html(table(8))
    assert "80.0% [77.4-82.4]" in narrow and "stacked" not in narrow
    assert "stacked" in box_of(wide) and "broad" not in box_of(wide)
    assert wide.count('80.0% <span class="interval">[77.4-82.4]</span>') == 8


def test_a_table_that_is_too_wide_even_so_is_set_in_smaller_type() -> None:
    assert "stacked broad" in box_of(table_html(table(16)))


def test_bold_cells_of_a_wide_table_are_no_wider_than_others() -> None:
    html = table_html(table(8, bold=frozenset({(0, 2)})))
    assert '<td><b>80.0% <span class="interval">[77.4-82.4]</span></b></td>' in html
    assert 'class="wide"' not in html


def test_a_page_opens_what_is_folded_before_it_is_printed() -> None:
    page = html_page("title", ["<details><summary>more</summary>all</details>"])
    [script] = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert "beforeprint" in script and "part.open = true" in script
