"""docs/outputs.md shows the columns of the table as the program knows them."""

from __future__ import annotations

from pathlib import Path

from bayesbragg.pipeline.columns import COLUMNS, columns_table

REPOSITORY = Path(__file__).resolve().parents[2]


def test_columns_are_documented() -> None:
    text = (REPOSITORY / "docs/outputs.md").read_text(encoding="utf-8")
    assert columns_table() in text, "put bayesbragg.pipeline.columns.columns_table() into docs/outputs.md"
    assert all(meaning and not meaning.endswith(".") for _, meaning in COLUMNS.values())


def test_classic_columns_keep_their_names_and_order(shared: Path) -> None:
    from bayesbragg.io.tables import read_table

    classic = read_table(shared / "tutorial/classic/procPoly/hopper_process_summary.pkl").columns
    ours = list(COLUMNS)
    assert set(classic) == set(ours[: ours.index("osc_deg") + 1])
