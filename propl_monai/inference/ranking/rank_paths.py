"""`propl rank`: a table of pictures without labels, the one whose label would help most first."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from propl_monai.common.files import write_atomically
from propl_monai.common.run_record import RunRecord, conclude
from propl_monai.data.splits import unit_interval
from propl_monai.errors import ProPLError
from propl_monai.inference.doubts import lines, summary
from propl_monai.inference.inputs import find_inputs
from propl_monai.inference.journal import Journal
from propl_monai.inference.predictor import Predictor
from propl_monai.inference.ranking.look import LABELLED, Look, Row, features_of
from propl_monai.inference.ranking.strategies import STRATEGIES, Found, find_strategy

DEFAULT = next(iter(STRATEGIES))
COLUMNS = ("rank", "score", "file", "frame", "presence", "absent", "known", "foreign")
SALT = "propl-monai-rank-1"  # of the order by chance
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """The result of a ranking.

    Attributes:
        ranked: rows of the table.
        files: that were looked at now.
        skipped: files that were looked at before.
        refused: files that cannot be read.
        labelled: files that were left out, as they are among the labelled ones.
        code: exit code: 0, 3 when some files were refused, 2 when all were.
    """

    ranked: int
    files: int
    skipped: int
    refused: int
    labelled: int
    code: int


@dataclass(frozen=True)
class _Picture:
    """A still, or a frame of a cine (from 1), and what is known of it."""

    path: Path
    frame: int | None
    sha256: str
    row: Row


def rank_paths(
    predictor: Predictor,
    pictures: Sequence[str | Path],
    output: str | Path,
    task: str,
    strategy: str = DEFAULT,
    *,
    labelled: Sequence[str | Path] = (),
    first: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Rank files, folders (however deep) and frames of cines, all formats of `propl_monai.images`.

    `order.csv` has a row for each picture, best first: `rank` from 1, `score` (what it means, the strategy says; it never
    increases), `file`, `frame` (from 1, of a cine), and the scores of `inference.known`, where the weights have them.
    `order.jsonl` beside it keeps what is known of each file: call it again after a stop, or with more pictures, and only what
    is new is looked at. `order.run.json` describes the run.

    Args:
        predictor: whose `uncertainty_of` is that of the strategy.
        pictures: files and folders.
        output: the table, ending in .csv.
        task: name, code or slug of the target that will be labelled.
        strategy: a name of `strategies.STRATEGIES`.
        labelled: files and folders of pictures that have their label already: `diversity` keeps away from them, and those
            among `pictures` (same bytes) are left out.
        first: number of pictures that are wanted; None for all.
        seed: of the strategy random.
        overwrite: forget what is known from other weights, or for another strategy or task.
        progress: called with (files done, files in all).
    """
    output, chosen, (task,) = Path(output), find_strategy(strategy), predictor.names(task)
    if output.suffix != ".csv":
        raise ProPLError(output, "does not end in .csv", "name a table, such as order.csv")
    if first is not None and first < 1:
        raise ProPLError("--first", f"{first} is below 1", "give the number of pictures that you will label")
    settings: dict[str, Any] = {"strategy": chosen.name, "task": task}
    if chosen.looks:
        settings |= predictor.settings
    if chosen.uncertainty_of:
        predictor.require_uncertainty()
        if predictor.uncertainty_of != chosen.uncertainty_of:
            fact = f"needs uncertainty of {chosen.uncertainty_of}, the predictor has that of {predictor.uncertainty_of}"
            raise ProPLError(f"strategy {chosen.name}", fact, f"Predictor(uncertainty_of='{chosen.uncertainty_of}')")
    if chosen.looks and predictor.known:
        settings["scores"] = predictor.known.sha256
    files = find_inputs(pictures, output, cines=True)
    known = [(path, LABELLED + name) for path, name in (find_inputs(labelled, output, cines=True) if labelled else [])]
    output.parent.mkdir(parents=True, exist_ok=True)
    about = {"pictures": [str(path) for path in pictures], "labelled": [str(path) for path in labelled], "first": first}
    record = RunRecord(output.with_suffix(".run.json"), "rank", {**about, "seed": seed, **settings})
    journal = Journal(output.with_suffix(".jsonl"), settings, overwrite, output)
    record.write("running")
    look = Look(predictor, task, chosen, journal, record, progress)
    try:
        look.at([*known, *files], [Path(one) for one in (*pictures, *labelled)])
        found, seen, left_out = _known(look)
        order = chosen.order(_found(found, seen, seed), first or len(found)) if found else ((), ())
        write_atomically(output, _table(found, *order))
    except BaseException as error:  # Ctrl-C, too, leaves a run.json that says so
        record.fail(output, error)
        raise
    names = [name for name in look.done if not name.startswith(LABELLED)]
    doubts = summary({entry["name"]: entry["doubts"] for entry in journal.read(names)})
    for line in lines(doubts):
        logger.warning("%s", line)
    status, code = conclude(len(names), len(look.refused))
    skipped = len(look.done) - look.looked
    outcome = Outcome(len(order[0]), look.looked, skipped, len(look.refused), left_out, code)
    counts = {"ranked": outcome.ranked, "files": outcome.files, "skipped": skipped, "refused": outcome.refused}
    counts |= {"labelled": len(look.done) - len(names), "left_out": left_out, "passed_over": look.passed_over}
    record.write(status, [output, journal.path], counts | (doubts if "scores" in settings else {}))
    return outcome


def _known(look: Look) -> tuple[list[_Picture], list[_Picture], int]:
    """The pictures to rank, those with labels, and the number of files that are both, and are left out."""
    entries = list(look.journal.read(look.done))
    labelled = {entry["sha256"] for entry in entries if entry["name"].startswith(LABELLED)}
    found: list[_Picture] = []
    seen: list[_Picture] = []
    left_out = 0
    for entry in entries:
        path, sha256, count = look.done[entry["name"]], entry["sha256"], entry["frames"]
        pictures = [
            _Picture(path, number if count > 1 else None, sha256, row)
            for number, row in enumerate(entry["rows"], start=1)
        ]
        if entry["name"].startswith(LABELLED):
            seen += pictures
        elif sha256 in labelled:
            left_out += 1
        else:
            found += pictures
    return found, seen, left_out


def _found(found: Sequence[_Picture], seen: Sequence[_Picture], seed: int) -> Found:
    uncertainty = np.array([one.row.get("uncertainty", 0.0) for one in found])
    features = np.stack([features_of(one.row) for one in found]).astype(np.float64)
    labelled = [features_of(one.row) for one in seen]
    # By their bytes, so that more pictures do not change the order of those before.
    draws = np.array([unit_interval(SALT, str(seed), one.sha256, str(one.frame)) for one in found])
    return Found(
        uncertainty,
        features,
        np.array(labelled, np.float64).reshape(len(labelled), features.shape[1]),
        draws,
    )


def _table(found: Sequence[_Picture], places: Any, scores: Any) -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for rank, (place, score) in enumerate(zip(places, scores, strict=True), start=1):
        one = found[place]
        scored = one.row.get("scores", {}).items()
        said = {key: round(value, 4) if isinstance(value, float) else value for key, value in scored}
        writer.writerow({"rank": rank, "score": f"{score:.6g}", "file": one.path, "frame": one.frame, **said})
    return stream.getvalue().encode("utf-8", "backslashreplace")
