"""Pictures and cines without masks: names by place, groups by folder or file, tasks from the user, faults as exclusions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from originals import camus
from originals import unlabelled as fake

from propl_monai.datasets.prepare import prepare
from propl_monai.datasets.sources.base import Reading
from propl_monai.datasets.sources.unlabelled import SOURCE
from propl_monai.errors import ProPLError
from propl_monai.images import write_picture

GROUPS = {
    "SCAN.jpg": "SCAN.jpg",
    "patient a__1": "patient a",
    "patient a__2": "patient a",
    "patient b__cine_frame001": "patient b",
    "patient b__cine_frame002": "patient b",
    "patient b__cine_frame003": "patient b",
    "patient b__cine_frame004": "patient b",
    "patient b__left__1": "patient b/left",
    "scan.png": "scan.png",
}


def groups(reading: Reading) -> dict[str, str]:
    return {record.name: record.group for record in reading.records}


def test_all_depths_and_the_frames_of_cines(tmp_path: Path) -> None:
    reading = SOURCE.open(fake.make(tmp_path), {"task": "LV"})
    assert groups(reading) == GROUPS
    assert list(groups(reading)) == sorted(GROUPS)
    assert all(record.masks == {"left ventricle": None} and record.split == "train" for record in reading.records)
    assert [(each.name, each.reason) for each in reading.excluded] == [
        ("notes.txt", "is not a picture or cine of a known type")
    ]
    assert reading.found == {"files": 6}


def test_each_record_reads_its_own_picture(tmp_path: Path) -> None:
    records = {record.name: record for record in SOURCE.open(fake.make(tmp_path), {"task": "LV"}).records}
    shown = {name: record.image() for name, record in records.items()}
    assert {picture.pixels.shape for picture in shown.values()} == {(fake.HEIGHT, fake.WIDTH)}
    values = {name: int(picture.pixels[0, 0]) for name, picture in shown.items()}
    assert (values["scan.png"], values["SCAN.jpg"]) == (10, 20)
    assert (values["patient a__1"], values["patient a__2"], values["patient b__left__1"]) == (30, 40, 50)
    assert [values[f"patient b__cine_frame00{number}"] for number in (1, 2, 3, 4)] == [1, 2, 3, 4]
    assert shown["patient b__cine_frame004"].spacing_mm == pytest.approx((0.2, 0.3))


def test_every_file_may_be_a_group_and_frames_be_skipped(tmp_path: Path) -> None:
    reading = SOURCE.open(fake.make(tmp_path), {"task": "LV", "group": "file", "every": "3"})
    made = groups(reading)
    assert [name for name in made if "frame" in name] == ["patient b__cine_frame001", "patient b__cine_frame004"]
    assert {made[name] for name in made if "frame" in name} == {"patient b__cine"}
    assert (made["patient a__1"], made["patient a__2"]) == ("patient a__1", "patient a__2")


def test_several_tasks_in_any_spelling(tmp_path: Path) -> None:
    fake.write_picture(tmp_path / "1.png", 1)
    record = SOURCE.open(tmp_path, {"task": "MD, left_ventricle,Left Atrium,LV"}).records[0]
    assert record.masks == {"myocardium": None, "left ventricle": None, "left atrium": None}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "option task: is not given"),
        ({"task": " "}, "option task: is not given"),
        ({"task": "LV,kidney"}, "unknown task 'kidney'"),
        ({"task": "LV", "group": "patient"}, "unknown value 'patient'"),
        ({"task": "LV", "every": "x"}, "'x' is not a whole number"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, str], says: str) -> None:
    with pytest.raises(ProPLError, match=says):
        SOURCE.open(fake.make(tmp_path), options)


def test_names_that_would_be_the_same_are_told_or_kept_apart(tmp_path: Path) -> None:
    fake.write_picture(tmp_path / "a" / "b.png", 1)
    fake.write_picture(tmp_path / "a__b.bmp", 2)
    fake.write_picture(tmp_path / "A__B.bmp", 3)
    fake.write_cine(tmp_path / "c.nii.gz")
    fake.write_picture(tmp_path / "c_frame002.png", 4)
    reading = SOURCE.open(tmp_path, {"task": "TN"})
    frames = [f"c_frame00{number}" for number in (1, 2, 3, 4)]
    assert [record.name for record in reading.records] == ["A__B.bmp", "a__b.png", *frames]
    assert {each.name: each.reason for each in reading.excluded} == {
        "a__b.bmp": "another file is named a__b.bmp too",
        "c_frame002.png": "another file is named c_frame002 too",
    }


def test_what_cannot_be_opened_is_left_out_with_the_reason(tmp_path: Path) -> None:
    folder = fake.make(tmp_path)
    (folder / "damaged.nii").write_bytes(b"<html>not found</html>")
    (folder / "patient a" / "3.tif").write_bytes(b"")
    (folder / "report").write_bytes(b"text without a suffix")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 3, 3), np.uint8), np.eye(4)), folder / "volumes.nii")
    reading = SOURCE.open(folder, {"task": "LV"})
    assert groups(reading) == GROUPS
    told = {each.name: each.reason for each in reading.excluded}
    assert set(told) == {"damaged.nii", "notes.txt", "patient a/3.tif", "report", "volumes.nii"}
    assert told["damaged.nii"] == "is an HTML page"
    assert told["patient a/3.tif"] == "is empty (0 bytes)"
    assert told["report"] == "is plain text"
    assert "shape (4, 4, 3, 3)" in told["volumes.nii"]
    faults = {each.name for each in reading.excluded if each.fault}
    assert faults == {"damaged.nii", "patient a/3.tif", "volumes.nii"}
    assert reading.found == {"files": 6}


@pytest.mark.parametrize("name", ["IM_0001", "1.2.840.113619.2.5"])
def test_dicom_files_need_no_suffix(tmp_path: Path, name: str) -> None:
    fake.write_dicom(tmp_path / "patient" / name, 70)
    (record,) = SOURCE.open(tmp_path, {"task": "LV"}).records
    assert (record.name, record.group) == (f"patient__{name}", "patient")
    np.testing.assert_array_equal(record.image().pixels, np.full((fake.HEIGHT, fake.WIDTH), 70))


def test_the_values_of_a_metaimage_go_with_its_header(tmp_path: Path) -> None:
    camus.write(tmp_path / "heart.mhd", np.stack([camus.picture(frame=frame) for frame in (1, 2, 3)]))
    reading = SOURCE.open(tmp_path, {"task": "LV", "every": "2"})
    assert groups(reading) == {"heart_frame001": "heart", "heart_frame003": "heart"}
    assert reading.excluded == ()
    np.testing.assert_array_equal(reading.records[1].image().pixels, camus.picture(frame=3))


def test_results_and_masks_are_passed_over_and_told(tmp_path: Path) -> None:
    fake.write_picture(tmp_path / "scans" / "1.png", 1)
    fake.write_picture(tmp_path / "masks_la" / "scans" / "1" / "LA.png", 2)
    (tmp_path / "masks_la" / "predictions.jsonl").write_text("{}\n")
    fake.write_picture(tmp_path / "prepared" / "BUSI" / "masks" / "BC" / "1.png", 3)
    (tmp_path / "prepared" / "BUSI" / "run.json").write_text('{"verb": "prepare"}')
    fake.write_picture(tmp_path / "own" / "images" / "2.png", 4)
    fake.write_picture(tmp_path / "own" / "masks" / "2.png", 5)
    reading = SOURCE.open(tmp_path, {"task": "LA"})
    assert list(groups(reading)) == ["own__images__2", "scans__1"]
    assert {each.name: each.reason for each in reading.excluded} == {
        "masks_la": "is passed over, as it holds results of an earlier prediction",
        "prepared/BUSI": "is passed over, as it holds prepared pictures and masks",
        "own/masks": "is passed over, as it holds masks",
    }
    assert not any(each.fault for each in reading.excluded)
    with pytest.raises(ProPLError, match=r"masks_la: is passed over, .*; name the folder of the original pictures"):
        SOURCE.open(tmp_path / "masks_la", {"task": "LA"})


def test_an_exam_holds_more_than_pictures(tmp_path: Path) -> None:
    fake.write_dicom(tmp_path / "exam" / "IM_0001.dicom", 70)
    fake.write_dicom(tmp_path / "exam" / "report.dcm", 70)
    report = pydicom.dcmread(tmp_path / "exam" / "report.dcm")
    del report.PixelData
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID = pydicom.uid.ComprehensiveSRStorage
    report.save_as(tmp_path / "exam" / "report.dcm")
    meta = b"\x02\x00\x02\x00UI\x14\x001.2.840.10008.1.3.10"
    (tmp_path / "exam" / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + meta + bytes(400))
    fake.write_picture(tmp_path / "exam" / "phone.jfif.png", 9)
    (tmp_path / "exam" / "phone.jfif.png").rename(tmp_path / "exam" / "phone.jfif")
    reading = SOURCE.open(tmp_path, {"task": "LV"})
    assert list(groups(reading)) == ["exam__IM_0001", "exam__phone"]
    assert {each.name for each in reading.excluded} == {"exam/report.dcm", "exam/DICOMDIR"}
    assert not any(each.fault for each in reading.excluded)


def test_files_of_other_types_are_counted_by_suffix(tmp_path: Path) -> None:
    fake.write_picture(tmp_path / "set" / "1.png", 1)
    for name in ("a.txt", "b.txt", "c.heic"):
        (tmp_path / "set" / name).write_text("x")
    made = prepare("unlabelled", tmp_path / "set", tmp_path / "out" / "list.json", {"task": "LV"})
    assert "left out: 3 (is not a picture or cine of a known type: 2 .txt, 1 .heic)" in made.report().splitlines()


def test_a_link_that_leads_upwards_is_not_followed(tmp_path: Path) -> None:
    fake.write_picture(tmp_path / "a" / "1.png", 1)
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert list(groups(SOURCE.open(tmp_path, {"task": "LV"}))) == ["a__1"]


def test_a_link_to_a_folder_is_told_and_not_followed(tmp_path: Path) -> None:
    fake.write_picture(tmp_path / "set" / "scan.png", 10)
    (tmp_path / "set" / "upwards").symlink_to(tmp_path, target_is_directory=True)
    reading = SOURCE.open(tmp_path / "set", {"task": "LV"})
    assert list(groups(reading)) == ["scan"]
    assert [(each.name, each.reason) for each in reading.excluded] == [
        ("upwards", "is a link to a folder, which is not followed")
    ]


def test_what_the_disk_keeps_from_being_listed_is_told(tmp_path: Path) -> None:
    def closed(folder: Path) -> Reading:
        raise PermissionError(13, "Permission denied", str(folder / "inner"))

    with pytest.raises(ProPLError, match=r"inner: cannot be read \(Permission denied\); check its permissions"):
        replace(SOURCE, read=closed).open(tmp_path)


def test_masks_among_the_pictures_are_not_learned_from(tmp_path: Path) -> None:
    fake.write_picture(tmp_path / "in" / "1.png", 1)
    noise = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
    write_picture(tmp_path / "in" / "2.png", noise)
    write_picture(tmp_path / "in" / "2_mask.png", (noise > 99) * np.uint8(255))
    made = prepare("unlabelled", tmp_path / "in", tmp_path / "out" / "list.json", {"task": "BC"})
    assert [case.case_id for case in made.datalist.cases] == ["BC/unlabelled/1", "BC/unlabelled/2"]
    (problem,) = made.refused
    assert problem.where.endswith("2_mask.png") and problem.fact == "holds two values only, as a mask does"


def test_cases_of_an_earlier_run_that_are_replaced_are_told(tmp_path: Path) -> None:
    for name in ("hearts/1", "hearts/2", "glands/1"):
        fake.write_picture(tmp_path / f"{name}.png", 1)
    output = tmp_path / "out" / "list.json"
    for _ in range(2):
        assert "replaced" not in prepare("unlabelled", tmp_path / "hearts", output, {"task": "LA"}).report()
    told = prepare("unlabelled", tmp_path / "glands", output, {"task": "TG"}).report()
    assert "replaced: 2 cases of an earlier run are gone, such as LA/unlabelled/1" in told
