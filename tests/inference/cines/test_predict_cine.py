"""A cine from Python and from a folder: the same masks, steadied or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from factories import small_predictor, speckle
from output_tools import content, pixels, rows
from picture_samples import save_nifti

from propl_monai import Prediction, predict_cine
from propl_monai.errors import ProPLError
from propl_monai.images import Picture
from propl_monai.inference.predict_folder import predict_paths
from propl_monai.inference.predictor import Predictor

FRAMES = np.stack([speckle(16, 22, seed) for seed in range(9)])


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return small_predictor(batch=4)


def probabilities(found: list[list[Prediction]]) -> np.ndarray:
    return np.stack([[one.probability for one in frame] for frame in found])


def test_each_frame_as_a_picture_of_its_own(predictor: Predictor) -> None:
    found = list(predict_cine(predictor, FRAMES, ["LA", "LV"]))
    alone = predictor.predict([Picture(frame) for frame in FRAMES], ["LA", "LV"])
    assert np.abs(probabilities(found) - probabilities(alone)).max() < 1e-5
    assert [one.task for one in found[0]] == ["left atrium", "left ventricle"]


def test_steadied_frames_differ_less_from_one_another(predictor: Predictor) -> None:
    plain, steadied = (
        probabilities(list(predict_cine(predictor, FRAMES, "LV", steady=steady, uncertainty=True)))
        for steady in (0, 1.0)
    )
    assert steadied.shape == plain.shape
    assert np.abs(np.diff(steadied, axis=0)).mean() < 0.5 * np.abs(np.diff(plain, axis=0)).mean()
    assert steadied.mean() == pytest.approx(plain.mean(), abs=0.02)


def test_the_folder_has_the_same_masks_and_is_not_mixed_with_others(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    save_nifti(tmp_path / "in" / "cine.nii.gz", FRAMES, seconds=0.04)
    save_nifti(tmp_path / "in" / "second.nii.gz", FRAMES[::-1], seconds=0.04)
    save_nifti(tmp_path / "in" / "still.nii.gz", FRAMES[:1])
    out = tmp_path / "out"
    predict_paths(predictor, [tmp_path / "in"], out, "LV", steady=1.0, probability=True)
    for name, frames in (("cine", FRAMES), ("second", FRAMES[::-1])):
        for number, (one,) in enumerate(predict_cine(predictor, frames, ["LV"], steady=1.0), start=1):
            base = f"{name}_frame_{number:04d}_left_ventricle"
            assert np.array_equal(pixels(out / f"{base}.png") > 0, one.mask)
            assert np.abs(pixels(out / f"{base}_probability.png") / 65535 - one.probability).max() < 1e-4
    still = predictor(FRAMES[0], "LV")
    assert np.array_equal(pixels(out / "still_left_ventricle.png") > 0, still.mask)
    with pytest.raises(ProPLError, match=r"steady 1\.0 there, None now"):
        predict_paths(predictor, [tmp_path / "in"], out, "LV")
    assert predict_paths(predictor, [tmp_path / "in"], out, "LV", steady=1.0, probability=True).skipped == 3


def test_measured_cines_get_their_area_curve(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    save_nifti(tmp_path / "in" / "cine.nii.gz", FRAMES, seconds=0.04)
    save_nifti(tmp_path / "in" / "still.nii.gz", FRAMES[:1])
    out = tmp_path / "out"
    predict_paths(predictor, [tmp_path / "in"], out, ["LV", "LA"], measurements=True)
    assert {name for name in content(out) if "areas" in name} == {"cine_areas.csv", "cine_areas.svg"}
    curve = rows(out / "cine_areas.csv")
    assert len(curve) == 9 and curve[1]["seconds"] == "0.0400"
    measured = [
        row["area"] for row in rows(out / "measurements.csv") if row["task"] == "left ventricle" and row["frame"]
    ]
    unit = rows(out / "measurements.csv")[0]["unit"]
    assert [float(row[f"left_ventricle_{unit}2"]) for row in curve] == [float(area) for area in measured]
    (out / "cine_areas.svg").unlink()
    again = predict_paths(predictor, [tmp_path / "in"], out, ["LV", "LA"], measurements=True)
    assert (again.done, again.skipped) == (1, 1) and (out / "cine_areas.svg").is_file()
