"""Panels of runs on phantoms: the right cases, the masks of the weights, and no picture that does not fit its table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_runs import write_cases, write_run

from propl_monai.data.datalist import Datalist, as_items
from propl_monai.datasets.sources.registry import read_source
from propl_monai.errors import ProPLError
from propl_monai.evaluation.lab import panel_cases
from propl_monai.evaluation.lab.panel_cases import make_panels

TASK = "left atrium"


@pytest.fixture(scope="module")
def made(phantoms: Path, network: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """Runs propl and supervised with random weights, tested on every left atrium; the table of the first."""
    from propl_monai.images import read_mask
    from propl_monai.inference.predictor import Predictor
    from propl_monai.model.weights import save_weights

    runs = tmp_path_factory.mktemp("runs")
    datalist = read_source("folder", phantoms)
    datalist.write(runs / "datalist.json")
    weights = runs / "short" / "propl" / "1-8" / "seed-0" / "models"
    save_weights(network, weights, {"spatial_size": [64, 64], "normalisation": "half"})
    predictor, rows = Predictor.from_bundle(weights), []
    for item in as_items(datalist.select(tasks=[TASK]).cases, phantoms):
        mask, reference = predictor(item["image"], TASK).mask, read_mask(item["label"])
        dice = 2 * (mask & reference).sum() / (mask.sum() + reference.sum())
        about = {"case": item["case_id"], "task": TASK, "source": item["source"], "group": item["group"]}
        sizes = dict.fromkeys(("hd95_px", "hd95_mm", "hd95_grid", "diagonal_px", "diagonal_grid"), 1.0)
        rows.append({**about, "dice": float(dice), "iou": float(dice / (2 - dice)), "status": "ok", **sizes})
    table = pd.DataFrame(rows)
    for name in ("propl", "supervised"):
        write_run(runs, name, cases=table.to_dict("list"), datalist_sha256=datalist.sha256)
    shutil.copytree(weights, runs / "short" / "supervised" / "1-8" / "seed-0" / "models")
    return runs, table


def folder(runs: Path, name: str) -> Path:
    return runs / "short" / name / "1-8" / "seed-0"


def test_the_best_the_median_and_the_worst_are_drawn(
    made: tuple[Path, pd.DataFrame], phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, table = made
    drawn: list[Any] = []
    real = panel_cases.draw_panels
    monkeypatch.setattr(panel_cases, "draw_panels", lambda panels, text: drawn.append(panels) or real(panels, text))
    written = make_panels([folder(runs, "propl"), folder(runs, "supervised")], tmp_path, phantoms)
    assert sorted(path.name for path in written) == ["panels-left_atrium.png", "panels-left_atrium.svg"]
    ranked = sorted(table["dice"], reverse=True)
    ((best, median, worst),) = drawn
    shown = [panel.dice["propl"] for panel in (best, median, worst)]
    assert shown == pytest.approx([ranked[0], ranked[len(ranked) // 2], ranked[-1]]) and ranked[0] > ranked[-1]
    assert [panel.name for panel in (best, median, worst)] == ["best", "median", "worst"]
    assert list(best.predictions) == ["propl", "supervised"]
    overlap = (best.predictions["propl"] & best.reference).sum()
    assert 2 * overlap / (best.predictions["propl"].sum() + best.reference.sum()) == pytest.approx(shown[0])


def test_cases_are_ranked_by_the_mean_over_the_runs(made: tuple[Path, pd.DataFrame]) -> None:
    runs, table = made
    rows = panel_cases._rows([folder(runs, "propl"), folder(runs, "supervised")])
    rows[1].run.cases["dice"] = np.linspace(1, 0, len(table))
    mean = panel_cases._mean_dice(rows).set_index("case")["dice"]
    expected = (table["dice"] + np.linspace(1, 0, len(table))) / 2
    assert list(mean[table["case"]]) == pytest.approx(list(expected))


def test_seeds_of_a_row_are_told_apart(made: tuple[Path, pd.DataFrame]) -> None:
    runs, table = made
    write_run(runs / "more", "propl", seed=1, cases=table.to_dict("list"))
    more = runs / "more" / "short" / "propl" / "1-8" / "seed-1"
    assert [row.name for row in panel_cases._rows([folder(runs, "propl"), more])] == ["propl, seed 0", "propl, seed 1"]
    with pytest.raises(ProPLError, match="two runs are called propl; name each run once"):
        panel_cases._rows([folder(runs, "propl")] * 2)


def test_what_does_not_belong_together_is_refused(
    made: tuple[Path, pd.DataFrame], phantoms: Path, tmp_path: Path
) -> None:
    runs, table = made
    copied = tmp_path / "runs"
    shutil.copytree(runs, copied)
    path = folder(copied, "propl") / "run.json"
    content = json.loads(path.read_text())
    content["results"]["cases_sha256"] = write_cases(path, table.assign(dice=0.99).to_dict("list"))
    path.write_text(json.dumps(content))
    with pytest.raises(ProPLError, match=r"now, 0.990 in .*run.json; its weights, picture or mask were changed"):
        make_panels([folder(copied, "propl")], tmp_path, phantoms)
    whole = Datalist.read(runs / "datalist.json", phantoms)
    whole.select(tasks=[TASK]).write(tmp_path / "other.json")
    with pytest.raises(ProPLError, match="another datalist"):
        make_panels([folder(runs, "propl")], tmp_path, phantoms, datalist_file=tmp_path / "other.json")
    with pytest.raises(ProPLError, match="has no case in this run"):
        make_panels([folder(runs, "propl")], tmp_path, phantoms, ["fetal head"])
    with pytest.raises(ProPLError, match="holds no finished run"):
        make_panels([runs], tmp_path, phantoms)
    with pytest.raises(ProPLError, match="shallow: lies in no folder such as RUNS/short/propl/1-8; name the datalist"):
        panel_cases._find_datalist(Path("/shallow"))
    write_run(copied, "decoder-sd")
    with pytest.raises(ProPLError, match="name the run of propl"):
        make_panels([folder(copied, "decoder-sd")], tmp_path, phantoms)
