"""A folder in, masks out: bad files, cines, a second run, a kill, changed options, measurements."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from factories import small_predictor, speckle
from output_tools import content, pixels, rows
from picture_samples import save_dicom, save_pages
from PIL import Image
from pydicom import uid

from propl_monai.common.files import lock_folder
from propl_monai.errors import EXIT_BAD_INPUT, EXIT_OK, EXIT_PARTIAL, ProPLError
from propl_monai.images import Cine
from propl_monai.inference import output_folder
from propl_monai.inference import predict_folder as module
from propl_monai.inference.predict_folder import predict_paths
from propl_monai.inference.predictor import Predictor
from propl_monai.inference.shards import Shard

Check = Callable[[Path], dict[str, Any]]


def test_stills_cines_and_folders(predictor: Predictor, images: Path, tmp_path: Path, check_run_json: Check) -> None:
    seen: list[tuple[int, int]] = []
    out = tmp_path / "out"
    found = predict_paths(predictor, [images], out, ["LA", "thyroid nodule"], progress=lambda *args: seen.append(args))
    names = ["a", "deep er/b (1)", *(f"cine_frame_000{number}" for number in (1, 2, 3))]
    masks = {f"{name}_{task}.png" for name in names for task in ("left_atrium", "thyroid_nodule")}
    assert set(content(out)) == masks
    assert (found.done, found.skipped, found.refused, found.pictures, found.code) == (3, 0, 0, 5, EXIT_OK)
    assert seen == [(1, 3), (2, 3), (3, 3)]
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
    seen: list[int] = []
    found = predict_paths(predictor, [folder], out, "LA", progress=lambda done, _: seen.append(done))
    assert (found.done, found.refused, found.code) == (54, 6, EXIT_PARTIAL) and seen == list(range(1, 61))
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


def test_two_runs_in_one_folder(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    with lock_folder(tmp_path / "out"), pytest.raises(ProPLError, match="is being written to by another process"):
        predict_paths(predictor, [images], tmp_path / "out", "LA")


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
    answer = predictor.answer
    monkeypatch.setattr(
        predictor, "answer", lambda frames, *rest: (given.append(len(frames)), answer(frames, *rest))[1]
    )
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
    answer = predictor.answer

    def reading(path: Path) -> Cine:
        if "b (1)" in path.name:
            opened.set()
        return read(path)

    def network(*given: Any) -> Any:
        met.append(opened.wait(10))
        if len(met) == 2:
            second.set()
        return answer(*given)

    def writing(*given: Any) -> list[Path]:
        met.append(second.wait(10))
        return write(*given)

    monkeypatch.setattr(module, "read_frames", reading)
    monkeypatch.setattr(output_folder, "write_predictions", writing)
    monkeypatch.setattr(predictor, "answer", network)
    assert predict_paths(predictor, [images], tmp_path / "out", "LA").done == 3
    assert met == [True] * 7


def test_ctrl_c_leaves_what_was_computed_and_papers(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check_run_json: Check
) -> None:
    predictor, out, calls = small_predictor(batch=2), tmp_path / "out", []
    answer = predictor.answer

    def stopped(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return answer(*given)

    monkeypatch.setattr(predictor, "answer", stopped)
    with pytest.raises(KeyboardInterrupt):
        predict_paths(predictor, [images], out, "LA")
    assert set(content(out)) == {"a_left_atrium.png", "cine_frame_0001_left_atrium.png"} and journalled(out) == ["a"]
    record = check_run_json(out / "run.json")
    assert (record["status"], record["outputs"]) == ("failed", [str(out / "a_left_atrium.png")])
    assert record["findings"][0]["message"].startswith("KeyboardInterrupt")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("prefetch", "writer"))]


def test_a_fault_of_the_reader_ends_the_run_with_a_run_json(
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
    answer = predictor.answer
    monkeypatch.setattr(
        predictor, "answer", lambda frames, *rest: (given.append(len(frames)), answer(frames, *rest))[1]
    )
    predict_paths(predictor, [images / "cine.nii.gz"], tmp_path / "out", "LA", overlay=True)
    assert given == [2, 1]
    predict_paths(predictor, [images / "cine.nii.gz"], tmp_path / "plain", "LA")
    assert given == [2, 1, 3]


def test_uncertainty_without_decoder_sd_is_refused_before_anything_is_written(images: Path, tmp_path: Path) -> None:
    predictor = small_predictor(uncertainty_of="dropout")
    predictor.network.keep_decoder("pd")
    with pytest.raises(ProPLError, match="uncertainty: these weights hold decoder pd alone, not sd"):
        predict_paths(predictor, [images], tmp_path / "out", "LA", uncertainty=True)
    assert not (tmp_path / "out").exists()


def test_pictures_that_are_nearly_black_are_named(
    predictor: Predictor, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, level in (("dark", 15), ("dim", 16)):
        Image.fromarray(np.full((12, 13), level, np.uint8)).save(images / f"{name}.png")
    assert predict_paths(predictor, [images], tmp_path / "out", "LA").done == 5
    assert f"{images / 'dark.png'}: nearly black, no pixel reaches 16 of 255" in caplog.text
    assert caplog.text.count("nearly black") == 1 and "dim.png" not in caplog.text


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


def exam(folder: Path) -> Path:
    """A still, two reports, a presentation state, a directory, and a picture that has lost its pixels."""
    folder.mkdir()
    save_dicom(folder / "still.dcm", speckle(12, 13)[None])
    for name, kind in (("r1.dcm", uid.ComprehensiveSRStorage), ("r2", uid.ComprehensiveSRStorage)):
        without_pixels(folder / name, kind)
    without_pixels(folder / "state.dcm", uid.GrayscaleSoftcopyPresentationStateStorage)
    meta = b"\x02\x00\x02\x00UI\x14\x001.2.840.10008.1.3.10"
    (folder / "DICOMDIR.dcm").write_bytes(bytes(128) + b"DICM" + meta + bytes(400))
    return folder


def without_pixels(path: Path, kind: Any) -> Path:
    save_dicom(path, speckle(12, 13)[None], PatientName="Doe^Jane")
    elements = pydicom.dcmread(path)
    del elements.PixelData
    elements.file_meta.MediaStorageSOPClassUID = elements.SOPClassUID = kind
    elements.save_as(path)
    return path


def test_what_is_no_picture_in_an_exam_is_passed_over_and_counted(
    predictor: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture, check_run_json: Check
) -> None:
    folder, out = exam(tmp_path / "exam"), tmp_path / "out"
    seen: list[tuple[int, int]] = []
    for turn in range(2):
        found = predict_paths(predictor, [folder], out, "LA", progress=lambda *given: seen.append(given))
        assert (found.done, found.skipped, found.refused, found.code) == (1 - turn, turn, 0, EXIT_OK)
    assert seen[4] == (5, 5)
    assert (
        "passed over, as they hold no picture: 1 × DICOM directory, which lists the files of an exam, " in caplog.text
    )
    assert "1 × DICOM file without pixel data (Grayscale Softcopy Presentation State)\n" in caplog.text
    assert "2 × DICOM file without pixel data (Comprehensive SR), " in caplog.text and "Doe" not in caplog.text
    record = check_run_json(out / "run.json")
    assert record["status"] == "finished" and sum(record["results"]["passed_over"].values()) == 4
    # An image without its pixels is damaged, and a file that is named itself is meant.
    without_pixels(folder / "cut.dcm", uid.UltrasoundImageStorage)
    found = predict_paths(predictor, [folder, folder / "r1.dcm"], out, "LA")
    assert (found.skipped, found.refused, found.code) == (1, 2, EXIT_PARTIAL)


def test_an_exam_of_reports_alone(predictor: Predictor, tmp_path: Path, check_run_json: Check) -> None:
    without_pixels(exam(tmp_path / "exam") / "still.dcm", uid.ComprehensiveSRStorage)
    found = predict_paths(predictor, [tmp_path / "exam"], tmp_path / "out", "LA")
    assert (found.done, found.refused, found.code) == (0, 0, EXIT_BAD_INPUT)
    record = check_run_json(tmp_path / "out" / "run.json")
    assert record["status"] == "failed" and "hold no picture: 1 × DICOM dir" in record["findings"][0]["message"]


def test_a_run_of_another_verb_is_not_replaced(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"verb": "train"}')
    for overwrite in (False, True):
        with pytest.raises(ProPLError, match=r"holds the run\.json of `propl train`"):
            predict_paths(predictor, [images], tmp_path / "run", "LA", overwrite=overwrite)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]
    assert predict_paths(predictor, [images], tmp_path / "run" / "masks", "LA").done == 3


def test_files_of_others_are_overwritten_on_demand_alone(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "out" / "a_left_atrium.png"
    drawn.parent.mkdir()
    drawn.write_bytes(b"drawn by hand")
    with pytest.raises(ProPLError, match=r"a_left_atrium\.png: is no result of an earlier prediction"):
        predict_paths(predictor, [images], tmp_path / "out", "LA")
    assert drawn.read_bytes() == b"drawn by hand" and len(list(drawn.parent.iterdir())) == 1
    assert predict_paths(predictor, [images], tmp_path / "out", "LA", overwrite=True).done == 3
    assert pixels(drawn).shape == (20, 31)


def test_masks_that_were_corrected_survive_more_tasks_and_outputs(
    predictor: Predictor, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    predict_paths(predictor, [images], out, "LA", formats="png,nifti")
    corrected = [
        out / name for name in ("a_left_atrium.png", "cine_frame_0002_left_atrium.png", "a_left_atrium.nii.gz")
    ]
    for path in corrected:
        path.write_bytes(b"corrected")
    more = {"formats": "png,nifti", "probability": True, "overlay": True}
    assert predict_paths(predictor, [images], out, "LA,TN".split(","), **more).done == 3
    assert all(path.read_bytes() == b"corrected" for path in corrected)
    assert pixels(out / "a_thyroid_nodule.png").shape == pixels(out / "a_left_atrium_probability.png").shape == (20, 31)
    Image.fromarray(speckle(20, 31, 9)).save(images / "a.png")  # another picture
    assert predict_paths(predictor, [images], out, "LA,TN".split(","), **more).done == 1
    assert np.array_equal(pixels(corrected[0]) > 0, predictor(images / "a.png", "LA").mask)
    assert predict_paths(predictor, [images], out, "LA", overwrite=True).done == 3
    assert pixels(corrected[1]).shape == (16, 22)


def test_pictures_of_two_values_and_turned_ones_are_named(
    predictor: Predictor, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray((speckle(12, 13) > 99) * np.uint8(255)).save(images / "mask.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(speckle(12, 13)).save(images / "phone.jpg", exif=exif)
    predict_paths(predictor, [images], tmp_path / "out", "LA")
    assert f"{images / 'mask.png'}: holds two values only, as a mask does" in caplog.text
    assert f"{images / 'phone.jpg'}: turned upright, as its EXIF orientation says" in caplog.text
    assert caplog.text.count("two values") == 1 and pixels(tmp_path / "out" / "phone_left_atrium.png").shape == (13, 12)
