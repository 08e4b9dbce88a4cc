"""Figures about the scores: by hand on made features, and the section that they become."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from factories import small_predictor
from known_tools import known_for
from PIL import Image

from propl_monai.data.datalist import Datalist
from propl_monai.datasets.sources.registry import read_source
from propl_monai.errors import ProPLError
from propl_monai.evaluation.card.recognition import auroc, foreign_files, score_known
from propl_monai.evaluation.card.render import known_to_markdown


def test_area_by_hand_and_its_interval() -> None:
    higher, lower = np.array([3.0, 1.0]), np.array([2.0, 0.0])
    assert auroc(higher, lower, "ab", "cd") == {"auroc": 0.75, "auroc_low": None, "auroc_high": None}
    random = np.random.default_rng(0)
    scores = random.normal(1, 1, 60), random.normal(0, 1, 60)
    found, few = (auroc(*scores, groups, range(60, 120)) for groups in (range(60), np.repeat(range(12), 5).tolist()))
    assert found["auroc"] == few["auroc"] == pytest.approx(0.76, abs=0.1)
    widths = [float(row["auroc_high"] or 0) - float(row["auroc_low"] or 0) for row in (found, few)]
    assert 0.1 < widths[0] < 0.3 and 0.1 < widths[1] < 0.4 and widths[0] != widths[1]


def test_pictures_are_asked_for_other_organs_and_never_for_targets_of_their_own(phantoms: Path, tmp_path: Path) -> None:
    predictor = small_predictor()
    predictor.known = known_for(predictor, foreign=True, absent=("heart",))
    listed = read_source("folder", phantoms)
    test = Datalist(listed.root, tuple(case for case in listed.cases if case.split == "test"), listed.name)
    for kind in ("photo", "scan"):
        (tmp_path / "foreign" / kind / "deep").mkdir(parents=True)
        Image.fromarray(np.full((30, 30), 90, np.uint8)).save(tmp_path / "foreign" / kind / "deep" / "1.png")
    files = foreign_files(tmp_path / "foreign")
    steps: list[None] = []
    found = score_known(predictor, test, test, files, lambda: steps.append(None))
    assert found is not None
    rows = {row["task"]: row for row in found["presence"]}
    hearts = {case.image_sha256 for case in test.cases if case.task == "left atrium"}
    others = {case.image_sha256 for case in test.cases} - {
        case.image_sha256 for case in test.cases if case.task in ("left atrium", "left ventricle", "myocardium")
    }
    atrium, ventricle = rows["left atrium"], rows["left ventricle"]
    assert (atrium["present"], atrium["absent"]) == (len(hearts), len(others))
    assert (atrium["detected"], atrium["false_alarms"], atrium["external_false_alarms"]) == (1, 1, 1)
    assert (ventricle["detected"], ventricle["false_alarms"]) == (1, 1)
    assert (rows["fetal head"]["detected"], rows["fetal head"]["false_alarms"]) == (0, 0)
    assert {row["warned"] for row in found["usual"]} == {1} and [row["n"] for row in found["foreign"]] == [1, 1]
    pictures = len({case.image_sha256 for case in test.cases})
    assert len(steps) == 2 * pictures + 2
    section = known_to_markdown(found)
    assert section.startswith("### Absent targets and foreign pictures\n") and "| photo | 1 |" in section
    assert "| heart, left out of the scores | 8 |" in section and "nan" not in section


def test_without_scores_there_is_no_section(phantoms: Path) -> None:
    assert score_known(small_predictor(), read_source("folder", phantoms), None, {}, lambda: None) is None
    assert known_to_markdown(None) == ""


def test_a_folder_without_kinds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match="has no sub-folder; give one per kind of picture"):
        foreign_files(tmp_path)
    with pytest.raises(ProPLError, match="is not a folder"):
        foreign_files(tmp_path / "none")
    (tmp_path / "photo").mkdir()
    with pytest.raises(ProPLError, match="holds no picture"):
        foreign_files(tmp_path)
