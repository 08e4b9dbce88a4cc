"""A folder in, masks out: bad files, cines, a second run, a kill, changed options, measurements."""

from __future__ import annotations

import csv
import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from picture_samples import save_nifti, save_pages
from PIL import Image
from small_predictor import small_predictor, speckle

from propl_monai.common.files import TEMPORARY_PREFIX, lock_folder
from propl_monai.errors import EXIT_BAD_INPUT, EXIT_FAILURE, EXIT_OK, EXIT_PARTIAL, ProPLError
from propl_monai.images import Cine
from propl_monai.inference import output_folder
from propl_monai.inference import predict_folder as module
from propl_monai.inference.measurements import measure
from propl_monai.inference.predict_folder import predict_paths
from propl_monai.inference.predictor import Predictor
from propl_monai.inference.shards import Shard

Check = Callable[[Path], dict[str, Any]]
pytestmark = pytest.mark.usefixtures("few_threads")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return small_predictor(batch=2)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two stills and a cine of three frames, in two folders."""
    folder = tmp_path / "in"
    (folder / "deep er").mkdir(parents=True)
    Image.fromarray(speckle(20, 31)).save(folder / "a.png")
    Image.fromarray(speckle(25, 18, 1, colour=True)).save(folder / "deep er" / "b (1).bmp")
    save_nifti(folder / "cine.nii.gz", np.stack([speckle(16, 22, seed) for seed in (2, 3, 4)]), seconds=0.04)
    return folder


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def content(folder: Path) -> dict[str, bytes]:
    """All files but the papers, whose times differ."""
    files = (
        path for path in folder.rglob("*") if path.is_file() and path.name not in ("run.json", "predictions.jsonl")
    )
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def same_results(folder: Path, whole: Path) -> bool:
    """Whether all that is in a folder is in the other one too: variances up to rounding, all else to the byte."""
    for name in content(folder):
        if name.endswith("_uncertainty.png"):
            left, right = (pixels(place / name) / 131070 for place in (folder, whole))
            if np.abs(left**2 - right**2).max() > 1e-5:
                return False
        elif (folder / name).read_bytes() != (whole / name).read_bytes():
            return False
    return True


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_stills_cines_and_folders(predictor: Predictor, images: Path, tmp_path: Path, check_run_json: Check) -> None:
    told: list[tuple[int, int]] = []
    out = tmp_path / "out"
    found = predict_paths(predictor, [images], out, ["LA", "thyroid nodule"], progress=lambda *args: told.append(args))
    names = ["a", "deep er/b (1)", *(f"cine_frame_000{number}" for number in (1, 2, 3))]
    masks = {f"{name}_{task}.png" for name in names for task in ("left_atrium", "thyroid_nodule")}
    assert set(content(out)) == masks
    assert (found.done, found.skipped, found.refused, found.pictures, found.code) == (3, 0, 0, 5, EXIT_OK)
    assert told == [(1, 3), (2, 3), (3, 3)]
    sizes = {"a_left_atrium": (20, 31), "deep er/b (1)_left_atrium": (25, 18), "cine_frame_0003_left_atrium": (16, 22)}
    assert all(pixels(out / f"{name}.png").shape == size for name, size in sizes.items())
    mask = pixels(out / "a_left_atrium.png")
    assert np.array_equal(mask, predictor(images / "a.png", "LA").mask * np.uint8(255)) and 0 < mask.mean() < 255
    third = predictor(speckle(16, 22, 4), "LA").mask
    assert np.array_equal(pixels(out / "cine_frame_0003_left_atrium.png") > 0, third)
    record = check_run_json(out / "run.json")
    assert (record["verb"], record["status"]) == ("predict", "finished")
    assert record["results"] == {"files": 3, "skipped": 0, "refused": 0, "pictures": 5}
    assert sorted(record["outputs"]) == sorted(str(out / name) for name in masks)
    assert {Path(entry["path"]).name for entry in record["inputs"]} == {"a.png", "b (1).bmp", "cine.nii.gz"}
    assert record["options"]["tasks"] == ["left atrium", "thyroid nodule"] and record["options"]["threshold"] == 0.5


def test_maps_and_overlays(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_paths(predictor, [images / "a.png"], out, "LA", probability=True, uncertainty=True, overlay=True)
    assert set(content(out)) == {f"a_{kind}.png" for kind in ("left_atrium", "left_atrium_probability")} | {
        "a_left_atrium_uncertainty.png",
        "a_overlay.png",
    }
    expected = predictor(images / "a.png", "LA", uncertainty=True)
    probability = pixels(out / "a_left_atrium_probability.png")
    assert probability.dtype == np.uint16
    assert np.abs(probability / 65535 - expected.probability).max() < 1e-4
    assert expected.uncertainty is not None
    assert np.abs(pixels(out / "a_left_atrium_uncertainty.png") / 131070 - expected.uncertainty).max() < 1e-4
    overlay = pixels(out / "a_overlay.png")
    assert overlay.shape == (20, 31, 3)
    coloured = (overlay[..., 0] != overlay[..., 1]) | (overlay[..., 1] != overlay[..., 2])
    assert np.array_equal(coloured, expected.mask)


def test_bad_files_are_told_and_the_rest_is_done(predictor: Predictor, tmp_path: Path, check_run_json: Check) -> None:
    """54 good files, 6 bad ones of three kinds among them."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(54):
        Image.fromarray(speckle(12, 14, number)).save(folder / f"{number:02d}.png")
    good = (folder / "00.png").read_bytes()
    bad = {
        "03b.png": b"",
        "11b.png": b"<html>",
        "20b.jpg": good[:60],
        "31b.dcm": good[8:],
        "50b.tif": b"",
        "99.avi": b"RIFF",
    }
    for name, data in bad.items():
        (folder / name).write_bytes(data)
    told: list[int] = []
    found = predict_paths(predictor, [folder], out, "LA", progress=lambda done, _: told.append(done))
    assert (found.done, found.refused, found.code) == (54, 6, EXIT_PARTIAL) and told == list(range(1, 61))
    assert len(content(out)) == 54
    record = check_run_json(out / "run.json")
    assert record["status"] == "partial" and len(record["inputs"]) == 54
    reasons = {Path(finding["path"]).name: finding["message"] for finding in record["findings"]}
    assert set(reasons) == set(bad)
    assert "is empty (0 bytes)" in reasons["03b.png"] and "an HTML page" in reasons["11b.png"]
    again = predict_paths(predictor, [folder], out, "LA")
    assert (again.done, again.skipped, again.refused, again.pictures, again.code) == (0, 54, 6, 0, EXIT_PARTIAL)
    assert check_run_json(out / "run.json")["outputs"] == record["outputs"]


def test_nothing_readable(predictor: Predictor, tmp_path: Path, check_run_json: Check) -> None:
    (tmp_path / "a.png").touch()
    found = predict_paths(predictor, [tmp_path / "a.png"], tmp_path / "out", "LA", measurements=True)
    assert (found.refused, found.code) == (1, EXIT_BAD_INPUT)
    assert check_run_json(tmp_path / "out" / "run.json")["status"] == "failed"
    assert rows(tmp_path / "out" / "measurements.csv") == []


def test_what_is_refused_before_anything_is_written(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ProPLError, match="unknown task 'left atrum'"):
        predict_paths(predictor, [images], out, "left atrum")
    with pytest.raises(ProPLError, match="pixel spacing"):
        predict_paths(predictor, [images], out, "LA", spacing_mm=(0, 1))
    with pytest.raises(ProPLError, match="nowhere: does not exist"):
        predict_paths(predictor, [tmp_path / "nowhere"], out, "LA")
    assert not out.exists()


# --- a second run


def test_a_second_run_skips_what_is_done(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_paths(predictor, [images], out, "LA")
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert predict_paths(predictor, [images], out, ["left_atrium", "LA"]).skipped == 3
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.png")} == times


def test_only_what_changed_is_done_again(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_paths(predictor, [images], out, "LA")
    Image.fromarray(speckle(21, 30, 9)).save(images / "a.png")
    (out / "cine_frame_0002_left_atrium.png").unlink()
    found = predict_paths(predictor, [images], out, "LA")
    assert (found.done, found.skipped, found.pictures) == (2, 1, 4)
    assert pixels(out / "a_left_atrium.png").shape == (21, 30)


def test_other_outputs_are_added(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_paths(predictor, [images / "a.png"], out, "LA")
    assert predict_paths(predictor, [images / "a.png"], out, "LA", overlay=True).done == 1
    assert predict_paths(predictor, [images / "a.png"], out, "TN", overlay=True).done == 1
    assert set(content(out)) == {"a_left_atrium.png", "a_overlay.png", "a_thyroid_nodule.png"}


def test_results_of_other_settings_are_not_mixed(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_paths(predictor, [images], out, "LA")
    before = content(out)
    other = small_predictor(threshold=0.6, tta=True)
    with pytest.raises(ProPLError) as caught:
        predict_paths(other, [images], out, "LA")
    assert "holds results of other settings: tta False there, True now; threshold 0.5 there, 0.6 now" in str(
        caught.value
    )
    with pytest.raises(ProPLError, match=r"spacing_mm None there, \[1.0, 1.0\] now"):
        predict_paths(predictor, [images], out, "LA", spacing_mm=(1, 1))
    assert content(out) == before
    assert predict_paths(other, [images], out, "LA", overwrite=True).done == 3
    assert content(out) != before and content(out).keys() == before.keys()
    assert predict_paths(other, [images], out, "LA").skipped == 3


class Killed(BaseException):
    """Ends a run as a signal would, at a moment of our choice."""


@pytest.mark.parametrize("moment", [1, 3, 5])
def test_a_killed_run_leaves_whole_masks_and_is_completed_to_the_same_results(
    predictor: Predictor, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    options: dict[str, Any] = {"uncertainty": True, "measurements": True}
    predict_paths(predictor, [images], tmp_path / "whole", ["LA", "TN"], **options)
    out, write, calls = tmp_path / "out", output_folder.write_predictions, []

    def stop(*given: Any) -> list[Path]:
        calls.append(1)
        if len(calls) == moment:
            raise Killed
        return write(*given)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(output_folder, "write_predictions", stop)
        predict_paths(predictor, [images], out, ["LA", "TN"], **options)
    whole = content(tmp_path / "whole")
    assert content(out).keys() < whole.keys()
    assert same_results(out, tmp_path / "whole")
    # What only a process that is gone can leave: half a file, half a line.
    (out / f"{TEMPORARY_PREFIX}123-a_left_atrium.png").write_bytes(b"half")
    with (out / "predictions.jsonl").open("a") as stream:
        stream.write('{"name": "a", "sha2')
    found = predict_paths(predictor, [images], out, ["LA", "TN"], **options)
    assert found.done + found.skipped == 3
    assert content(out).keys() == whole.keys() and same_results(out, tmp_path / "whole")
    assert all(json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines())


def test_a_disk_that_is_full_ends_the_run_with_papers(
    predictor: Predictor, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check_run_json: Check
) -> None:
    def fail(*_: Any) -> None:
        raise ProPLError("a.png", "cannot be written (No space left on device)", "make room")

    monkeypatch.setattr(output_folder, "write_predictions", fail)
    with pytest.raises(ProPLError, match="No space left"):
        predict_paths(predictor, [images], tmp_path / "out", "LA")
    record = check_run_json(tmp_path / "out" / "run.json")
    assert record["status"] == "failed" and "No space left" in record["findings"][0]["message"]


def test_two_runs_in_one_folder(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    with lock_folder(tmp_path / "out"), pytest.raises(ProPLError, match="is being written to by another process"):
        predict_paths(predictor, [images], tmp_path / "out", "LA")


def test_a_journal_that_is_none(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for text in ("", "[]\n", '{"format": "other"}\n', "scribble"):
        (out / "predictions.jsonl").write_text(text)
        with pytest.raises(ProPLError, match="is no journal of predictions"):
            predict_paths(predictor, [images], out, "LA")


def test_a_cine_that_breaks_in_the_middle(
    predictor: Predictor, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frames before are written, but the file does not count as done."""

    def frames() -> Any:
        yield from (speckle(10, 11, seed) for seed in range(2))
        raise ProPLError("cine", "holds a damaged frame", "copy it again")

    monkeypatch.setattr(module, "read_frames", lambda _: Cine(5, None, None, frames))
    for _ in range(2):
        found = predict_paths(predictor, [images / "cine.nii.gz"], tmp_path / "out", "LA")
        assert (found.done, found.skipped, found.refused, found.code) == (0, 0, 1, EXIT_BAD_INPUT)
    assert set(content(tmp_path / "out")) == {f"cine_frame_000{number}_left_atrium.png" for number in (1, 2)}


# --- batches over files, and three threads


def journalled(out: Path) -> list[str]:
    return [json.loads(line)["name"] for line in (out / "predictions.jsonl").read_text().splitlines()[1:]]


def test_frames_of_several_files_share_a_batch(
    predictor: Predictor, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of five frames, two by two, in the order of the files; the masks are those of single calls."""
    given: list[int] = []
    maps = predictor.maps
    monkeypatch.setattr(predictor, "maps", lambda frames, *rest: (given.append(len(frames)), maps(frames, *rest))[1])
    out = tmp_path / "out"
    predict_paths(predictor, [images], out, "LA", probability=True)
    assert given == [2, 2, 1] and journalled(out) == ["a", "cine", "deep er/b (1)"]
    alone = small_predictor(batch=1)
    for name, picture in (("a", images / "a.png"), ("cine_frame_0001", speckle(16, 22, 2))):
        expected = alone(picture, "LA")
        assert np.array_equal(pixels(out / f"{name}_left_atrium.png") > 0, expected.mask)
        found = pixels(out / f"{name}_left_atrium_probability.png") / 65535
        assert np.abs(found - expected.probability).max() < 1e-5 + 0.5 / 65535


def test_reading_and_writing_go_on_while_the_network_works(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network waits for the next file to be opened, and the writer for the network's next batch: neither in vain."""
    opened, second = threading.Event(), threading.Event()
    read, write, met = module.read_frames, output_folder.write_predictions, []
    predictor = small_predictor(batch=4)
    maps = predictor.maps

    def reading(path: Path) -> Cine:
        if "b (1)" in path.name:
            opened.set()
        return read(path)

    def network(*given: Any) -> Any:
        met.append(opened.wait(10))
        if len(met) == 2:
            second.set()
        return maps(*given)

    def writing(*given: Any) -> list[Path]:
        met.append(second.wait(10))
        return write(*given)

    monkeypatch.setattr(module, "read_frames", reading)
    monkeypatch.setattr(output_folder, "write_predictions", writing)
    monkeypatch.setattr(predictor, "maps", network)
    assert predict_paths(predictor, [images], tmp_path / "out", "LA").done == 3
    assert met == [True] * 7


def test_ctrl_c_leaves_what_was_computed_and_papers(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check_run_json: Check
) -> None:
    predictor, out, calls = small_predictor(batch=2), tmp_path / "out", []
    maps = predictor.maps

    def stopped(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return maps(*given)

    monkeypatch.setattr(predictor, "maps", stopped)
    with pytest.raises(KeyboardInterrupt):
        predict_paths(predictor, [images], out, "LA")
    assert set(content(out)) == {"a_left_atrium.png", "cine_frame_0001_left_atrium.png"} and journalled(out) == ["a"]
    record = check_run_json(out / "run.json")
    assert (record["status"], record["outputs"]) == ("failed", [str(out / "a_left_atrium.png")])
    assert record["findings"][0]["message"].startswith("KeyboardInterrupt")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("prefetch", "writer"))]


def test_a_fault_of_the_reader_ends_the_run_with_papers(
    predictor: Predictor, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check_run_json: Check
) -> None:
    def fail(path: Path) -> Cine:
        raise MemoryError("no room")

    monkeypatch.setattr(module, "read_frames", fail)
    with pytest.raises(MemoryError):
        predict_paths(predictor, [images], tmp_path / "out", "LA")
    record = check_run_json(tmp_path / "out" / "run.json")
    assert record["status"] == "failed" and record["findings"][0]["message"] == "MemoryError: no room"


def test_large_pictures_for_overlays_are_not_held_in_numbers(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames of 16 × 22 pixels, of which no more than two may be held in a group."""
    monkeypatch.setattr(module, "MAX_PIXELS", 16 * 22)
    predictor, given = small_predictor(batch=8), []
    maps = predictor.maps
    monkeypatch.setattr(predictor, "maps", lambda frames, *rest: (given.append(len(frames)), maps(frames, *rest))[1])
    predict_paths(predictor, [images / "cine.nii.gz"], tmp_path / "out", "LA", overlay=True)
    assert given == [2, 1]
    predict_paths(predictor, [images / "cine.nii.gz"], tmp_path / "plain", "LA")
    assert given == [2, 1, 3]


def test_uncertainty_without_decoder_sd_is_refused_before_anything_is_written(images: Path, tmp_path: Path) -> None:
    predictor = small_predictor()
    predictor.network.keep_decoder("pd")
    with pytest.raises(ProPLError, match="uncertainty: these weights hold decoder pd alone, not sd"):
        predict_paths(predictor, [images], tmp_path / "out", "LA", uncertainty=True)
    assert not (tmp_path / "out").exists()


# --- measurements


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


def test_pictures_that_are_nearly_black_are_named(
    predictor: Predictor, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, level in (("dark", 15), ("dim", 16)):
        Image.fromarray(np.full((12, 13), level, np.uint8)).save(images / f"{name}.png")
    assert predict_paths(predictor, [images], tmp_path / "out", "LA").done == 5
    assert f"{images / 'dark.png'}: nearly black, no pixel reaches 16 of 255" in caplog.text
    assert caplog.text.count("nearly black") == 1 and "dim.png" not in caplog.text


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


# --- files that cannot be done, and disks that fail


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
    """From the third mask on no byte can be written anew, run.json included."""
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


def test_results_of_earlier_predictions_are_no_inputs(
    predictor: Predictor, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predict_paths(predictor, [images], images / "masks_la", "LA", overlay=True)
    predict_paths(predictor, [images], images / "parts", "LA", shard=Shard(1, 1))
    caplog.clear()
    found = predict_paths(predictor, [images], images / "masks_lv", "LV")
    assert (found.done, found.pictures) == (3, 5)
    for name in ("masks_la", "parts"):
        assert f"{images / name}: passed over, as it holds results of an earlier prediction" in caplog.text
    with pytest.raises(ProPLError, match="holds no picture"):
        predict_paths(predictor, [images / "masks_la"], tmp_path / "out", "LV")


def test_pages_of_a_tiff_are_frames(predictor: Predictor, tmp_path: Path) -> None:
    save_pages(tmp_path / "pages.tif", [speckle(12, 13, seed) for seed in range(2)])
    assert predict_paths(predictor, [tmp_path / "pages.tif"], tmp_path / "out", "LA").pictures == 2
    assert len(content(tmp_path / "out")) == 2
