"""Evaluation: a handler that scores each predicted case as one row and writes the tables of the run."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas
from ignite.engine import Engine, Events

from propl_monai.common.files import write_atomically
from propl_monai.common.ranks import gather_in_turn, is_writer
from propl_monai.common.run_record import RunRecord
from propl_monai.data.datalist import Datalist
from propl_monai.errors import ProPLError
from propl_monai.evaluation.cases import CASES
from propl_monai.evaluation.metrics import HD95_DEFINITION, case_row
from propl_monai.evaluation.summary import summarise, to_markdown

logger = logging.getLogger(__name__)


def describe(
    header: Mapping[str, Any],
    datalist: Datalist,
    split: str,
    decoder: str,
    external: str | Sequence[str] | None = None,
) -> dict[str, Any]:
    """Facts for the notes of a table: what was trained on which data, and whether the splits are those of the training.

    Args:
        header: of the weights, see `weights.read_header`; empty for a `.pt`.
        datalist: evaluated datalist.
        split: evaluated split.
        decoder: decoder that predicts.
        external: external data, evaluated instead of a split, see `cohort.external_cases`.
    """
    if external and header and header.get("leave_out") != external:
        fact = f"was left out of a training that left out {header.get('leave_out')}, so it is not external"
        raise ProPLError(f"external data {external}", fact, "train with --leave_out of exactly these")
    # Of the training, and of what `propl add-task` taught it later, see `deploy.add_task`.
    seen = [each.get("datalist_sha256") for each in (header, *header.get("added", []))]
    trained_on = next((sha256 for sha256 in seen if sha256 == datalist.sha256), seen[0])
    same = "unknown" if trained_on is None else "yes" if trained_on == datalist.sha256 else "no"
    if same == "no":
        logger.warning(
            "the weights were trained with another datalist: test cases of this one may have been trained on"
        )
    about = {key: header.get(key) for key in ("preset", "labelled_fraction", "epoch", "validation_mdice")}
    about |= {"training seeds": 1, "seed": header.get("seed")} if "seed" in header else {}
    about |= {"external": external} if external else {"split": split}
    about |= {"decoder": decoder, "datalist": datalist.name, "same datalist as training": same}
    if about["validation_mdice"] is not None:
        about["validation_mdice"] = round(about["validation_mdice"], 4)
    return about


class CaseTable:
    """Writes `cases.csv` (one row per case), `table.csv` and `table.md` (one row per task), and run.json.

    Under `torch.distributed` each rank predicts the cases of its `ranks.share`, and rank 0 writes all rows, in the order of
    one process.

    Args:
        output_dir: where to write.
        options: settings for run.json.
        inputs: files to hash into run.json, such as datalist and weights.
        convention: of Dice and IoU of empty masks, see `metrics.case_row`.
        about: facts for the table's notes, such as the decoder and the labelled fraction.
    """

    def __init__(
        self,
        output_dir: str,
        options: Mapping[str, Any],
        inputs: Sequence[str],
        convention: str = "standard",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.options, self.inputs = Path(output_dir), options, inputs
        self.convention, self.about = convention, dict(about or {})
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.COMPLETED, self._finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _start(self, engine: Engine) -> None:
        self.rows = []
        if is_writer():
            self.record = RunRecord(self.folder / "run.json", "evaluate", self.options, self.inputs)
            self.record.write("running")

    def _add(self, engine: Engine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            spacing = tuple(float(length) for length in item["pixel_spacing_mm"])
            row = case_row(
                output["pred"] > 0,  # a logit of 0 is a probability of 0.5
                output["label"] > 0,
                spacing if all(spacing) else None,  # type: ignore[arg-type]
                convention=self.convention,  # type: ignore[arg-type]
                where=item["case_id"],
            )
            self.rows.append(
                {"case": item["case_id"], "task": item["task"], "source": item["source"], "group": item["group"], **row}
            )

    def _finish(self, engine: Engine) -> None:
        rows = gather_in_turn(self.rows)
        if not is_writer():
            return
        table = summarise(rows)
        notes = [", ".join(f"{key} {value}" for key, value in self.about.items() if value is not None), HD95_DEFINITION]
        markdown = to_markdown(table, [note for note in notes if note])
        cases = pandas.DataFrame(rows).to_csv(index=False)
        files = {CASES: cases, "table.csv": table.to_csv(index=False, lineterminator="\n"), "table.md": markdown}
        for name, text in files.items():
            write_atomically(self.folder / name, text.encode())
        results = {"about": self.about, "table": json.loads(table.to_json(orient="records"))}
        self.record.write("finished", [self.folder / name for name in files], results)
        logger.info("\n%s", markdown)

    def _fail(self, engine: Engine, error: BaseException) -> None:
        if hasattr(self, "record"):
            self.record.fail(self.folder, error)
        raise error
