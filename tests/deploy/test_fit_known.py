"""Scores are fitted to weights: what they promise on made features, and the command as a whole on phantoms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import ABOUT, small_network, speckle
from known_tools import made_pictures

from propl_monai.common.files import file_sha256
from propl_monai.common.packaged_bundle import KNOWN
from propl_monai.datasets.sources.registry import read_source
from propl_monai.deploy.fit_known import RATE, fit, fit_known, fit_logistic, whitened_kinds
from propl_monai.errors import ProPLError
from propl_monai.inference.predictor import Predictor
from propl_monai.model.weights import copy_aside, save_weights
from propl_monai.tasks import NAMES, find


def test_warnings_are_as_rare_as_promised_and_find_what_they_should() -> None:
    validation = made_pictures(200, 1)
    known = fit(made_pictures(100, 0), validation, NAMES)
    called = known.knowns(known.to_kinds(validation.features)) < known.rate
    assert RATE / 2 <= called.mean() <= RATE
    strange = np.random.default_rng(5).normal(size=(50, 12)) + np.full(12, 8.0)
    assert (known.knowns(known.to_kinds(strange)) < known.rate).all()
    test = made_pictures(200, 2)
    distances = known.to_kinds(test.features)
    for task in NAMES:
        odds, there = known.log_odds(distances, task), test.organs == find(task).organ
        absent = odds < known.logistic[2]
        assert absent[there].mean() < 0.03 and absent[~there].mean() > 0.9
        assert known.about["presence"][task]["false_alarms"] <= RATE


def test_the_spread_within_kinds_becomes_one_and_all_kinds_weigh_the_same() -> None:
    pictures = made_pictures(400, 0)
    stretched = pictures.features * np.array([1, 50, *[1] * 10], np.float32)
    few = np.concatenate([np.arange(0, 400, 40), np.arange(400, 2000)])  # of the first kind a tenth
    chosen = np.isin(np.arange(2000), few)
    for features in (pictures.features, stretched):
        part = type(pictures)(features, pictures.kinds, pictures.groups, pictures.tasks).where(chosen)
        kinds, (centre, whitening, means) = whitened_kinds(part)
        assert [organ for organ, _ in kinds] == ["breast", "fetus", "heart", "ovary", "thyroid"]
        inside = (part.features - centre) @ whitening - means[[kinds.index(kind) for kind in part.kinds]]
        assert np.allclose(inside.std(0), 1, atol=0.3)


def test_a_logistic_function_is_found_again() -> None:
    random = np.random.default_rng(0)
    values = random.uniform(-1, 1, 40_000)
    there = random.uniform(size=len(values)) < 1 / (1 + np.exp(-(6 * values)))
    slope, offset = fit_logistic(values, there)
    assert slope == pytest.approx(6, abs=0.3) and offset == pytest.approx(0, abs=0.1)
    slope, _ = fit_logistic(np.array([-1.0, -0.5, 0.5, 1.0]), np.array([False, False, True, True]))
    assert 0 < slope < 100  # values that separate the two are no reason for certainty


def test_an_organ_left_out_is_found_where_it_lies_apart() -> None:
    left_out = fit(made_pictures(100, 0), made_pictures(100, 1), NAMES).about["left_out"]
    assert set(left_out) == {"breast", "fetus", "heart", "ovary", "thyroid"}
    assert all(row["n"] == 100 and row["auroc"] > 0.9 for row in left_out.values())
    near = fit(made_pictures(100, 0, apart=0.0), made_pictures(100, 1, apart=0.0), NAMES).about["left_out"]
    assert all(0.35 < row["auroc"] < 0.65 for row in near.values())


def test_too_few_organs_are_refused() -> None:
    pictures = made_pictures(4, 0)
    hearts = pictures.where(pictures.organs == "heart")
    with pytest.raises(ProPLError, match="no train picture shows the organ of breast cancer"):
        fit(hearts, pictures, NAMES)
    with pytest.raises(ProPLError, match="all train pictures show the organ of left atrium"):
        fit(hearts, hearts, ["left atrium"])


@pytest.fixture(scope="module")
def fitted(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of weights with their scores, and what the fit returned."""
    folder = tmp_path_factory.mktemp("fitted")
    save_weights(small_network(), folder, {**ABOUT, "datalist_sha256": read_source("folder", phantoms).sha256})
    return folder, fit_known(folder, phantoms)


def test_the_file_belongs_to_the_weights_and_predictions_have_scores(
    fitted: tuple[Path, dict[str, Any]], phantoms: Path
) -> None:
    folder, about = fitted
    assert about["path"] == folder / KNOWN and about["weights_sha256"] == file_sha256(folder / "model.safetensors")
    cases = read_source("folder", phantoms).cases
    for split in ("train", "validation"):  # a picture of several tasks counts once
        assert about[split] == len({case.image_sha256 for case in cases if case.split == split})
    assert about["train"] < sum(case.split == "train" for case in cases)
    predictor = Predictor.from_bundle(folder, device="cpu")
    assert predictor.known and predictor.known.sha256 == file_sha256(folder / KNOWN)
    (scores,) = {predictor(speckle(40, 50), task).scores for task in ("LA", "LV")}
    assert scores and 0 < scores.known <= 1 and 0 <= scores.presence <= 1


def test_fitting_again_gives_the_same_file(fitted: tuple[Path, dict[str, Any]], phantoms: Path) -> None:
    folder, _ = fitted
    before = (folder / KNOWN).read_bytes()
    fit_known(folder / "model.safetensors", phantoms)
    assert (folder / KNOWN).read_bytes() == before


def test_other_data_are_refused(fitted: tuple[Path, dict[str, Any]], tmp_path: Path, phantoms: Path) -> None:
    save_weights(small_network(), tmp_path, {**ABOUT, "datalist_sha256": "0" * 64})
    with pytest.raises(ProPLError, match=r"the weights were trained with 0+; give the datalist of that training"):
        fit_known(tmp_path, phantoms)


def test_scores_leave_with_the_weights_that_are_replaced(tmp_path: Path) -> None:
    save_weights(small_network(), tmp_path, ABOUT)
    (tmp_path / KNOWN).write_bytes(b"of these weights")
    assert [path.name for path in copy_aside(tmp_path)] == ["model.safetensors", "model.pt"]
    assert not (tmp_path / KNOWN).exists()
    assert (tmp_path / "previous" / "1" / KNOWN).read_bytes() == b"of these weights"
