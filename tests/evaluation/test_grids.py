"""Tables as text: one form of a number, of an interval and of a Markdown table."""

from __future__ import annotations

from propl_monai.evaluation.grids import markdown_table, number, pair, percent


def test_numbers() -> None:
    assert number(None) == "–" and number(0.7149, 100) == "71.5" and number(1234.5678, digits=2) == "1234.57"
    assert number(-0.0001, 100) == "0.0" and number(0.02, 100, sign="+") == "+2.0"


def test_intervals() -> None:
    row = {"dice": 0.5, "dice_low": 0.25, "dice_high": 0.75, "iou": 0.5, "iou_low": None, "iou_high": None}
    assert percent(row, "dice") == "50.0 [25.0, 75.0]" and percent(row, "dice", "+") == "+50.0 [+25.0, +75.0]"
    assert percent(row, "iou") == "50.0" and percent({"d": None, "d_low": None, "d_high": None}, "d") == "–"
    assert pair({"hd95_px_hits": 4.0, "hd95_px_all": None}, "hd95_px") == "4.0 / –"


def test_cells_stay_in_their_place() -> None:
    text = markdown_table(["row", "Dice"], [["a | b", "<b>1</b>\n2"]])
    assert text == "| row | Dice |\n| --- | ---: |\n| a \\| b | &lt;b>1&lt;/b> 2 |"
