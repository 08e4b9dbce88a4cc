"""How well the scores say "target absent" and "foreign picture": on the test split, and on pictures from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from propl_monai.data.datalist import Datalist
from propl_monai.errors import ProPLError
from propl_monai.evaluation.summary import MIN_GROUPS
from propl_monai.inference.inputs import find_inputs
from propl_monai.inference.known import Known, Values
from propl_monai.inference.known_pictures import Pictures, read_features, read_pictures
from propl_monai.inference.predictor import Predictor

RESAMPLES = 1000
Statistic = Callable[[NDArray[np.intp]], float]


def foreign_files(folder: Path) -> dict[str, list[Path]]:
    """Picture files of a folder whose sub-folders are kinds of foreign pictures, however deep, by kind."""
    if not folder.is_dir():
        raise ProPLError(folder, "is not a folder", "give one whose sub-folders hold foreign pictures, a kind each")
    kinds = sorted(path for path in folder.iterdir() if path.is_dir())
    if not kinds:
        raise ProPLError(folder, "has no sub-folder", "give one per kind of picture")
    return {kind.name: [file for file, _ in find_inputs([kind], folder / "none", cines=False)] for kind in kinds}


def score_known(
    predictor: Predictor,
    test: Datalist,
    external: Datalist | None,
    foreign: dict[str, list[Path]],
    step: Callable[[], None],
) -> dict[str, Any] | None:
    """Measure the scores of a predictor; None where it has none.

    Args:
        predictor: with its scores.
        test: the cases of the test split; each picture is also asked for the targets of all other organs.
        external: pictures of the same organs from elsewhere, none for training or selection.
        foreign: files of other pictures, by kind.
        step: called after each picture.
    """
    known = predictor.known
    if known is None:
        return None
    pictures = read_pictures(predictor, test.cases, Path(test.root), step)
    elsewhere = read_pictures(predictor, external.cases, Path(external.root), step) if external else None
    features = {kind: read_features(predictor, files, step) for kind, files in foreign.items()}
    return {
        "about": {key: value for key, value in known.about.items() if key != "presence"},
        "sha256": known.sha256,
        "presence": [
            _presence(known, task, pictures, elsewhere)
            for task in predictor.tasks
            if any(task in tasks for tasks in pictures.tasks) and not pictures.show(task).all()
        ],
        "usual": _usual(known, pictures) + (_usual(known, elsewhere) if elsewhere else []),
        "foreign": [_foreign(known, kind, some, pictures) for kind, some in features.items()],
    }


def _presence(known: Known, task: str, pictures: Pictures, elsewhere: Pictures | None) -> dict[str, Any]:
    """Of one task: pictures that are its cases, and pictures of other organs."""
    threshold = known.logistic[2]
    there = np.array([task in tasks for tasks in pictures.tasks])
    counted = there | ~pictures.show(task)  # never asked of another target of its own organ
    some, there = pictures.where(counted), there[counted]
    odds = known.log_odds(known.to_kinds(some.features), task)
    row = {
        "task": task,
        "present": int(there.sum()),
        "groups": len({group for group, shown in zip(some.groups, there, strict=True) if shown}),
        "absent": int((~there).sum()),
        "false_alarms": float((odds[there] < threshold).mean()),
        "detected": float((odds[~there] < threshold).mean()),
        **auroc(odds[there], odds[~there], _in(some.groups, there), _in(some.groups, ~there)),
        "external": 0,
        "external_false_alarms": None,
    }
    if elsewhere and any(task in tasks for tasks in elsewhere.tasks):
        own = elsewhere.where(np.array([task in tasks for tasks in elsewhere.tasks]))
        odds = known.log_odds(known.to_kinds(own.features), task)
        row |= {"external": len(odds), "external_false_alarms": float((odds < threshold).mean())}
    return row


def _usual(known: Known, pictures: Pictures) -> list[dict[str, Any]]:
    """Of pictures that must not be called foreign, by organ and source: how many are."""
    called = known.knowns(known.to_kinds(pictures.features)) < known.rate
    rows = []
    for organ, source in sorted(set(pictures.kinds)):
        some = np.array([kind == (organ, source) for kind in pictures.kinds])
        warned = float(called[some].mean())
        groups = len(set(_in(pictures.groups, some)))
        rows.append({"organ": organ, "source": source, "n": int(some.sum()), "groups": groups, "warned": warned})
    return rows


def _foreign(known: Known, kind: str, features: NDArray[np.float32], pictures: Pictures) -> dict[str, Any]:
    """Of one kind of foreign pictures, against the test split: how many are called foreign."""
    strange, usual = (known.knowns(known.to_kinds(some)) for some in (features, pictures.features))
    alone = [("", str(number)) for number in range(len(strange))]
    area = auroc(-strange, -usual, alone, pictures.groups)
    return {"kind": kind, "n": len(strange), "warned": float((strange < known.rate).mean()), **area}


def auroc(higher: Values, lower: Values, groups: Sequence[Any], other_groups: Sequence[Any]) -> dict[str, float | None]:
    """Area under the ROC curve with its 95 % bootstrap interval over groups, None below `MIN_GROUPS` on either side.

    Args:
        higher, lower: scores of the pictures that should have high and low ones.
        groups, other_groups: of each of them; a group may have pictures on both sides, and is then drawn for both.

    Returns:
        auroc, auroc_low and auroc_high in [0, 1].
    """
    found: dict[str, float | None] = {"auroc": _area(higher, lower), "auroc_low": None, "auroc_high": None}
    if min(len(set(groups)), len(set(other_groups))) < MIN_GROUPS:
        return found
    names = sorted({*groups, *other_groups})
    place = {name: number for number, name in enumerate(names)}
    first, second = (np.array([place[group] for group in some]) for some in (groups, other_groups))
    random = np.random.default_rng(0)
    areas = []
    for _ in range(RESAMPLES):
        times = np.bincount(random.integers(len(names), size=len(names)), minlength=len(names))
        drawn = (np.repeat(scores, times[some]) for scores, some in ((higher, first), (lower, second)))
        areas.append(_area(*drawn))
    found["auroc_low"], found["auroc_high"] = (float(value) for value in np.nanquantile(areas, [0.025, 0.975]))
    return found


def _area(higher: Values, lower: Values) -> float:
    if not len(higher) or not len(lower):  # as a resample may draw it
        return float("nan")
    ordered = np.sort(lower)
    below = np.searchsorted(ordered, higher, "left") + np.searchsorted(ordered, higher, "right")  # ties count half
    return float(below.mean() / (2 * len(lower)))


def _in(groups: Sequence[tuple[str, str]], chosen: NDArray[np.bool_]) -> list[tuple[str, str]]:
    return [group for group, taken in zip(groups, chosen, strict=True) if taken]
