"""From predicted cases to tables, on predictions counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator
from torch import Tensor

from propl_monai.data import transforms
from propl_monai.datasets.cohort import evaluation_items, open_datalist
from propl_monai.evaluation.case_table import CaseTable, describe
from propl_monai.inference import postprocess
from propl_monai.inference.inferer import PromptInferer
from propl_monai.model.network import ProPL

Check = Callable[[Path], dict[str, Any]]


def mask(*pixels: tuple[int, int]) -> Tensor:
    made = torch.zeros(1, 6, 8)
    for row, column in pixels:
        made[0, row, column] = 1
    return made


def item(case: str, task: str, spacing: float = 0.0, group: str = "") -> dict[str, Any]:
    return {
        "case_id": case,
        "task": task,
        "source": "A",
        "group": group or case,
        "pixel_spacing_mm": [torch.tensor(spacing), torch.tensor(spacing)],  # as MONAI's collation leaves it
    }


SQUARE = [(1, 1), (1, 2), (2, 1), (2, 2)]
MOVED = [(1, 2), (1, 3), (2, 2), (2, 3)]  # two of four pixels in common
CASES = [
    (item("same", "left atrium", 0.5), mask(*SQUARE), mask(*SQUARE)),
    (item("moved", "left atrium", 0.5), mask(*MOVED), mask(*SQUARE)),
    (item("missed", "thyroid nodule"), mask(), mask(*SQUARE)),
    (item("nothing", "thyroid nodule"), mask(), mask()),
]


def run(table: CaseTable, cases: list[tuple[dict[str, Any], Tensor, Tensor]]) -> None:
    """An engine that predicts these masks, as logits of 3 and -3, two cases a batch."""
    engine = Engine(lambda _, batch: [{"pred": 6 * made - 3, "label": true} for _, made, true in batch])
    table.attach(engine)

    def only_items(engine: Engine) -> None:
        engine.state.batch = [case for case, _, _ in engine.state.batch]

    from ignite.engine import Events

    engine._event_handlers[Events.ITERATION_COMPLETED].insert(0, (only_items, (engine,), {}))
    engine.run([cases[:2], cases[2:]])


@pytest.fixture
def done(tmp_path: Path) -> Path:
    (tmp_path / "weights.pt").write_bytes(b"weights")
    about = {"decoder": "sd", "labelled_fraction": "1/8", "seed": None}
    run(CaseTable(str(tmp_path / "out"), {"split": "test"}, [str(tmp_path / "weights.pt")], about=about), CASES)
    return tmp_path / "out"


def test_cases(done: Path) -> None:
    rows = pandas.read_csv(done / "cases.csv").set_index("case")
    assert rows.loc["same", ["dice", "iou", "status", "hd95_px"]].tolist() == [1, 1, "ok", 0]
    # Dice 2·2/(4+4), IoU 2/6; each lost pixel is one pixel, 0.5 mm, from the other mask.
    moved = rows.loc["moved"]
    assert (moved["dice"], moved["iou"]) == (0.5, pytest.approx(1 / 3))
    assert (moved["hd95_px"], moved["hd95_mm"]) == (1, 0.5)
    assert (moved["task"], moved["source"], moved["group"]) == ("left atrium", "A", "moved")
    assert rows.loc["missed", ["dice", "status"]].tolist() == [0, "missed"]
    assert rows.loc["nothing", ["dice", "status"]].tolist() == [1, "both empty"]
    assert rows["hd95_mm"].isna().tolist() == [False, False, True, True]  # no spacing, no millimetres
    assert rows.loc["missed", ["height", "width"]].tolist() == [6, 8]


def test_table(done: Path) -> None:
    table = pandas.read_csv(done / "table.csv").set_index("task")
    assert list(table.index) == ["left atrium", "thyroid nodule", "mean"]
    assert table["n"].tolist() == [2, 2, 4] and table["missed"].tolist() == [0, 1, 1]
    assert table["dice"].tolist() == pytest.approx([0.75, 0.5, 0.625])
    assert table["iou"].tolist() == pytest.approx([(1 + 1 / 3) / 2, 0.5, (2 / 3 + 0.5) / 2])
    assert table.loc["left atrium", "hd95_px_hits"] == pytest.approx(0.5)
    text = (done / "table.md").read_text()
    assert "| left atrium | 2 | 2 | 0 | 0 | 0 | 75.0 |" in text and "| mean | 4 |" in text
    assert "- decoder sd, labelled_fraction 1/8\n" in text and "HD95: the larger of the two" in text


def test_run_json(done: Path, check_run_json: Check) -> None:
    record = check_run_json(done / "run.json")
    assert (record["verb"], record["status"], record["options"]) == ("evaluate", "finished", {"split": "test"})
    assert [Path(path).name for path in record["outputs"]] == ["cases.csv", "table.csv", "table.md"]
    assert [Path(entry["path"]).name for entry in record["inputs"]] == ["weights.pt"]
    rows = {row["task"]: row for row in record["results"]["table"]}
    assert rows["mean"]["dice"] == pytest.approx(0.625) and rows["mean"]["dice_low"] is None
    assert record["results"]["about"] == {"decoder": "sd", "labelled_fraction": "1/8", "seed": None}


def test_a_run_that_fails_says_so(tmp_path: Path, check_run_json: Check) -> None:
    broken = (item("broken", "left atrium"), mask(), torch.zeros(1, 3, 3))
    with pytest.raises(Exception, match="broken"):
        run(CaseTable(str(tmp_path), {}, []), [CASES[0], broken])
    record = check_run_json(tmp_path / "run.json")
    assert record["status"] == "failed" and "broken" in record["findings"][0]["message"]
    assert not (tmp_path / "table.csv").exists()


def test_convention_of_the_released_code(tmp_path: Path) -> None:
    """TP := 1 where it is 0: the miss of four pixels has Dice 2/(2 + 4)."""
    run(CaseTable(str(tmp_path), {}, [], convention="released"), CASES)
    rows = pandas.read_csv(tmp_path / "cases.csv").set_index("case")
    assert rows.loc["missed", "dice"] == pytest.approx(1 / 3)


def test_a_second_run_starts_afresh(tmp_path: Path) -> None:
    table = CaseTable(str(tmp_path), {}, [])
    run(table, CASES)
    run(table, CASES)
    assert len(pandas.read_csv(tmp_path / "cases.csv")) == 4


def test_through_monais_evaluator(network: ProPL, phantoms: Path, tmp_path: Path, check_run_json: Check) -> None:
    """As `bundle/configs/evaluate.json` wires it: at the original size, each case by its own task."""
    items = evaluation_items(open_datalist(str(phantoms), None, str(tmp_path), ["LA", "TN"]))
    seen: list[tuple[str, tuple[int, ...]]] = []

    class Table(CaseTable):
        def _add(self, engine: Engine) -> None:
            seen.extend(
                (one["task"], tuple(out["pred"].shape))
                for one, out in zip(engine.state.batch, engine.state.output, strict=True)
            )
            super()._add(engine)

    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items, transforms.evaluation((32, 32), "half")), batch_size=1),
        network=network,
        inferer=PromptInferer(),
        prepare_batch=PrepareBatchExtraInput(extra_keys={"task": "task"}),
        postprocessing=postprocess.RestoreSized("pred"),
        val_handlers=[Table(str(tmp_path / "out"), {}, [])],
    ).run()
    assert seen == [(one["task"], (1, 64, 64)) for one in items]
    rows = pandas.read_csv(tmp_path / "out" / "cases.csv")
    assert rows["case"].tolist() == [one["case_id"] for one in items] and (rows["height"] == 64).all()
    assert rows["diagonal_mm"].notna().all()  # the manifest knows the pixel size
    assert check_run_json(tmp_path / "out" / "run.json")["status"] == "finished"


def test_description_says_whether_the_splits_are_those_of_the_training(
    phantoms: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    datalist = open_datalist(str(phantoms), None, str(tmp_path), ["LA"])
    header = {"datalist_sha256": datalist.sha256, "preset": "compact", "validation_mdice": 0.123456, "seed": 3}
    about = describe(header, datalist, "test", "pd")
    assert about["same datalist as training"] == "yes" and about["validation_mdice"] == 0.1235
    assert (about["decoder"], about["split"], about["seed"], about["datalist"]) == ("pd", "test", 3, "phantoms")
    assert not [record for record in caplog.records if record.levelname != "INFO"]
    assert describe({**header, "datalist_sha256": "0"}, datalist, "test", "pd")["same datalist as training"] == "no"
    assert "test cases of this one may have been trained on" in caplog.text
    assert describe({}, datalist, "test", "sd")["same datalist as training"] == "unknown"
