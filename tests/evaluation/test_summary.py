"""Tables: means worked by hand, empties charged and counted, intervals checked by coverage and by a plain twin."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from monai.metrics import HausdorffDistanceMetric

from propl_monai.errors import ProPLError
from propl_monai.evaluation.metrics import HD95_DEFINITION, case_row
from propl_monai.evaluation.summary import COLUMNS, MIN_GROUPS, STATUSES, _widened, summarise, to_markdown

Row = dict[str, Any]


def row(case: str, dice: float = 0.8, hd95: float | None = 5.0, status: str = "ok", **changes: Any) -> Row:
    """A row as `case_row` makes it, of a 30 x 40 image: the diagonal is 50 px; 0.5 mm pixels: 25 mm."""
    made = {
        "case": case,
        "task": "breast cancer",
        "source": "BUSI",
        "group": "",
        "status": status,
        "dice": dice,
        "iou": dice / (2 - dice),
        "hd95_px": hd95,
        "hd95_mm": None if hd95 is None else hd95 / 2,
        "hd95_grid": hd95,
        "diagonal_px": 50.0,
        "diagonal_mm": 25.0,
        "diagonal_grid": 300.0,
        "convention": "standard",
    }
    return made | changes


def cohort(seed: int, groups: int, each: int = 3, **changes: Any) -> list[Row]:
    """Cases of patients who differ: most of the spread of the Dice lies between groups, its true mean is 0.8."""
    random = np.random.default_rng(seed)
    level = random.uniform(-0.15, 0.15, groups)
    noise = random.uniform(-0.05, 0.05, (groups, each))
    return [
        row(f"{g}-{i}", float(0.8 + level[g] + noise[g, i]), group=f"p{g}", **changes)
        for g in range(groups)
        for i in range(each)
    ]


def line(table: pd.DataFrame, task: str) -> pd.Series:
    return table.set_index("task").loc[task]


FOUR_KINDS = [
    row("a", 0.9, 4.0),
    row("b", 0.7, 8.0, diagonal_mm=None, hd95_mm=None),
    row("c", 0.0, None, "missed"),
    row("d", 0.0, None, "false alarm"),
    row("e", 1.0, None, "both empty"),
]


def test_counts_and_means_by_hand() -> None:
    found = line(summarise(FOUR_KINDS), "breast cancer")
    assert [found[key] for key in ("n", "groups", "ok", "missed", "false_alarm", "both_empty")] == [5, 5, 2, 1, 1, 1]
    assert found["dice"] == pytest.approx((0.9 + 0.7 + 0 + 0 + 1) / 5)
    assert found["iou"] == pytest.approx((0.9 / 1.1 + 0.7 / 1.3 + 1) / 5)
    assert found["hd95_px_hits"] == (4 + 8) / 2
    assert found["hd95_px_all"] == (4 + 8 + 50 + 50 + 0) / 5
    assert (found["hd95_mm_hits"], found["hd95_mm_n"]) == (2.0, 4)
    assert found["hd95_mm_all"] == (2 + 25 + 25 + 0) / 4
    assert found["hd95_grid_hits"] == 6.0
    assert found["hd95_grid_all"] == (4 + 8 + 300 + 300 + 0) / 5
    assert found["dice_low"] is None and found["iou_high"] is None  # 5 groups


def test_both_empty_without_spacing_is_not_a_zero_in_millimetres() -> None:
    rows = [row("a", 0.9, 4.0), row("b", 1.0, None, "both empty", diagonal_mm=None)]
    found = line(summarise(rows), "breast cancer")
    assert (found["hd95_px_all"], found["hd95_mm_all"], found["hd95_mm_n"]) == (2.0, 2.0, 1)


def test_mask_that_vanishes_on_the_grid_is_charged_the_diagonal() -> None:
    found = line(summarise([row("a"), row("b", hd95_grid=None)]), "breast cancer")
    assert (found["hd95_grid_hits"], found["hd95_grid_all"]) == (5.0, (5 + 300) / 2)


def test_mean_line_weighs_tasks_the_same_and_drops_none() -> None:
    rows = [row("a", 0.5, 2.0), row("b", 0.6, 4.0), row("c", 0.9, 6.0, task="TN", diagonal_mm=None, hd95_mm=None)]
    table = summarise(rows)
    assert list(table["task"]) == ["breast cancer", "thyroid nodule", "mean"] and list(table.columns) == list(COLUMNS)
    mean = line(table, "mean")
    assert mean["dice"] == pytest.approx((0.55 + 0.9) / 2)
    assert mean["hd95_px_hits"] == pytest.approx((3 + 6) / 2)
    assert (mean["hd95_mm_hits"], mean["hd95_mm_all"], mean["hd95_mm_n"], mean["n"]) == (None, None, 2, 3)
    only_misses = summarise([*rows, row("d", 0.0, None, "missed", task="fetal head")])
    assert list(only_misses["task"]) == ["breast cancer", "fetal head", "thyroid nodule", "mean"]
    assert line(only_misses, "fetal head")["hd95_px_hits"] is None and line(only_misses, "mean")["hd95_px_hits"] is None
    assert line(only_misses, "mean")["hd95_px_all"] == pytest.approx((3 + 50 + 6) / 3)


def disc(column: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(48), torch.arange(64), indexing="ij")
    return (y - 24) ** 2 + (x - column) ** 2 <= 36


def test_missing_the_hard_targets_does_not_pay() -> None:
    """Model A misses two of four targets, B finds them 9 px off. A mean that drops NaN prefers A; ours does not."""
    reference, nothing = disc(30), torch.zeros(48, 64, dtype=torch.bool)
    a = [disc(31), disc(31), nothing, nothing]
    b = [disc(31), disc(31), disc(39), disc(39)]
    dropping = {}
    ours = {}
    for name, predictions in (("a", a), ("b", b)):
        metric = HausdorffDistanceMetric(include_background=True, percentile=95)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for prediction in predictions:
                metric(prediction[None, None].float(), reference[None, None].float())
            dropping[name] = float(metric.aggregate())  # type: ignore[arg-type]
        names = [{"case": str(i), "task": "OT", "source": "MMOTU"} for i in range(4)]
        rows = [{**case_row(p, reference, None), **key} for p, key in zip(predictions, names, strict=True)]
        ours[name] = line(summarise(rows), "ovarian tumor")
    assert dropping["a"] < dropping["b"]
    assert ours["a"]["hd95_px_hits"] == pytest.approx(dropping["a"])  # the same figure, but not alone:
    assert (ours["a"]["missed"], ours["b"]["missed"]) == (2, 0)
    for key in ("hd95_px_all", "hd95_grid_all"):
        assert ours["a"][key] > ours["b"][key]
    assert ours["a"]["dice"] < ours["b"]["dice"]


def test_every_status_of_the_metrics_is_known_here() -> None:
    empty, full = torch.zeros(4, 4), torch.ones(4, 4)
    pairs = [(full, full), (empty, full), (full, empty), (empty, empty)]
    assert tuple(case_row(p, r, None)["status"] for p, r in pairs) == STATUSES


def test_interval_agrees_with_a_plain_twin() -> None:
    """Groups of unlike size: draw groups, pool their cases, take the mean; quantiles at the widened level."""
    random = np.random.default_rng(5)
    scores = [random.beta(6, 2, size) for size in random.integers(1, 8, 15)]
    rows = [row(f"{g}-{i}", float(s), group=f"p{g}") for g, group in enumerate(scores) for i, s in enumerate(group)]
    found = line(summarise(rows, resamples=20000), "breast cancer")
    drawn = [np.concatenate([scores[g] for g in random.integers(0, 15, 15)]).mean() for _ in range(20000)]
    tail = (1 - _widened(0.95, 15)) / 2
    assert found["dice"] == pytest.approx(np.concatenate(scores).mean())
    assert found["dice_low"] == pytest.approx(np.quantile(drawn, tail), abs=0.003)
    assert found["dice_high"] == pytest.approx(np.quantile(drawn, 1 - tail), abs=0.003)
    assert found["dice_high"] - found["dice_low"] > 0.05


def test_widening_by_hand() -> None:
    """n = 10: Student's quantile 2.262157 x sqrt(10/9) = 2.384525; the normal law has 0.982900 within that."""
    assert _widened(0.95, 10) == pytest.approx(0.98290, abs=1e-5)
    assert _widened(0.95, 10**7) == pytest.approx(0.95, abs=1e-6)


@pytest.mark.exhaustive
def test_coverage_of_the_interval() -> None:
    """P9: with 30 patients of 3 images, 95 % intervals hold the true 0.8 about 95 times in 100; blind ones do not."""
    hits, blind_hits = [], []
    for seed in range(200):
        rows = cohort(seed, 30)
        found = line(summarise(rows, resamples=500), "mean")
        hits.append(found["dice_low"] <= 0.8 <= found["dice_high"])
        if seed < 40:
            found = line(summarise([r | {"group": ""} for r in rows], resamples=500), "mean")
            blind_hits.append(found["dice_low"] <= 0.8 <= found["dice_high"])
    assert 0.92 <= np.mean(hits) <= 0.99  # of 200: standard error 0.015
    assert np.mean(blind_hits) < 0.85


def test_tasks_of_the_same_patients_are_drawn_together() -> None:
    """Three tasks with the same scores: of the same patients the mean is as uncertain as one task; else less so."""
    heart = ("left atrium", "left ventricle", "myocardium")
    shared = summarise([r for task in heart for r in cohort(1, 40, task=task, source="CAMUS")])
    apart = summarise([r for task in heart for r in cohort(1, 40, task=task, source=f"{task} only")])
    one, together, alone = line(shared, "left atrium"), line(shared, "mean"), line(apart, "mean")
    assert (together["dice_low"], together["dice_high"]) == pytest.approx((one["dice_low"], one["dice_high"]))
    width = {name: found["dice_high"] - found["dice_low"] for name, found in (("t", together), ("a", alone))}
    assert width["a"] == pytest.approx(width["t"] / math.sqrt(3), rel=0.1)
    assert (together["groups"], alone["groups"], together["n"]) == (40, 120, 360)


def test_tasks_that_share_only_some_groups() -> None:
    """60 patients, ten of them also with an atrium, of lower Dice: the interval is of the mean over tasks, not cases."""
    rows = cohort(2, 60, task="LV") + [r | {"dice": r["dice"] - 0.4} for r in cohort(2, 10, task="LA")]
    table = summarise(rows)
    assert line(table, "mean")["groups"] == 60
    assert line(table, "mean")["dice"] == pytest.approx(0.6, abs=0.05)  # the mean over cases is 0.74
    for task in ("left atrium", "left ventricle", "mean"):
        found = line(table, task)
        assert found["dice"] - 0.1 < found["dice_low"] < found["dice"] < found["dice_high"] < found["dice"] + 0.1


def test_too_few_groups_have_no_interval() -> None:
    rows = cohort(3, MIN_GROUPS, task="TN") + cohort(4, MIN_GROUPS - 1, each=20, task="TG", source="TG3K")
    table = summarise(rows)
    assert line(table, "thyroid nodule")["dice_low"] is not None
    assert line(table, "thyroid gland")["dice_low"] is None
    assert line(table, "mean")["dice_low"] is None and line(table, "mean")["dice"] is not None


@pytest.mark.parametrize(
    ("keys", "groups"),
    [
        ([{"group": "p1"}, {"group": "p1"}], 1),
        ([{"group": "p1"}, {"group": "p1", "source": "UDIAT"}], 2),
        ([{"group": ""}, {"group": "  "}], 2),
        ([{"group": None}, {"group": math.nan}], 2),
        ([{"group": "b"}, {"group": ""}], 2),  # case b without a group is not the group called b
        ([{"group": 1}, {"group": "1"}], 1),
    ],
)
def test_what_a_group_is(keys: list[Row], groups: int) -> None:
    rows = [row(case) | key for case, key in zip("ab", keys, strict=True)]
    assert line(summarise(rows), "breast cancer")["groups"] == groups


def test_rows_without_the_key_group() -> None:
    rows = [{key: value for key, value in row(case).items() if key != "group"} for case in "abc"]
    assert line(summarise(rows), "breast cancer")["groups"] == 3


def test_order_and_a_trip_through_csv_change_nothing() -> None:
    rows = cohort(6, 12) + FOUR_KINDS + [r | {"task": "left atrium"} for r in cohort(7, 12)]
    table = summarise(rows)
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    pd.testing.assert_frame_equal(summarise(shuffled), table, check_exact=True)
    text = pd.DataFrame(rows).to_csv(index=False)
    read: list[Any] = pd.read_csv(io.StringIO(text)).to_dict("records")
    pd.testing.assert_frame_equal(summarise(read), table)
    assert not summarise(rows, seed=1)["dice_low"].equals(table["dice_low"])


def test_equal_scores_have_an_interval_of_no_width() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = line(summarise([row(str(i), 0.75) for i in range(12)]), "breast cancer")
    assert (found["dice_low"], found["dice"], found["dice_high"]) == pytest.approx((0.75, 0.75, 0.75))


def test_markdown() -> None:
    text = to_markdown(summarise(FOUR_KINDS + cohort(8, 12, task="LA")), [HD95_DEFINITION, "data list 1234"])
    lines = text.splitlines()
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|") == 13
    assert lines[2].startswith("| breast cancer | 5 | 5 | 1 | 1 | 1 | 52.0 | ")
    assert lines[2].endswith("| 6.0 / 22.4 | 2.0 / 13.0 (4) | 6.0 / 122.4 |")
    atrium = line(summarise(cohort(8, 12, task="LA")), "left atrium")
    assert "{dice:.1%} [{dice_low:.1%}, {dice_high:.1%}]".format(**atrium).replace("%", "") in lines[3]
    assert lines[5] == "" and lines[6] == f"- {HD95_DEFINITION}" and lines[7] == "- data list 1234"
    notes = "\n".join(lines[8:])
    assert "41 in all: 38 with both masks non-empty, 1 missed (empty prediction), 1 false alarms" in notes
    for part in ("2000 resamples, seed 0", "none below 10 groups", "1 when both are empty", "image diagonal"):
        assert part in notes
    assert text.endswith("\n") and "nan" not in text.lower() and "None" not in text


def test_pooled_dice_by_hand() -> None:
    """Two images: 10 of 20 and 900 of 1,000 pixels in common; the large one decides."""
    names = ("reference_pixels", "predicted_pixels", "intersection_pixels")
    rows = [row("a", 0.5, **dict(zip(names, (20, 20, 10), strict=True)))]
    rows += [row("b", 0.9, **dict(zip(names, (1000, 1000, 900), strict=True)))]
    table = summarise(rows)
    assert line(table, "breast cancer")["pooled_dice"] == pytest.approx(2 * 910 / 2040)
    assert line(table, "mean")["pooled_dice"] == pytest.approx(2 * 910 / 2040) and line(table, "mean")["dice"] == 0.7
    assert "| 70.0 | " in to_markdown(table, []) and "| 89.2 | " in to_markdown(table, [])
    empty = row("c", 1.0, None, "both empty", **dict.fromkeys(names, 0))
    assert line(summarise([empty]), "mean")["pooled_dice"] == 1.0
    assert line(summarise([*rows, row("d")]), "mean")["pooled_dice"] is None  # a row without counts


def test_markdown_dash_and_released_note() -> None:
    rows = [row("c", 0.1, None, "missed", hd95_mm=None, diagonal_mm=None, convention="released")]
    text = to_markdown(summarise(rows), [])
    assert "| – / 50.0 | – / – (0) | – / 300.0 |" in text
    assert "TP := 1" in text and "1 when both are empty" not in text


def test_csv_and_json() -> None:
    table = summarise(FOUR_KINDS)
    read = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    assert list(read.columns) == list(COLUMNS)
    assert read["dice"].tolist() == table["dice"].tolist() and read["dice_low"].isna().all()
    assert json.loads(json.dumps(table.to_dict("records"), allow_nan=False))[0]["dice_low"] is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no cases"),
        ([row("a"), row("a")], "case a, breast cancer: scored more than once"),
        ([row("a", task="breast cancre")], "case a: unknown task 'breast cancre'; did you mean 'breast cancer'"),
        ([row("a", status="miss")], "unknown status 'miss'; did you mean 'missed'"),
        ([{k: v for k, v in row("a").items() if k not in ("iou", "source")}], "rows without source, iou"),
        ([row("a", dice=math.nan)], "no finite dice"),
        ([row("a", hd95=None)], "no finite hd95_px"),
        ([row("a", hd95=math.inf)], "no finite hd95_px"),
        ([row("a", diagonal_px=None)], "no finite diagonal_px"),
        ([row("a"), row("b", convention="released")], "two metric conventions"),
    ],
)
def test_bad_rows_are_refused(rows: list[Row], message: str) -> None:
    with pytest.raises(ProPLError, match=message):
        summarise(rows)


def test_too_few_resamples_are_refused() -> None:
    with pytest.raises(ProPLError, match="99 bootstrap resamples"):
        summarise([row("a")], resamples=99)


def test_the_same_case_name_may_stand_in_two_tasks_or_sources() -> None:
    table = summarise([row("a"), row("a", source="UDIAT"), row("a", task="LA")])
    assert line(table, "mean")["n"] == 3


def test_imports_no_torch() -> None:
    code = "import sys, propl_monai.evaluation.summary; sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
