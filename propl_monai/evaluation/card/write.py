"""The model card's figures, from the weights to card.json and to the Markdown between the markers of a card."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import pandas as pd

from propl_monai.common.files import write_atomically
from propl_monai.common.marked_text import FIGURES, replace_marked
from propl_monai.common.run_record import commit, versions
from propl_monai.data.cases import SPLITS, Case
from propl_monai.data.datalist import Datalist, as_items
from propl_monai.datasets.cohort import datalist_of_training
from propl_monai.datasets.sources.registry import read_source
from propl_monai.errors import ProPLError
from propl_monai.evaluation.card.measures import failures, ventricle_areas
from propl_monai.evaluation.card.orientation import ORGAN, both_positions
from propl_monai.evaluation.card.recognition import foreign_files, score_known
from propl_monai.evaluation.card.render import to_markdown
from propl_monai.evaluation.card.score import score
from propl_monai.evaluation.report.collect import temperature_of
from propl_monai.evaluation.summary import summarise
from propl_monai.images import read_image
from propl_monai.inference.known_pictures import count_pictures
from propl_monai.inference.predictor import Predictor
from propl_monai.model.bundle_folder import find_weights
from propl_monai.model.weights import read_header
from propl_monai.tasks import find

SCHEMA = 1
Progress = Callable[[int, int], None]


def write_card(
    weights: Path | str,
    data: Path | str,
    output: Path | str,
    datalist_file: Path | str | None = None,
    external: Path | str | None = None,
    foreign: Path | str | None = None,
    card: Path | str | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Measure everything that the card says, and write `card.json`, `card.md`, `test.csv` and `external.csv`.

    The temperature is fitted on the validation split before a test picture is opened.

    Args:
        weights: a weights file, or a folder that holds one.
        data: folder of the images of the training.
        output: folder to write to.
        datalist_file: of the training; None to read the folder as it is. It must be the one in the weights' header.
        external: a folder in the plain layout, with pictures from elsewhere; refused if one of them is in `data` too.
        foreign: a folder of other pictures, a sub-folder per kind, that the scores should call foreign.
        card: a model card whose marked part is replaced by card.md.
        progress: called with (pictures done, in all).

    Returns:
        The content of card.json.
    """
    path, output = find_weights(Path(weights)), Path(output)
    text = Path(card).read_text(encoding="utf-8") if card else ""
    if card:
        replace_marked(text, FIGURES, "", card)  # before the work of minutes
    predictor, header = Predictor.from_bundle(path), read_header(path)
    datalist = datalist_of_training(data, datalist_file, header.get("datalist_sha256"))
    labelled = [case for case in datalist.cases if case.mask and case.task in predictor.tasks]
    fitting, measured = (_of(labelled, name, datalist.root) for name in ("validation", "test"))
    elsewhere = _external(Path(external), datalist, predictor.tasks) if external else None
    outside = as_items(elsewhere.cases, elsewhere.root) if elsewhere else []
    strange = foreign_files(Path(foreign)) if foreign else {}
    for file in chain.from_iterable(strange.values()):
        read_image(file)  # refused now, not after the work of minutes
    own = Datalist(datalist.root, tuple(case for case in labelled if case.split == "test"), datalist.name)
    total = len(fitting) + len(measured) + len(outside)
    total += sum(find(item["task"]).organ == ORGAN for item in measured)
    if predictor.known:
        total += sum(count_pictures(one.cases) for one in (own, elsewhere) if one) + sum(map(len, strange.values()))
    counter = count(1)

    def step() -> None:
        progress(next(counter), total)

    temperature = temperature_of(predictor, fitting, step)
    test = score(predictor, measured, "test split", temperature, len(fitting), step)
    other = score(predictor, outside, "external data", None, 0, step) if outside else None
    positions = both_positions(predictor, measured, step)
    scores = score_known(predictor, own, elsewhere, strange, step)
    content = {
        "schema": SCHEMA,
        "weights": _facts(predictor, header),
        "data": {"name": datalist.name, "datalist_sha256": datalist.sha256, "tasks": _counts(labelled)},
        "test": {"table": _table(test.cases)},
        "external": other and {"sources": _sources(other.cases), "table": _table(other.cases)},
        "calibration": test.calibration.to_json(),
        "head_circumference": test.circumference,
        "left_ventricle_area": ventricle_areas(test.cases),
        "failures": failures(test.cases),
        "positions": positions,
        "known": scores,
        "versions": versions(),
        "commit": commit(),
    }
    markdown = to_markdown(content)
    files = {"card.json": json.dumps(content, indent=2) + "\n", "card.md": markdown}
    files["test.csv"] = test.cases.to_csv(index=False)
    if other:
        files["external.csv"] = other.cases.to_csv(index=False)
    for name, made in files.items():
        write_atomically(output / name, made.encode())
    if card:
        write_atomically(Path(card), replace_marked(text, FIGURES, markdown, card).encode())
    return content


def _of(cases: Sequence[Case], split: str, root: Path) -> list[dict[str, Any]]:
    items = as_items([case for case in cases if case.split == split], root)
    if not items:
        raise ProPLError(root, f"holds no {split} case with a mask", "give the data of the training")
    return items


def _external(folder: Path, datalist: Datalist, known: Sequence[str]) -> Datalist:
    """The pictures with a mask of a folder that has none in common with the data of the training."""
    found = read_source("folder", folder)
    own = {case.image_sha256 for case in datalist.cases}
    if both := [case.case_id for case in found.cases if case.image_sha256 in own]:
        fact = f"shares {len(both)} pictures with the data of the training, first {both[0]}"
        raise ProPLError(folder, fact, "take them out: they are not external")
    cases = tuple(case for case in found.cases if case.mask and case.task in known)
    if not cases:
        raise ProPLError(folder, "holds no picture with a mask of these tasks", "check its layout, or leave it out")
    return Datalist(found.root, cases, found.name)


def _facts(predictor: Predictor, header: dict[str, Any]) -> dict[str, Any]:
    shape = header["architecture"]
    facts = {"sha256": predictor.weights_sha256, "encoder": shape["encoder"], "decoder": predictor.decoder}
    facts |= {"rows × columns": " × ".join(map(str, predictor.spatial_size)), "normalisation": predictor.normalisation}
    facts |= {key: header.get(key) for key in ("preset", "labelled_fraction", "seed", "epoch", "validation_mdice")}
    facts |= {"run.json of the training, sha256": header.get("training", {}).get("run_sha256")}
    return {**facts, "licence": "weights_license.txt", "halved": header.get("halved")}


def _counts(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """By task and source: cases with a mask in each split, and groups in all."""
    frame = pd.DataFrame([{key: getattr(case, key) for key in ("task", "source", "split", "group")} for case in cases])
    return [
        {
            "task": task,
            "source": source,
            **{name: int((part["split"] == name).sum()) for name in SPLITS},
            "groups": int(part["group"].nunique()),
        }
        for (task, source), part in frame.groupby(["task", "source"])
    ]


def _table(cases: pd.DataFrame) -> list[dict[str, Any]]:
    return json.loads(summarise(cases).to_json(orient="records"))


def _sources(cases: pd.DataFrame) -> str:
    pairs = sorted({f"{row.source} ({row.task})" for row in cases.itertuples()})
    return ", ".join(pairs)
