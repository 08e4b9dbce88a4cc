"""Results on disk: measurements, files whose results cannot be written, and disks that fail."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import SimpleITK
from factories import speckle
from output_tools import pixels, rows
from PIL import Image

from propl_monai.common.files import TEMPORARY_PREFIX
from propl_monai.errors import EXIT_BAD_INPUT, EXIT_FAILURE, EXIT_OK, EXIT_PARTIAL, ProPLError
from propl_monai.inference import output_folder
from propl_monai.inference.measurements import measure
from propl_monai.inference.predict_folder import predict_paths
from propl_monai.inference.predictor import Predictor

Check = Callable[[Path], dict[str, Any]]


def test_a_disk_that_is_full_ends_the_run_with_a_run_json(
    predictor: Predictor, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check_run_json: Check
) -> None:
    def fail(*_: Any) -> None:
        raise ProPLError("a.png", "cannot be written (No space left on device)", "make room")

    monkeypatch.setattr(output_folder, "write_predictions", fail)
    with pytest.raises(ProPLError, match="No space left"):
        predict_paths(predictor, [images], tmp_path / "out", "LA")
    record = check_run_json(tmp_path / "out" / "run.json")
    assert record["status"] == "failed" and "No space left" in record["findings"][0]["message"]


def test_doubt_of_whole_masks_stands_beside_the_measurements(
    predictor: Predictor, images: Path, tmp_path: Path
) -> None:
    predict_paths(predictor, [images / "a.png"], tmp_path / "out", "LA", measurements=True, uncertainty=True)
    (row,) = rows(tmp_path / "out" / "measurements.csv")
    found = predictor(images / "a.png", "LA", uncertainty=True)
    assert found.uncertainty is not None
    expected = found.uncertainty.mean() / found.probability.mean()
    assert float(row["relative_uncertainty"]) == pytest.approx(expected, abs=2e-4)


def test_measurements(predictor: Predictor, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Stills without a spacing, and a cine with 0.5 × 0.25 mm, whose place a given one takes."""
    out = tmp_path / "out"
    predict_paths(predictor, [images], out, ["FH", "LA"], measurements=True, spacing_mm=(0.1, 0.3))
    assert f"{images / 'cine.nii.gz'}: the given pixel spacing is used, not that of the file" in caplog.text
    table = rows(out / "measurements.csv")
    assert [(row["name"], row["frame"], row["task"]) for row in table] == [
        ("a", "", "fetal head"),
        ("a", "", "left atrium"),
        *(("cine", str(number), task) for number in (1, 2, 3) for task in ("fetal head", "left atrium")),
        ("deep er/b (1)", "", "fetal head"),
        ("deep er/b (1)", "", "left atrium"),
    ]
    assert [row["file"] for row in table][-1] == "b (1).bmp" and {row["unit"] for row in table} == {"mm"}
    spacings = {row["name"]: (row["row_mm"], row["column_mm"]) for row in table}
    assert spacings == {"a": ("0.1", "0.3"), "cine": ("0.1", "0.3"), "deep er/b (1)": ("0.1", "0.3")}
    expected = measure(pixels(out / "cine_frame_0002_fetal_head.png") > 0, (0.1, 0.3), "fetal head")
    found = next(row for row in table if row["frame"] == "2" and row["task"] == "fetal head")
    for name in ("area", "longest_axis", "perpendicular_axis", "perimeter", "head_circumference"):
        assert float(found[name]) == pytest.approx(getattr(expected, name), abs=1e-4)
    assert next(row for row in table if row["task"] == "left atrium")["head_circumference"] == ""
    assert {row["relative_uncertainty"] for row in table} == {""}
    before = (out / "measurements.csv").read_bytes()
    (out / "measurements.csv").unlink()
    assert predict_paths(predictor, [images], out, ["FH", "LA"], measurements=True, spacing_mm=(0.1, 0.3)).skipped == 3
    assert (out / "measurements.csv").read_bytes() == before


def test_pixels_where_the_spacing_is_unknown(
    predictor: Predictor, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predict_paths(predictor, [images / "a.png", images / "cine.nii.gz"], tmp_path / "out", "LA", measurements=True)
    row, *cine = rows(tmp_path / "out" / "measurements.csv")
    assert (row["unit"], row["row_mm"], row["column_mm"]) == ("pixel", "", "")
    assert {(each["unit"], each["row_mm"], each["column_mm"]) for each in cine} == {("mm", "0.5", "0.25")}
    assert f"{images / 'a.png'}: lengths are in pixels: the pixel size is unknown" in caplog.text


@pytest.mark.parametrize("name", ["a.mha", "a.nii", "a.nii.gz"])
def test_the_default_spacing_of_a_writer(
    predictor: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """SimpleITK writes 1 × 1 where it knows nothing: MetaImage without a unit, NIfTI in mm. What the user gives wins."""
    image = SimpleITK.GetImageFromArray(speckle(20, 31))
    SimpleITK.WriteImage(image, str(tmp_path / name))
    found = {}
    for spacing in (None, (0.2, 0.4)):
        out = tmp_path / str(spacing)
        predict_paths(predictor, [tmp_path / name], out, "FH", measurements=True, spacing_mm=spacing)
        (found[spacing],) = rows(out / "measurements.csv")
    assert found[None]["unit"] == ("pixel" if name == "a.mha" else "mm")
    doubt = "may be the default of a program" if name != "a.mha" else "is the default of programs that do not know it"
    assert doubt in caplog.text and ("lengths are in pixels" in caplog.text) == (name == "a.mha")
    assert ("the given pixel spacing is used" in caplog.text) == (name != "a.mha")
    mask = pixels(tmp_path / str(None) / "a_fetal_head.png") > 0
    expected = measure(mask, (0.2, 0.4), "FH")
    assert found[0.2, 0.4]["unit"] == "mm" and expected.head_circumference is not None
    assert float(found[0.2, 0.4]["head_circumference"]) == pytest.approx(expected.head_circumference, abs=1e-4)
    assert float(found[0.2, 0.4]["area"]) == pytest.approx(float(found[None]["area"]) * 0.08, rel=1e-4)


def long_name(length: int) -> str:
    return "n" * (length - len(".png")) + ".png"


def test_names_as_long_as_a_disk_allows(
    predictor: Predictor, images: Path, tmp_path: Path, check_run_json: Check
) -> None:
    """Of 240 bytes: the mask fits (256 - 1 bytes with its suffix), the probability does not. Of 245: neither."""
    out = tmp_path / "out"
    for length in (240, 245):
        Image.fromarray(speckle(12, 13)).save(images / long_name(length))
    found = predict_paths(predictor, [images], out, "LV")  # _left_ventricle.png: 15 bytes more than .png
    assert (found.done, found.refused, found.code) == (4, 1, EXIT_PARTIAL)
    assert (out / ("n" * 236 + "_left_ventricle.png")).is_file()
    for _ in range(2):
        found = predict_paths(predictor, [images], out, "LV", probability=True)
        assert (found.done + found.skipped, found.refused, found.code) == (3, 2, EXIT_PARTIAL)
        record = check_run_json(out / "run.json")
        refused = {Path(finding["path"]).name: finding["message"] for finding in record["findings"]}
        assert set(refused) == {long_name(240), long_name(245)}
        assert all("File name too long" in message and "rename the file" in message for message in refused.values())
        assert not list(out.rglob(f"{TEMPORARY_PREFIX}*"))


def test_a_place_of_results_that_is_taken(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    """A file where the results of a folder should go, and a folder where those of a file should."""
    out = tmp_path / "out"
    (out / "a_left_atrium.png").mkdir(parents=True)
    (out / "deep er").write_text("in the way")
    found = predict_paths(predictor, [images], out, "LA")
    assert (found.done, found.refused, found.pictures, found.code) == (1, 2, 3, EXIT_PARTIAL)


def test_a_cine_whose_results_cannot_be_written_is_refused_once(
    predictor: Predictor, images: Path, tmp_path: Path, check_run_json: Check
) -> None:
    out = tmp_path / "out"
    (out / "cine_frame_0002_left_atrium.png").mkdir(parents=True)
    found = predict_paths(predictor, [images / "cine.nii.gz"], out, "LA")
    assert (found.done, found.refused, found.code) == (0, 1, EXIT_BAD_INPUT)
    assert len(check_run_json(out / "run.json")["findings"]) == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_a_full_disk_stops_the_run_and_loses_nothing(
    predictor: Predictor, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """From the third mask on no byte can be written, run.json included."""
    out, replace, calls = tmp_path / "out", os.replace, []

    def full(source: Path, target: Path) -> None:
        calls.append(target)
        if len([each for each in calls if each.suffix == ".png"]) > 2:
            raise OSError(code, os.strerror(code))
        replace(source, target)

    with monkeypatch.context() as patched, pytest.raises(ProPLError, match=os.strerror(code)) as caught:
        patched.setattr(os, "replace", full)
        predict_paths(predictor, [images], out, "LA")
    assert caught.value.of_machine and caught.value.exit_code == EXIT_FAILURE
    assert json.loads((out / "run.json").read_text())["status"] == "failed"
    assert len(list(out.rglob("*.png"))) == 2 and not list(out.rglob(f"{TEMPORARY_PREFIX}*"))
    found = predict_paths(predictor, [images], out, "LA")
    assert (found.done, found.skipped, found.code) == (2, 1, EXIT_OK)
