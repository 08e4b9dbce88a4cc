"""Pictures as the scores see them: each once, with its organ, its source and all of its tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from propl_monai.datasets.sources.registry import read_source
from propl_monai.images import Picture, read_image
from propl_monai.inference.known_pictures import both, count_pictures, read_pictures
from propl_monai.inference.predictor import Predictor

HEART = frozenset(("left atrium", "left ventricle", "myocardium"))


def test_a_picture_of_three_tasks_is_read_once(phantoms: Path, predictor: Predictor) -> None:
    cases = [case for case in read_source("folder", phantoms).cases if case.split == "validation"]
    steps: list[None] = []
    found = read_pictures(predictor, cases, phantoms, lambda: steps.append(None))
    assert len(found.features) == len(found.kinds) == len(steps) == count_pictures(cases) < len(cases)
    hearts = found.where(found.organs == "heart")
    assert set(hearts.tasks) == {HEART} and set(hearts.kinds) == {("heart", "PHANTOM")}
    first = next(case for case in cases if case.task == "left ventricle")
    own = predictor.pooled([predictor.prepare(read_image(phantoms / first.image))])[0]
    same = [group == (first.source, first.group) for group in hearts.groups]
    assert np.abs(hearts.features[same] - own).max(1).min() < 1e-5


def test_transposed_pictures_are_a_kind_of_their_own(phantoms: Path, predictor: Predictor) -> None:
    cases = [case for case in read_source("folder", phantoms).cases if case.task == "left ventricle"][:2]
    lying, standing = (
        read_pictures(predictor, cases, phantoms, lambda: None, transposed) for transposed in (False, True)
    )
    assert set(standing.kinds) == {("heart", "PHANTOM, transposed")} and standing.groups == lying.groups
    turned = Picture(np.ascontiguousarray(read_image(phantoms / cases[0].image).pixels.T))
    assert np.abs(standing.features[0] - predictor.pooled([predictor.prepare(turned)])[0]).max() < 1e-5
    assert np.abs(standing.features - lying.features).max() > 1e-3
    together = both(lying, standing)
    assert together.features.shape[0] == 4 and [*together.kinds] == [*lying.kinds, *standing.kinds]
    assert together.show("left atrium").all()
