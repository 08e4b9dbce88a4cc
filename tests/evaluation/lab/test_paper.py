"""The paper's figures: complete, and consistent with the means that the paper prints beside them."""

from __future__ import annotations

import pytest

from propl_monai import tasks
from propl_monai.evaluation.lab import paper
from propl_monai.evaluation.lab.variants import FRACTIONS

ABLATION = ["no prompts, no UPLC", "no prompts, UPLC", "prompts, no UPLC", "prompts, UPLC"]


@pytest.mark.parametrize("table", range(1, 7))
def test_every_printed_mean_is_the_mean_of_its_row(table: int) -> None:
    """A slip of transcription in any of the 16 figures of a row would show, unless it is below 0.08."""
    for row in paper.paper_rows(table):
        assert list(row.dice) == list(row.iou) == [task.code for task in tasks.TASKS]
        assert sum(row.dice.values()) / 8 == pytest.approx(row.mdice, abs=0.0051), row.name
        assert sum(row.iou.values()) / 8 == pytest.approx(row.miou, abs=0.0051), row.name


def test_rows_and_fractions() -> None:
    assert [paper.about(table)["labelled_fraction"] for table in range(1, 7)] == [*FRACTIONS, *FRACTIONS]
    names = [[row.name for row in paper.paper_rows(table)] for table in (1, 2, 3)]
    assert names[0] == names[1] == names[2] and len(names[0]) == 21 and names[0][-1] == "ProPL"
    assert [row.name for row in paper.paper_rows(4)] == ABLATION


def test_headlines_as_in_the_text_of_the_paper() -> None:
    headlines = [(rows[-1].mdice, rows[-1].miou) for rows in map(paper.paper_rows, (1, 2, 3))]
    assert headlines == [(81.13, 71.96), (83.35, 74.83), (85.50, 77.46)]
    for methods, ablation in ((1, 4), (2, 5), (3, 6)):
        assert paper.paper_rows(methods)[-1].dice == paper.paper_rows(ablation)[-1].dice


@pytest.mark.parametrize("table", (1, 2, 3))
def test_remarks_on_metrics_hold(table: int) -> None:
    """DoDNet and CLIP-UM have IoU = Dice / (2 - Dice) in every cell; DDFP lies far above it in three tasks."""
    for row in paper.paper_rows(table):
        above = {code: row.iou[code] - 100 * row.dice[code] / (200 - row.dice[code]) for code in row.dice}
        if row.name in ("DoDNet", "CLIP-UM"):
            assert max(map(abs, above.values())) < 0.03 and "pooled" in row.remark
        elif row.name == "DDFP":
            assert all(7.8 <= above[code] <= 12.2 for code in ("OT", "TG", "TN")) and "background" in row.remark
        else:
            assert max(map(abs, above.values())) > 1


def test_remarks_on_repeated_rows_hold() -> None:
    first, second, third = ({row.name: row for row in paper.paper_rows(table)} for table in (1, 2, 3))
    assert first["CSC-PA"].dice == second["CSC-PA"].dice and first["CSC-PA"].remark
    assert third["CSC-PA"].dice != first["CSC-PA"].dice and not third["CSC-PA"].remark
    same = [code for code in first["DDFP"].dice if first["DDFP"].dice[code] == third["DDFP"].dice[code]]
    assert len(same) == 6
    assert first["DDFP"].miou > first["ProPL"].miou and second["DDFP"].miou > second["ProPL"].miou
