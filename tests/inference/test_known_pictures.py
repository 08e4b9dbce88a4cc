"""Pictures as the scores see them: each once, with its organ, its source and all of its tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from propl_monai.datasets.sources.registry import read_source
from propl_monai.images import read_image
from propl_monai.inference.known_pictures import count_pictures, read_pictures
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
