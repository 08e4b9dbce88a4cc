"""Scores by hand, and the file that they come from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import small_predictor, speckle, write_small_bundle
from known_tools import known_for, made_pictures
from safetensors.numpy import load_file, save_file

from propl_monai.common.files import file_sha256
from propl_monai.common.packaged_bundle import KNOWN
from propl_monai.deploy.fit_known import fit
from propl_monai.errors import ProPLError
from propl_monai.inference.known import Known, margins, own_kinds, read_known, squared_distances, tail
from propl_monai.inference.predictor import Predictor
from propl_monai.tasks import NAMES


def by_hand() -> Known:
    """Two kinds on a line, at 0 and at 10; the third feature is not looked at."""
    about = {"weights_sha256": "a" * 64, "kinds": [["breast", "A"], ["heart", "B"]], "rate": 0.25}
    about["tasks"] = ["breast cancer", "left atrium", "left ventricle"]
    whitening, means = np.array([[2.0], [0.0]]), np.array([[0.0], [10.0]])
    return Known(about, np.array([1.0, 5.0]), whitening, means, np.array([1.0, 4.0, 9.0]), (4.0, 1.0, -2.0))


def test_a_picture_by_hand() -> None:
    known = by_hand()
    breast, atrium, ventricle = known.scores(np.array([2.0, 77.0]), known.tasks)  # at 2: 4 from breast, 64 from heart
    assert breast.known == atrium.known == pytest.approx(3 / 4) and not breast.foreign  # 4 and 9 are as far, and itself
    odds = 4 * (64 - 4) / (64 + 4) + 1
    assert breast.presence == pytest.approx(1 / (1 + np.exp(-odds))) and not breast.absent
    assert atrium.presence == ventricle.presence == pytest.approx(1 / (1 + np.exp(odds - 2)))
    assert atrium.absent and ventricle.absent
    assert not known.scores(np.array([3.4, 0.0]), ["left ventricle"])[0].absent  # a little nearer to breast, no more
    far = known.scores(np.array([-9.0, 0.0]), ["breast cancer"])[0]
    assert far.foreign and 0 < far.known < 0.25


def test_tail_counts_and_beyond_the_last_it_still_ranks() -> None:
    values = np.array([1.0, 2.0, 3.0])
    assert [tail(values, value) for value in (0.0, 1.0, 2.5, 3.0)] == [1.0, 1.0, 0.5, 0.5]
    assert tail(values, 4.0) == pytest.approx(0.25 * 3 / 4) and tail(values, 30.0) == pytest.approx(0.025)


def test_margins_and_distances_by_hand() -> None:
    distances = squared_distances(np.array([[3.0, 0.0]]), np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 1.0]]))
    assert distances.tolist() == [[9.0, 16.0, 1.0]]
    own = own_kinds([["heart", "A"], ["heart", "B"], ["breast", "C"]], "myocardium")
    assert own.tolist() == [True, True, False]
    assert margins(distances, own).tolist() == [(1 - 9) / (1 + 9)]


def test_the_file_gives_the_same_scores(tmp_path: Path) -> None:
    known = fit(made_pictures(20, 0), made_pictures(20, 1), NAMES)
    known = replace(known, about={**known.about, "weights_sha256": "b" * 64})
    known.write(tmp_path / KNOWN)
    read = read_known(tmp_path / "model.safetensors", "b" * 64)
    assert read is not None and read.sha256 == file_sha256(tmp_path / KNOWN)
    for row in made_pictures(2, 2).features:
        for one, other in zip(known.scores(row, NAMES), read.scores(row, NAMES), strict=True):
            assert one.presence == pytest.approx(other.presence, abs=1e-4)
            assert one.known == pytest.approx(other.known, abs=0.02) and one.absent == other.absent


def test_without_the_file_there_are_no_scores(tmp_path: Path) -> None:
    assert read_known(tmp_path / "model.safetensors", "b" * 64) is None
    assert small_predictor()(speckle(20, 30), "LA").scores is None


def test_scores_of_other_weights_are_refused_by_name(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path)
    by_hand().write(bundle / "models" / KNOWN)
    with pytest.raises(ProPLError, match=r"known\.safetensors: was fitted to weights with sha256 a+, not [0-9a-f]{64}"):
        Predictor.from_bundle(bundle)


def test_scores_that_lack_a_task_or_are_for_other_features_are_refused() -> None:
    known = known_for(small_predictor())
    with pytest.raises(ProPLError, match="knows nothing of fetal head, left atrium"):
        small_predictor(known=replace(known, about={**known.about, "tasks": ["breast cancer"]}))
    with pytest.raises(ProPLError, match="is for 3 features, the network has"):
        small_predictor(known=replace(known, centre=known.centre[:3]))(speckle(32, 32), "LA")


def changed(path: Path, about: dict[str, Any] | None = None, **arrays: np.ndarray) -> Path:
    header = {**by_hand().about, "format": "propl-known/1", **(about or {})}
    by_hand().write(path)
    save_file({**load_file(path), **arrays}, path, {"propl": json.dumps(header)})
    return path


@pytest.mark.parametrize(
    ("about", "arrays"),
    [
        ({"format": "propl-known/2"}, {}),
        ({"rate": 0}, {}),
        ({"rate": "often"}, {}),
        ({"kinds": [["breast", "A"], ["breast, heart", "B"]]}, {}),
        ({"kinds": "AB"}, {}),
        ({"tasks": ["breast cancer", "fetal head", "left atrium"]}, {}),
        ({"tasks": ["kidney"] * 3}, {}),
        ({}, {"centre": np.zeros(5, np.float32)}),
        ({}, {"means": np.full((2, 1), np.nan, np.float32)}),
        ({}, {"distances": np.zeros(0, np.float32)}),
        ({}, {"whitening": np.zeros(4, np.float32)}),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, about: dict[str, Any], arrays: Any) -> None:
    changed(tmp_path / KNOWN, about, **arrays)
    with pytest.raises(ProPLError, match=r"known\.safetensors: is no sound file of scores .*; fit it again"):
        read_known(tmp_path / "model.safetensors", "a" * 64)


@pytest.mark.parametrize("length", [0, 4, 60, 400])
def test_a_file_cut_short_is_refused(tmp_path: Path, length: int) -> None:
    path = changed(tmp_path / KNOWN)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ProPLError, match="is no sound file of scores"):
        read_known(tmp_path / "model.safetensors", "a" * 64)
