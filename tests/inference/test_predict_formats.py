"""`propl predict --format`: all formats in one run, a second run, a kill, shards, files that a format cannot carry."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from factories import small_predictor, speckle, write_small_bundle
from output_tools import content, pixels
from picture_samples import save_dicom
from PIL import Image
from pydicom import dcmread
from typer.testing import CliRunner

from propl_monai.cli import app
from propl_monai.errors import EXIT_BAD_INPUT, EXIT_OK, EXIT_PARTIAL, ProPLError
from propl_monai.inference.formats.registry import NAMES as FORMATS
from propl_monai.inference.formats.registry import find_formats
from propl_monai.inference.predict_folder import predict_paths
from propl_monai.inference.predictor import Predictor
from propl_monai.inference.shards import Shard

Check = Callable[[Path], dict[str, Any]]
KEPT = "nifti,yolo,cvat"  # need no extra
NAMES = ["a", "cine_frame_0001", "cine_frame_0002", "cine_frame_0003", "deep er/b (1)"]


def test_formats_beside_png_hold_the_same_masks(
    predictor: Predictor, images: Path, tmp_path: Path, check_run_json: Check
) -> None:
    out = tmp_path / "out"
    found = predict_paths(predictor, [images], out, ["LA", "TN"], formats="png," + KEPT, overlay=True)
    assert (found.done, found.pictures, found.code) == (3, 5, EXIT_OK)
    tasks = ("left_atrium", "thyroid_nodule")
    expected = {f"{name}_{kind}.png" for name in NAMES for kind in (*tasks, "overlay")}
    expected |= {f"{name}.txt" for name in NAMES}
    expected |= {f"{name}_{task}.nii.gz" for name in ("a", "cine", "deep er/b (1)") for task in tasks}
    assert set(content(out)) == expected | {"classes.txt", "annotations.xml"}
    for task in tasks:
        for name, frames in (("a", NAMES[:1]), ("cine", NAMES[1:4]), ("deep er/b (1)", NAMES[4:])):
            values = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(out / f"{name}_{task}.nii.gz")))
            masks = np.stack([pixels(out / f"{frame}_{task}.png") > 0 for frame in frames])
            np.testing.assert_array_equal(values.reshape(masks.shape), masks)
            assert masks.any()
    record = check_run_json(out / "run.json")
    assert record["options"]["formats"] == ["png", "nifti", "yolo", "cvat"]
    assert set(record["outputs"]) == {str(out / name) for name in expected | {"classes.txt", "annotations.xml"}}


def test_without_png_there_are_none_but_what_is_asked_for(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    predict_paths(predictor, [images / "a.png"], tmp_path / "out", "LA", formats=["yolo"], probability=True)
    assert set(content(tmp_path / "out")) == {"a.txt", "classes.txt", "a_left_atrium_probability.png"}


def test_a_second_run_skips_and_makes_the_files_of_the_folder_again(
    predictor: Predictor, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    predict_paths(predictor, [images], out, "LA", formats=KEPT)
    before = content(out)
    (out / "annotations.xml").unlink()
    found = predict_paths(predictor, [images], out, "LA", formats=KEPT)
    assert (found.done, found.skipped) == (0, 3) and content(out) == before
    (out / "cine_left_atrium.nii.gz").unlink()
    found = predict_paths(predictor, [images], out, "LA", formats=KEPT)
    assert (found.done, found.skipped) == (1, 2) and content(out) == before
    found = predict_paths(predictor, [images], out, "LA", formats="png")
    assert found.done == 3 and {*before} < {*content(out)}
    assert json.loads((out / "predictions.jsonl").read_text().splitlines()[-1])["options"].get("formats") is None


def test_a_file_that_was_cut_short_is_done_again(
    predictor: Predictor, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second file of three, a cine, stops at its labels; what is done is kept, and the end is that of one run."""
    predict_paths(predictor, [images], tmp_path / "whole", "LA", formats=KEPT)
    replace = os.replace

    def stop(source: Path, target: Path) -> None:
        if Path(target).name == "cine_frame_0002.txt":
            raise KeyboardInterrupt
        replace(source, target)

    out = tmp_path / "out"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "replace", stop)
        predict_paths(predictor, [images], out, "LA", formats=KEPT)
    assert (out / "cine_frame_0001.txt").is_file() and not (out / "annotations.xml").exists()
    found = predict_paths(predictor, [images], out, "LA", formats=KEPT)
    assert (found.done, found.skipped) == (2, 1) and content(out) == content(tmp_path / "whole")


def test_shards_have_their_own_files_and_the_whole_takes_them_over(
    predictor: Predictor, images: Path, tmp_path: Path
) -> None:
    predict_paths(predictor, [images], tmp_path / "once", "LA", formats=KEPT)
    out, parts = tmp_path / "out", [Shard(number, 2) for number in (1, 2)]
    for part in parts:
        predict_paths(predictor, [images], out, "LA", formats=KEPT, shard=part)
        assert (part.folder(out) / "annotations.xml").is_file()
    assert not (out / "annotations.xml").exists()
    assert predict_paths(predictor, [images], out, "LA", formats=KEPT).skipped == 3
    assert {name: one for name, one in content(out).items() if not name.startswith("shards")} == content(
        tmp_path / "once"
    )


def test_files_that_a_format_cannot_carry_are_named(
    predictor: Predictor, images: Path, tmp_path: Path, check_run_json: Check
) -> None:
    Image.fromarray(speckle(20, 31)).save(images / "classes.png")
    out = tmp_path / "out"
    found = predict_paths(predictor, [images], out, "LA", formats="yolo")
    assert (found.done, found.refused, found.code) == (3, 1, EXIT_PARTIAL)
    (finding,) = check_run_json(out / "run.json")["findings"]
    assert Path(finding["path"]).name == "classes.png" and "would overwrite classes.txt" in finding["message"]


def test_a_cine_that_is_too_long_for_one_file_is_refused_and_the_rest_is_done(
    predictor: Predictor, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check_run_json: Check
) -> None:
    monkeypatch.setattr("propl_monai.inference.formats.masks.MOST_VALUES", 20 * 31)
    out = tmp_path / "out"
    found = predict_paths(predictor, [images], out, "LA", formats="nifti")
    assert (found.done, found.refused, found.code) == (2, 1, EXIT_PARTIAL)
    (finding,) = check_run_json(out / "run.json")["findings"]
    assert "its masks hold 1,056 values, more than 620 in one file; cut the cine" in finding["message"]


def test_names_as_odd_as_a_disk_allows(predictor: Predictor, tmp_path: Path) -> None:
    """Not UTF-8, quotes, a line break, an emoji, and the name of a result of another file."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    names = ["a\udce9", "<b>&\"'", "c\nd", "😀", "a", "a_left_atrium", "coco", "-x"]
    for name in names:
        Image.fromarray(speckle(12, 13)).save(folder / f"{name}.png")
    for _ in range(2):
        found = predict_paths(predictor, [folder], out, "LA", formats=KEPT)
        assert found.done + found.skipped == len(names) and found.code == EXIT_OK
    assert all((out / f"{name}.txt").is_file() and (out / f"{name}_left_atrium.nii.gz").is_file() for name in names)


def test_all_that_need_the_extra(predictor: Predictor, tmp_path: Path, check_run_json: Check) -> None:
    for one in find_formats(FORMATS):
        pytest.importorskip(one.package or "json")
    study = {
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.5",
        "PatientName": "Doe^Jane",
        "PixelSpacing": [0.5, 0.25],
    }
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    Image.fromarray(speckle(20, 31)).save(folder / "a.png")
    save_dicom(folder / "heart.dcm", np.stack([speckle(16, 22, seed) for seed in (2, 3)]), **study)
    found = predict_paths(predictor, [folder], out, ["LA", "LV"], formats="png,nrrd,coco,dicom-seg")
    assert (found.done, found.refused, found.code) == (1, 1, EXIT_PARTIAL)
    (finding,) = check_run_json(out / "run.json")["findings"]
    assert "is no DICOM file, which a DICOM SEG refers to" in finding["message"]
    assert {name for name in content(out) if not name.endswith(".png")} == {
        "heart.seg.nrrd",
        "heart.seg.dcm",
        "coco.json",
    }
    image = SimpleITK.ReadImage(str(out / "heart.seg.nrrd"))
    assert image.GetSize() == (22, 16, 2) and image.GetSpacing() == (0.25, 0.5, 1)
    made = dcmread(out / "heart.seg.dcm")
    assert (made.NumberOfFrames, made.Rows, made.Columns, made.PatientName) == (4, 16, 22, "Doe^Jane")
    coco = json.loads((out / "coco.json").read_text())
    assert [one["file_name"] for one in coco["images"]] == ["heart_frame_0001.png", "heart_frame_0002.png"]
    assert sum(one["area"] for one in coco["annotations"]) == sum(
        int((pixels(path) > 0).sum()) for path in out.glob("heart_frame_*.png")
    )
    others = [path for path in out.rglob("*") if path.is_file() and path.name != "heart.seg.dcm"]
    assert not [path for path in others if b"Doe" in path.read_bytes()]  # the SEG alone names the patient


def test_the_option(tmp_path: Path) -> None:
    bundle, out = write_small_bundle(tmp_path / "bundle"), tmp_path / "out"
    Image.fromarray(speckle(20, 31)).save(tmp_path / "a.png")
    words = ["predict", str(tmp_path / "a.png"), "-o", str(out), "-t", "LA", "--bundle", str(bundle)]
    done = CliRunner().invoke(app, [*words, "--format", "yolo,cvat", "--format", "nifti"])
    assert done.exit_code == EXIT_OK, done.output
    assert set(content(out)) == {"a.txt", "classes.txt", "annotations.xml", "a_left_atrium.nii.gz"}
    done = CliRunner().invoke(app, [*words, "--format", "nii"])
    assert isinstance(done.exception, ProPLError) and "unknown format 'nii'" in str(done.exception)
    assert done.exception.exit_code == EXIT_BAD_INPUT


def test_an_unknown_format_is_refused_before_anything_is_written(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match="--format: unknown format 'gif'"):
        predict_paths(small_predictor(), [images], tmp_path / "out", "LA", formats="gif")
    assert not (tmp_path / "out").exists()
