"""The benchmark of `propl rank`: who has which labels, what is done when, and its table. Nothing is trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evaluation.lab.fake_runs import FRACTIONS, GAINS, results, write_cases
from factories import small_predictor

from benchmarks import ranking
from benchmarks.ranking import START, Bench, Plan, Unit, keep_plan, start_labels, table, with_labels
from propl_monai import Predictor
from propl_monai.common.run_record import RunRecord
from propl_monai.datasets.sources.registry import read_source
from propl_monai.errors import ProPLError
from propl_monai.tasks import NAMES


@pytest.fixture
def bench(phantoms: Path, tmp_path: Path) -> Bench:
    return Bench(tmp_path / "out", read_source("folder", phantoms), Plan("1/16", 0.25, 2, "compact", {}))


def write_run(bench: Bench, unit: Unit, gain: float) -> None:
    """A finished training, as the lab leaves it."""
    path = bench.result(unit)
    record = RunRecord(path, "compare", bench._lab(unit, None).options(bench._run(unit)))
    made = results("supervised", gain, unit.seed)
    made["cases_sha256"] = write_cases(path, made.pop("cases"))
    record.write("finished", results=made)


def test_each_seed_starts_with_labels_of_its_own(bench: Bench) -> None:
    train = {case.case_id for case in bench.datalist.cases if case.split == "train"}
    first, second = (start_labels(bench.datalist.cases, "1/16", seed) for seed in (0, 1))
    assert first != second and first < train and second < train
    assert first <= start_labels(bench.datalist.cases, "1/2", 0)
    by_task = [[case for case in bench.datalist.cases if case.task == name and case.case_id in first] for name in NAMES]
    assert all(len(some) >= 2 for some in by_task)


def test_what_is_held_out_keeps_its_masks(bench: Bench) -> None:
    chosen = start_labels(bench.datalist.cases, "1/16", 0)
    made = with_labels(bench.datalist, chosen)
    assert len(made.cases) == len(bench.datalist.cases)
    assert {case.case_id for case in made.cases if case.mask and case.split == "train"} == chosen
    assert all(case.mask for case in made.cases if case.split != "train")


def test_work_comes_after_what_it_needs(bench: Bench) -> None:
    units = list(bench.units(["random", "diversity"], [0, 1]))
    assert len(units) == 2 * (1 + 2 * 2 * 2) and units[0] == Unit(START, 0, 0)
    for place, unit in enumerate(units):
        if unit.ranks:
            assert bench._before(unit) in units[:place]
        elif unit.round:
            assert replace(unit, ranks=True) in units[:place]
    assert not any(map(bench.is_done, units))


def test_a_round_adds_what_its_strategy_put_first(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Path, dict[str, Any]]] = []

    def from_bundle(path: Path, **options: Any) -> Predictor:
        asked.append((path, options))
        return small_predictor(uncertainty_of=options["uncertainty_of"])

    monkeypatch.setattr(ranking.Predictor, "from_bundle", from_bundle)
    start, first = Unit(START, 0, 0), Unit("random", 1, 0)
    bench.do(replace(first, ranks=True))
    assert asked[0][0] == bench.result(start).parent / "models" and asked[0][1]["uncertainty_of"] == "views"
    assert bench.is_done(replace(first, ranks=True)) and not bench.is_done(first)
    before, after = bench.labels(start), bench.labels(first)
    train = [case for case in bench.datalist.cases if case.split == "train"]
    for task in NAMES:
        own = {case.case_id for case in train if case.task == task}
        assert len((after - before) & own) == min(max(1, round(0.25 * len(own))), len(own - before))
    bench.do(Unit("random", 2, 0, ranks=True))
    assert asked[1][0] == bench.result(first).parent / "models" and after < bench.labels(Unit("random", 2, 0))


def test_the_table_sets_each_order_against_chance(bench: Bench) -> None:
    gains = {"random": 0.0, "diversity": 0.04, "uncertainty-views": -0.03}
    for seed in (0, 1):
        write_run(bench, Unit(START, 0, seed), FRACTIONS["1/16"])
        for name, gain in gains.items():
            write_run(bench, Unit(name, 1, seed), GAINS["supervised"] + gain)
            choice = bench._choice(Unit(name, 1, seed))
            choice.parent.mkdir(parents=True, exist_ok=True)
            choice.write_text(json.dumps([case.case_id for case in bench.datalist.cases if case.split == "train"]))
    rows, text = table(bench, list(gains), [0, 1, 2])
    found = {row["strategy"]: row for row in rows}
    assert list(found) == [START, *gains] and all(row["seeds"] == [0, 1] for row in rows)
    assert found[START]["labels"][0] < found["random"]["labels"][0]
    assert "gain" not in found["random"] and "gain" not in found[START]
    assert found["diversity"]["gain_low"] > 0 > found["uncertainty-views"]["gain_high"]
    assert found["diversity"]["gain"] == pytest.approx(0.04, abs=0.01)
    assert found["diversity"]["p"] < found["diversity"]["p_corrected"] < 0.05
    assert "| diversity | 2 |" in text and text.count("\n") == len(rows) + 1


def test_a_folder_has_one_plan(bench: Bench) -> None:
    keep_plan(bench.folder, bench.plan, "a")
    keep_plan(bench.folder, bench.plan, "a")
    with pytest.raises(ProPLError, match=r"was begun with rounds 2, now 3, datalist_sha256 'a', now 'b'"):
        keep_plan(bench.folder, replace(bench.plan, rounds=3), "b")
