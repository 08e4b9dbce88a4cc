"""Pictures of a datalist as the scores see them: each once, with its kind and its pooled features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from propl_monai.data.cases import Case
from propl_monai.images import Picture, read_image
from propl_monai.inference.known import AND, own_kinds
from propl_monai.inference.predictor import Predictor
from propl_monai.tasks import find

TRANSPOSED = ", transposed"


@dataclass(frozen=True, eq=False)
class Pictures:
    """N pictures.

    Attributes:
        features: (N, C), pooled, see `encoder.Features.pooled`.
        kinds: organs and source of each.
        groups: patient, examination or video of each, unique over all sources.
        tasks: those that each picture is a case of.
    """

    features: NDArray[np.float32]
    kinds: Sequence[tuple[str, str]]
    groups: Sequence[tuple[str, str]]
    tasks: Sequence[frozenset[str]]

    @property
    def organs(self) -> NDArray[np.str_]:
        """The organs of each, (N,)."""
        return np.array([organs for organs, _ in self.kinds])

    def show(self, task: str) -> NDArray[np.bool_]:
        """Which of them show the organ of a task, (N,)."""
        return own_kinds(self.kinds, task)

    def where(self, chosen: NDArray[np.bool_]) -> Pictures:
        """Those at which `chosen`, (N,), is true."""
        places = [int(place) for place in np.flatnonzero(chosen)]
        kinds, groups = ([values[place] for place in places] for values in (self.kinds, self.groups))
        return Pictures(self.features[chosen], kinds, groups, [self.tasks[place] for place in places])


def read_pictures(
    predictor: Predictor, cases: Iterable[Case], root: Path, step: Callable[[], None], transposed: bool = False
) -> Pictures:
    """Encode the pictures of cases; one that is a case of several tasks is encoded once.

    Args:
        predictor: whose network encodes them.
        cases: of one split.
        root: of the datalist.
        step: called after each picture.
        transposed: exchange rows and columns; the source of such pictures is called so.
    """
    by_picture: dict[str, list[Case]] = {}
    for case in cases:
        by_picture.setdefault(case.image_sha256, []).append(case)
    found = list(by_picture.values())
    features = read_features(predictor, [root / some[0].image for some in found], step, transposed)
    name = TRANSPOSED if transposed else ""
    kinds = [(AND.join(sorted({find(case.task).organ for case in some})), some[0].source + name) for some in found]
    groups = [(some[0].source, some[0].group) for some in found]
    return Pictures(features, kinds, groups, [frozenset(case.task for case in some) for some in found])


def both(pictures: Pictures, others: Pictures) -> Pictures:
    """Those of the first and of the second."""
    features = np.concatenate([pictures.features, others.features])
    kinds, groups = [*pictures.kinds, *others.kinds], [*pictures.groups, *others.groups]
    return Pictures(features, kinds, groups, [*pictures.tasks, *others.tasks])


def count_pictures(cases: Iterable[Case]) -> int:
    """The number of pictures that cases have between them."""
    return len({case.image_sha256 for case in cases})


def read_features(
    predictor: Predictor, files: Sequence[Path], step: Callable[[], None], transposed: bool = False
) -> NDArray[np.float32]:
    """Pooled features of picture files, (N, C)."""

    def read(file: Path) -> Picture:
        picture = read_image(file)
        return Picture(np.ascontiguousarray(picture.pixels.swapaxes(0, 1))) if transposed else picture

    rows = []
    for start in range(0, len(files), predictor.batch):
        some = files[start : start + predictor.batch]
        rows.append(predictor.pooled([predictor.prepare(read(file)) for file in some]))
        for _ in some:
            step()
    return np.concatenate(rows)
