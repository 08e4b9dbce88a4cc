"""DICOM SEG, its pixels decoded here and its elements read by pydicom, and checked by dciodvfy where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_samples import TASKS, drawn, filled, written
from picture_samples import MOVING, save_dicom, save_pillow
from pydicom import Dataset, dcmread, uid
from pydicom.sr.codedict import codes

from propl_monai import tasks as registry
from propl_monai.errors import ProPLError
from propl_monai.images import read_frames
from propl_monai.inference.formats.dicom_seg import TARGETS
from propl_monai.inference.formats.registry import find_format

pytest.importorskip("highdicom")
SEG = find_format("dicom-seg")
STUDY: dict[str, Any] = {
    **{"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.5", "SeriesNumber": 7, "StudyDate": "20260102"},
    **{"StudyTime": "101112", "StudyID": "1", "PatientName": "Doe^Jane", "PatientID": "J7", "PatientSex": "F"},
    **{"PatientBirthDate": "19700101", "AccessionNumber": "A1", "ReferringPhysicianName": "", "BodyPartExamined": "BREAST"},
}  # fmt: skip


def source(path: Path, frames: np.ndarray, **elements: Any) -> Path:
    """A DICOM file of ultrasound, a cine unless it holds one frame."""
    still = {"SOPClassUID": uid.UltrasoundImageStorage} if len(frames) == 1 else {"FrameTime": 40}
    return save_dicom(path, (frames[:, 0] * 200).astype(np.uint8), **{**STUDY, **still, **elements})


def segmented(path: Path, frames: np.ndarray, folder: Path) -> Path:
    (found,) = written(SEG.files(filled(path, frames, spacing_mm=read_frames(path).spacing_mm, name="a")), folder)
    return found


def decoded(made: Dataset) -> dict[tuple[str, int], np.ndarray]:
    """Bool (H, W) for each label and number of the source's frame."""
    count, pixels = int(made.NumberOfFrames), made.Rows * made.Columns
    bits = np.unpackbits(np.frombuffer(made.PixelData, np.uint8), bitorder="little")[: count * pixels]
    labels = {segment.SegmentNumber: segment.SegmentLabel for segment in made.SegmentSequence}
    shared = made.SharedFunctionalGroupsSequence[0]
    found = {}
    for group, mask in zip(
        made.PerFrameFunctionalGroupsSequence, bits.reshape(count, made.Rows, made.Columns), strict=True
    ):
        reference = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert reference.ReferencedSOPInstanceUID == "1.2.3.4"
        number = int(reference.get("ReferencedFrameNumber", 1))
        segment = group.get("SegmentIdentificationSequence", shared.get("SegmentIdentificationSequence"))[0]
        assert list(group.FrameContentSequence[0].DimensionIndexValues) == [segment.ReferencedSegmentNumber, number]
        found[labels[segment.ReferencedSegmentNumber], number] = mask > 0
    return found


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("tasks", [TASKS, TASKS[:1]])
def test_masks_and_references(count: int, tasks: tuple[str, ...], tmp_path: Path) -> None:
    frames = drawn(count, tasks)
    path = source(tmp_path / "a.dcm", frames, PixelSpacing=[0.5, 0.25])
    masks = filled(path, frames, tasks, name="a", spacing_mm=(0.5, 0.25))
    (place,) = written(SEG.files(masks), tmp_path)
    assert place.name == "a.seg.dcm"
    made = dcmread(place)
    assert made.SOPClassUID == uid.SegmentationStorage and made.SegmentationType == "BINARY"
    found = decoded(made)
    assert len(found) == made.NumberOfFrames == count * len(tasks)
    for index, task in enumerate(tasks):
        for number in range(count):
            np.testing.assert_array_equal(found[registry.find(task).name, number + 1], frames[number, index])
    for name in ("StudyInstanceUID", "PatientName", "PatientID", "StudyDate", "AccessionNumber", "BodyPartExamined"):
        assert made[name].value == STUDY[name]
    assert made.SeriesInstanceUID != STUDY["SeriesInstanceUID"] and made.SeriesNumber == 1007
    assert made.ReferencedSeriesSequence[0].SeriesInstanceUID == STUDY["SeriesInstanceUID"]
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"
    assert made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing == [0.5, 0.25]
    assert made.SegmentsOverlap == ("YES" if len(tasks) > 1 else "NO")


def test_what_a_source_says_of_side_and_frame_of_reference_is_kept(tmp_path: Path) -> None:
    frames = drawn(1)
    plain = dcmread(segmented(source(tmp_path / "a.dcm", frames), frames, tmp_path))
    assert "FrameOfReferenceUID" not in plain
    assert "PixelMeasuresSequence" not in plain.SharedFunctionalGroupsSequence[0]
    assert not any("AnatomicRegionModifierSequence" in str(segment) for segment in plain.SegmentSequence)
    more = {"Laterality": "L", "FrameOfReferenceUID": "1.2.9", "SliceThickness": 2, "PixelSpacing": [0.5, 0.25]}
    made = dcmread(segmented(source(tmp_path / "a.dcm", frames, **more), frames, tmp_path))
    assert made.FrameOfReferenceUID == "1.2.9"
    measures = made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert (measures.PixelSpacing, measures.SliceThickness) == ([0.5, 0.25], 2)
    breast = made.SegmentSequence[2].AnatomicRegionSequence[0]
    assert (breast.CodeMeaning, breast.AnatomicRegionModifierSequence[0].CodeMeaning) == ("Breast", "Left")


def test_names_codes_and_colours(tmp_path: Path) -> None:
    """Every code is one of pydicom's own dictionary; colours come back from CIELab to 2 of 255."""
    skimage_color = pytest.importorskip("skimage.color")
    frames = np.ones((1, len(registry.TASKS), 4, 6), bool)
    masks = filled(source(tmp_path / "a.dcm", frames), frames, registry.NAMES, name="a")
    (path,) = written(SEG.files(masks), tmp_path)
    known = {(code.value, code.meaning.lower()) for code in map(codes.SCT.__getattr__, codes.SCT.dir())}
    for task, segment in zip(registry.TASKS, dcmread(path).SegmentSequence, strict=True):
        assert segment.SegmentLabel == task.name
        items = [segment.SegmentedPropertyCategoryCodeSequence[0], segment.SegmentedPropertyTypeCodeSequence[0]]
        items += segment.get("AnatomicRegionSequence", [])
        assert [f"{item.CodeValue} {item.CodeMeaning}" for item in items] == [
            text for text in TARGETS[task.name] if text
        ]
        assert {(item.CodeValue, item.CodeMeaning.lower()) for item in items} <= known
        scaled = np.array(segment.RecommendedDisplayCIELabValue) / 65535
        lab = scaled * (100, 255, 255) - (0, 128, 128)
        assert np.abs(skimage_color.lab2rgb(lab, illuminant="D65") * 255 - task.colour).max() < 2


def test_a_task_that_a_user_added_has_a_code_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_added", {})
    added = registry.add(registry.new_task("carotid lumen"))
    frames = np.ones((1, 1, 4, 6), bool)
    (path,) = written(SEG.files(filled(source(tmp_path / "a.dcm", frames), frames, [added.name], name="a")), tmp_path)
    (segment,) = dcmread(path).SegmentSequence
    kind = segment.SegmentedPropertyTypeCodeSequence[0]
    assert (segment.SegmentLabel, kind.CodeMeaning) == ("carotid lumen", "carotid lumen")
    assert (kind.CodingSchemeDesignator, kind.CodeValue) == ("99PROPL", "CL")
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Anatomical Structure"


@pytest.mark.parametrize(
    "kind", ["1.2.840.10008.5.1.4.1.1.6", "1.2.840.10008.5.1.4.1.1.3", uid.SecondaryCaptureImageStorage, "1.2.3.99"]
)
def test_retired_and_private_classes(kind: str, tmp_path: Path) -> None:
    frames = drawn(1)
    made = dcmread(segmented(source(tmp_path / "a.dcm", frames, SOPClassUID=kind), frames, tmp_path))
    group = made.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    named = [made.SourceImageSequence[0], made.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0], group]
    assert [one.ReferencedSOPClassUID for one in named] == [kind] * 3
    assert len(decoded(made)) == 3


def test_what_is_refused(tmp_path: Path) -> None:
    png = save_pillow(tmp_path / "a.png", MOVING[0])
    with pytest.raises(
        ProPLError, match=r"a.png: is no DICOM file, which a DICOM SEG refers to; leave it out, or write another"
    ):
        SEG.check(png, "a")
    for name in ("StudyInstanceUID", "SeriesInstanceUID"):
        path = save_dicom(tmp_path / "a.dcm", MOVING, **{**STUDY, name: None})
        with pytest.raises(ProPLError, match=f"a.dcm: has no {name}, which a DICOM SEG refers to"):
            SEG.check(path, "a")


def test_a_file_without_preamble_and_without_patient(tmp_path: Path) -> None:
    frames = drawn(1)
    path = source(tmp_path / "a.dcm", frames)
    bare = dcmread(path)
    for name in STUDY:
        if not name.endswith("UID"):
            del bare[name]
    bare.save_as(path)
    path.write_bytes(path.read_bytes()[132:])
    made = dcmread(segmented(path, frames, tmp_path / "out"))
    assert made.PatientName == "" and len(decoded(made)) == 3


def test_messages_quote_no_patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = drawn(1)
    path = source(tmp_path / "a.dcm", frames)

    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise ValueError("Doe^Jane")

    monkeypatch.setattr(SEG, "require", Broken)
    with pytest.raises(ProPLError, match=r"no segmentation can be made of \(ValueError\)") as caught:
        SEG.files(filled(path, frames, name="a"))
    assert caught.value.__cause__ is None and caught.value.__context__ is None


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy of dicom3tools is not installed")
@pytest.mark.parametrize(
    "more", [{}, {"FrameOfReferenceUID": "1.2.9"}, {"Laterality": "R", "PixelSpacing": [0.5, 0.25]}]
)
@pytest.mark.parametrize("count", [1, 3])
def test_dciodvfy_finds_no_fault(count: int, more: dict[str, Any], tmp_path: Path) -> None:
    frames = drawn(count)
    path = segmented(source(tmp_path / "a.dcm", frames, **more), frames, tmp_path)
    done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True)
    lines = (done.stdout + done.stderr).splitlines()
    assert not [line for line in lines if line.startswith(("Error", "Warning"))] and "Segmentation" in "".join(lines)
