"""`propl known`: fits the scores of `inference.known` to weights, on train and validation pictures, and writes the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import mannwhitneyu

import propl_monai
from propl_monai.common.packaged_bundle import KNOWN
from propl_monai.datasets.cohort import datalist_of_training
from propl_monai.errors import ProPLError
from propl_monai.inference.known import Known, Values, margins, own_kinds, squared_distances
from propl_monai.inference.known_pictures import Pictures, both, count_pictures, read_pictures
from propl_monai.inference.predictor import Predictor
from propl_monai.model.bundle_folder import describe_bundle, find_weights, open_network
from propl_monai.model.weights import read_header
from propl_monai.tasks import find, find_all

RATE = 0.01  # share of validation pictures that each warning may be false for
DETECTED = 0.95  # share of the validation pictures, asked for another organ, that the threshold of presence has to find
WIDTH = 64  # whitened features that are kept
SHRINKAGE = 0.1  # of the covariance towards a multiple of the identity
MORE_DATA = "fit it with the whole data of the training"
Progress = Callable[[int, int], None]


def fit_known(
    weights: Path | str,
    data: Path | str,
    datalist_file: Path | str | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Fit the scores to weights, and write `known.safetensors` beside them. No test picture is opened.

    Args:
        weights: a weights file, or a folder that holds one.
        data: folder of the images of the training.
        datalist_file: of the training; None reads the folder as it is. It must be the one in the weights' header.
        progress: called with (pictures done, in all).

    Returns:
        The header of the file, and its `path`.
    """
    path = find_weights(Path(weights))
    described = describe_bundle(path)
    network, sha256 = open_network(described), described.weights_sha256
    settings = described.spatial_size, described.normalisation
    predictor = Predictor(network, *settings, crop_sector=described.crop_sector)  # without scores of earlier weights
    header = read_header(path)
    datalist = datalist_of_training(data, datalist_file, header.get("datalist_sha256"))
    cases = [case for case in datalist.cases if case.task in predictor.tasks]
    parts = [[case for case in cases if case.split == split] for split in ("train", "validation")]
    for split, some in zip(("train", "validation"), parts, strict=True):
        if not some:
            raise ProPLError(data, f"holds no {split} case of these tasks", MORE_DATA)
    turned = find_all(header.get("training", {}).get("options", {}).get("transposed_tasks") or [])
    names = {task.name for task in turned}
    again = [[case for case in some if case.task in names] for some in parts]
    counter, total = count(1), sum(map(count_pictures, [*parts, *again]))

    def step() -> None:
        progress(next(counter), total)

    train, validation = (read_pictures(predictor, some, datalist.root, step) for some in parts)
    if all(again):  # the training showed them so every other time
        more = [read_pictures(predictor, some, datalist.root, step, transposed=True) for some in again]
        train, validation = both(train, more[0]), both(validation, more[1])
    known = fit(train, validation, predictor.tasks)
    about = {**known.about, "weights_sha256": sha256, "datalist_sha256": datalist.sha256}
    replace(known, about=about).write(path.with_name(KNOWN))
    return {**about, "path": path.with_name(KNOWN)}


def fit(train: Pictures, validation: Pictures, tasks: Sequence[str]) -> Known:
    """Fit everything but the link to weights: the map on train pictures, distances and thresholds on validation.

    Args:
        train, validation: both need pictures of the organ of every task, and of others.
        tasks: names.
    """
    for name, part in (("train", train), ("validation", validation)):
        for task in tasks:
            if not part.show(task).any():
                raise ProPLError("known", f"no {name} picture shows the organ of {task}", MORE_DATA)
            if part.show(task).all():
                fact = f"all {name} pictures show the organ of {task}"
                raise ProPLError("known", fact, "presence takes pictures of other organs")
    kinds, mapping = whitened_kinds(train)
    centre, whitening, means = mapping
    distances = squared_distances((validation.features - centre) @ whitening, means)
    nearest = np.sort(distances.min(1))
    shown = {task: validation.show(task) for task in tasks}
    closeness = {task: margins(distances, own_kinds(kinds, task)) for task in tasks}
    one_per_organ = {find(task).organ: task for task in tasks}.values()  # tasks of one organ say the same
    asked = np.concatenate([closeness[task] for task in one_per_organ])
    there = np.concatenate([shown[task] for task in one_per_organ])
    slope, offset = fit_logistic(asked, there)
    # The lower of the two: there is no need for more false alarms once nearly all is found.
    limit = min(np.quantile(asked[there], RATE), np.quantile(asked[~there], DETECTED))
    measured = {
        task: {
            "false_alarms": float((closeness[task][shown[task]] < limit).mean()),
            "detected": float((closeness[task][~shown[task]] < limit).mean()),
        }
        for task in tasks
    }
    about: dict[str, Any] = {
        "version": propl_monai.__version__,
        "kinds": [list(kind) for kind in kinds],
        "tasks": list(tasks),
        "rate": RATE,
        "train": len(train.kinds),
        "validation": len(validation.kinds),
        "presence": measured,
        "left_out": left_out(train, validation),
    }
    return Known(about, centre, whitening, means, nearest, (slope, offset, slope * float(limit) + offset))


def whitened_kinds(pictures: Pictures) -> tuple[list[tuple[str, str]], tuple[Values, Values, Values]]:
    """The kinds of pictures; and centre (C,), whitening (C, D) and means (K, D), so that the spread within kinds is 1.

    Every kind weighs the same. The features are scaled to unit variance, the D directions of largest variance are kept, and
    the covariance within kinds is shrunk, as there are few pictures to each number of it.
    """
    kinds = sorted(set(pictures.kinds))
    place = np.array([kinds.index(kind) for kind in pictures.kinds])
    weight = 1 / np.bincount(place)[place]
    weight /= weight.sum()
    features = np.asarray(pictures.features, np.float64)
    centre = weight @ features
    scale = np.sqrt(weight @ (features - centre) ** 2) + 1e-6
    scaled = (features - centre) / scale
    _, directions = np.linalg.eigh((scaled * weight[:, None]).T @ scaled)
    reduced = scaled @ directions[:, -WIDTH:]
    means = np.stack([reduced[place == kind].mean(0) for kind in range(len(kinds))])
    inside = reduced - means[place]
    covariance = (inside * weight[:, None]).T @ inside
    even = np.trace(covariance) / len(covariance) + 1e-12  # kinds of one picture have no spread
    values, axes = np.linalg.eigh((1 - SHRINKAGE) * covariance + SHRINKAGE * even * np.eye(len(covariance)))
    whitening = directions[:, -WIDTH:] @ (axes / np.sqrt(values))
    return kinds, (centre, whitening / scale[:, None], means @ (axes / np.sqrt(values)))


def fit_logistic(values: Values, there: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and offset of the log-odds that `there` holds, from values; both answers weigh the same.

    The targets are Platt's, a little off 0 and 1 (Probabilistic outputs for support vector machines, 1999): without them
    values that separate the two would make the slope infinite.
    """
    positives, negatives = int(there.sum()), int((~there).sum())
    target = np.where(there, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    weight = np.where(there, 0.5 / positives, 0.5 / negatives)

    def loss(line: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        odds = line[0] * values + line[1]
        error = weight * (expit(odds) - target)
        return float(weight @ (np.logaddexp(0, odds) - target * odds)), np.array([error @ values, error.sum()])

    slope, offset = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS").x
    return float(slope), float(offset)


def left_out(train: Pictures, validation: Pictures) -> dict[str, dict[str, float | int]]:
    """How well an organ would be found foreign, had the scores never seen it: per organ, on its validation pictures.

    Everything is fitted again without its pictures. The encoder was trained on them all the same.
    """
    found: dict[str, dict[str, float | int]] = {}
    for organ in sorted(set(train.organs) & set(validation.organs)):
        rest = train.where(train.organs != organ)
        if len(set(rest.organs)) < 2:
            continue
        _, (centre, whitening, means) = whitened_kinds(rest)
        nearest = squared_distances((validation.features - centre) @ whitening, means).min(1)
        foreign, usual = nearest[validation.organs == organ], nearest[validation.organs != organ]
        area = mannwhitneyu(foreign, usual).statistic / (len(foreign) * len(usual))
        warned = float((foreign > np.quantile(usual, 1 - RATE)).mean())
        found[organ] = {"n": len(foreign), "auroc": float(area), "warned": warned}
    return found
