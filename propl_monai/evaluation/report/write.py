"""Write the page of a run: find its files, collect what it shows, render it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from propl_monai.common.files import write_atomically
from propl_monai.datasets.cohort import DATALIST
from propl_monai.errors import ProPLError
from propl_monai.evaluation.report.collect import collect
from propl_monai.evaluation.report.page import render
from propl_monai.evaluation.report.run_files import find_input, read_run_files
from propl_monai.model.weights import WEIGHTS

CALIBRATION = "calibration.json"


def write_report(
    run: Path | str,
    output: Path | str,
    evaluation: Path | None = None,
    data: Path | None = None,
    weights: Path | None = None,
    datalist: Path | None = None,
    pictures: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Write the page, and with data `calibration.json` beside it.

    The same run gives the same page, whenever it is made.

    Args:
        run: folder of a training.
        output: the page, a file that ends in .html.
        evaluation: folder of its evaluation; `test` inside `run` when None.
        data: folder of the pictures; without it the page has neither calibration nor pictures.
        weights: that were evaluated; looked for in `models` inside `run`, then where the evaluation read them, when None.
        datalist: that was evaluated on; looked for in the same way, in the two folders.
        pictures: whether pictures of cases go into the page; they are the only part that shows a patient.
        progress: called with (pictures done, in all).

    Returns:
        The files written.
    """
    output = Path(output)
    if output.suffix.lower() not in (".html", ".htm") or output.is_dir():
        raise ProPLError(output, "is no name of a page", "give a file that ends in .html")
    files = read_run_files(run, evaluation)
    if data is None:
        write_atomically(output, render(files).encode())
        return [output]
    if not data.is_dir():
        raise ProPLError(data, "is not a folder", "give the folder of the pictures with --data, or leave it out")
    found = find_input(files, ".safetensors", [files.training / "models" / WEIGHTS], weights, "--weights")
    lists = [files.evaluation / DATALIST, files.training / DATALIST]
    listed = find_input(files, ".json", lists, datalist, "--datalist")
    collected = collect(files, data, found, listed, pictures, progress)
    calibration = output.with_name(CALIBRATION)
    write_atomically(output, render(files, collected).encode())
    write_atomically(calibration, (json.dumps(collected.calibration.to_json(), indent=2) + "\n").encode())
    return [output, calibration]
