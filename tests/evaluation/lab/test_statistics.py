"""Means and differences worked by hand; the interval and the p-value of a difference checked by simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from propl_monai import tasks
from propl_monai.errors import ProPLError
from propl_monai.evaluation.lab.finished_runs import RunResult
from propl_monai.evaluation.lab.statistics import (
    SURE,
    difference,
    group_contributions,
    holm,
    score,
    seed_spread,
    sign_flip_p,
    sure_tasks,
)


def run(dice: dict[str, list[float]], seed: int = 0, groups: list[str | None] | None = None) -> RunResult:
    """A run with the Dice of cases 0, 1, … of each task, by code; without groups each case is its own."""
    rows = [
        {
            **{
                "case": str(place),
                "task": tasks.find(task).name,
                "source": "s",
                "group": (groups[place] or "") if groups else "",
            },
            **{"dice": value, "iou": value / 2, "status": "ok", "hd95_px": 1.0, "hd95_mm": np.nan, "hd95_grid": 2.0},
            **{"diagonal_px": 50.0, "diagonal_mm": np.nan, "diagonal_grid": 300.0, "convention": "standard"},
        }
        for task, values in dice.items()
        for place, value in enumerate(values)
    ]
    numbers: dict[str, Any] = dict.fromkeys(RunResult.__dataclass_fields__)
    return RunResult(**(numbers | {"path": Path(f"run-{seed}"), "seed": seed, "cases": pd.DataFrame(rows)}))


def test_mean_over_tasks_of_means_over_cases() -> None:
    table = score([run({"BC": [0.4, 0.6], "FH": [0.9]})], 100)
    assert table.loc["breast cancer", "dice"] == pytest.approx(0.5)
    assert table.loc["mean", "dice"] == pytest.approx((0.5 + 0.9) / 2)
    assert table.loc["mean", "dice_low"] is None  # fewer than ten groups


def test_seeds_are_averaged_per_case_and_their_spread_stands_apart() -> None:
    runs = [run({"BC": [0.4, 0.6], "FH": [0.9, 0.9]}, 0), run({"BC": [0.6, 0.6], "FH": [0.7, 0.9]}, 1)]
    table = score(runs, 100)
    assert table.loc["breast cancer", "dice"] == pytest.approx((0.5 + 0.6) / 2)
    assert table.loc["mean", "dice"] == pytest.approx((0.55 + 0.85) / 2)
    assert (table.loc["mean", "n"], table.loc["mean", "groups"]) == (8, 2)  # case 0 of both tasks is one unit
    assert seed_spread(runs) == pytest.approx(0.0)  # 0.7 and 0.7
    assert seed_spread([runs[0], run({"BC": [0.6, 0.6], "FH": [1.0, 1.0]}, 1)]) == pytest.approx(0.1 / np.sqrt(2))
    assert seed_spread(runs[:1]) is None


def test_a_patient_seen_by_three_trainings_is_one_patient() -> None:
    values = np.random.default_rng(0).uniform(0.5, 1, 20)
    one = score([run({"BC": list(values)})], 400)
    three = score([run({"BC": list(values)}, seed) for seed in range(3)], 400)
    assert three.loc["mean", "groups"] == 20
    for end in ("dice_low", "dice_high"):
        assert three.loc["mean", end] == pytest.approx(one.loc["mean", end], abs=1e-9)


def test_a_task_of_few_groups_does_not_take_the_interval_from_the_others() -> None:
    random = np.random.default_rng(3)
    hard = {"BC": random.uniform(0.5, 0.9, 12), "FH": random.uniform(0.7, 0.9, 20), "TG": random.uniform(0.6, 0.8, 4)}
    gain = {"BC": 0.05, "FH": 0.01, "TG": -0.5}
    mine = run({code: list(values + gain[code]) for code, values in hard.items()})
    other = run({code: list(values) for code, values in hard.items()})
    table = score([mine], 200)
    assert sure_tasks(table) == ["breast cancer", "fetal head"] and table.loc["mean", "dice_low"] is None
    expected = (hard["BC"].mean() + 0.05 + hard["FH"].mean() + 0.01) / 2
    assert table.loc[SURE, "dice"] == pytest.approx(expected)
    alone = score([run({code: list(hard[code] + gain[code]) for code in ("BC", "FH")})], 200)
    for end in ("dice_low", "dice_high"):
        assert table.loc[SURE, end] == pytest.approx(alone.loc["mean", end])
    found = difference([mine], [other], 200)
    assert found is not None and found.table.loc["mean", "dice"] == pytest.approx((0.05 + 0.01 - 0.5) / 3)
    assert found.table.loc[SURE, "dice"] == pytest.approx(0.03)
    assert found.p is not None and found.p < 0.001 and found.task_p["thyroid gland"] is None
    assert set(found.task_p) == {"breast cancer", "fetal head", "thyroid gland"}


def test_without_a_task_of_few_groups_both_means_are_one() -> None:
    for values in ([0.5, 0.7], list(np.linspace(0.4, 0.9, 15))):
        table = score([run({"BC": values, "FH": values})], 100)
        assert table.loc[SURE].equals(table.loc["mean"]) and sure_tasks(table) == ["breast cancer", "fetal head"]


def test_difference_by_hand() -> None:
    mine, other = run({"BC": [0.5, 0.7], "FH": [0.9, 0.9]}), run({"BC": [0.4, 0.4], "FH": [0.9, 1.0]})
    found = difference([mine], [other], 100)
    assert found is not None and found.p is None  # two groups
    assert found.table.loc["breast cancer", "dice"] == pytest.approx((0.1 + 0.3) / 2)
    assert found.table.loc["fetal head", "dice"] == pytest.approx(-0.05)
    assert found.table.loc["mean", "dice"] == pytest.approx((0.2 - 0.05) / 2)
    assert found.table.loc["mean", "iou"] == pytest.approx(0.0375)


def test_difference_pairs_seeds() -> None:
    mine = [run({"BC": [0.5]}, 0), run({"BC": [0.9]}, 1)]
    other = [run({"BC": [0.1]}, 2), run({"BC": [0.8]}, 1)]
    found = difference(mine, other, 100)
    assert found is not None and found.seeds == (1,)
    assert found.table.loc["mean", "dice"] == pytest.approx(0.1)
    assert difference(mine[:1], other, 100) is None


def test_difference_refuses_other_cases() -> None:
    with pytest.raises(ProPLError, match="other test cases"):
        difference([run({"BC": [0.5, 0.6]})], [run({"BC": [0.5]})], 100)


def test_pairing_narrows_the_interval() -> None:
    random = np.random.default_rng(1)
    hard = random.uniform(0.3, 0.9, 40)
    mine, other = run({"BC": list(hard + 0.02 + random.normal(0, 0.005, 40))}), run({"BC": list(hard)})
    found = difference([mine], [other], 400)
    alone = score([mine], 400).loc["mean"]
    assert found is not None and found.p is not None and found.p < 0.001
    line = found.table.loc["mean"]
    assert line["dice_low"] > 0.015 and line["dice_high"] < 0.025
    assert (line["dice_high"] - line["dice_low"]) * 10 < alone["dice_high"] - alone["dice_low"]


def test_contributions_of_groups_add_up_to_the_mean() -> None:
    frame = pd.DataFrame(
        {
            **{"task": ["LA", "LA", "LV", "BC"], "source": ["camus"] * 3 + ["busi"]},
            **{"group": ["1", "2", "1", "1"], "dice": [0.3, 0.6, 0.9, -0.3]},
        }
    )
    # Three tasks, two cases of LA: weights 1/6, 1/6, 1/3, 1/3. Patient 1 of camus has an atrium and a ventricle.
    assert sorted(group_contributions(frame)) == pytest.approx(sorted([0.05 + 0.3, 0.1, -0.1]))


def test_sign_flips_by_hand() -> None:
    # Of the 8 choices of signs only +++ and --- reach |6|.
    assert sign_flip_p(np.array([1.0, 2.0, 3.0])) == pytest.approx(2 / 8)
    # 3 - 1 - 1 = 1 in absolute value is reached by every choice: the smallest of them is |3 - 2|.
    assert sign_flip_p(np.array([3.0, -1.0, -1.0])) == pytest.approx(1.0)
    assert sign_flip_p(np.zeros(12)) == 1.0


@pytest.mark.parametrize("groups", [8, 40])
def test_sign_flips_are_those_of_scipy(groups: int) -> None:
    values = np.random.default_rng(groups).normal(0.3, 1, groups)
    twin = stats.permutation_test((values,), lambda x, axis: x.sum(axis), permutation_type="samples", vectorized=True)
    # Exact for 8; for 40 both draw 9999 flips, with a standard error of at most 0.005.
    assert sign_flip_p(values) == pytest.approx(twin.pvalue, abs=1e-9 if groups == 8 else 0.03)


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1 is 0.04, 0.06, 0.06, 0.5.
    assert holm([0.03, 0.5, 0.01, 0.02]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    # 3 x 0.02 = 0.06 must not be undercut by 2 x 0.021 = 0.042, nor anything exceed 1.
    assert holm([0.021, 0.02, 0.9]) == pytest.approx([0.06, 0.06, 0.9])
    assert holm([0.8, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([None, 0.01, None, 0.04]) == [None, pytest.approx(0.02), None, pytest.approx(0.04)]
    assert holm([]) == []


@pytest.mark.exhaustive
def test_interval_and_p_value_of_a_difference_keep_their_promises() -> None:
    """30 patients of three images, and no true difference: 95 % of the intervals hold 0, 5 % have p < 0.05.

    With 100 draws the number of misses of an exact method is binomial(100, 0.05), above 12 with probability 0.2 % and 0
    with 0.6 %; an interval that took images for patients would miss 0 in 22 of them.
    """
    misses = small = 0
    patients: list[str | None] = [f"p{place // 3}" for place in range(90)]
    other = run({"LA": [0.7] * 90}, groups=patients)
    for draw in range(100):
        random = np.random.default_rng(draw)
        shift = np.repeat(random.normal(0, 0.04, 30), 3)  # a patient's images gain or lose together
        mine = run({"LA": list(0.7 + shift + random.normal(0, 0.02, 90))}, groups=patients)
        found = difference([mine], [other], 200)
        assert found is not None and found.p is not None
        line = found.table.loc["mean"]
        misses += not line["dice_low"] <= 0 <= line["dice_high"]
        small += found.p < 0.05
    assert 1 <= misses <= 12 and 1 <= small <= 12
