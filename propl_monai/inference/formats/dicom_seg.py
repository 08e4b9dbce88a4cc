"""DICOM SEG (binary Segmentation Storage) through highdicom: one multi-frame file for each input, all tasks and frames.

highdicom builds the file for one frame; the other frames of a cine are added here, as highdicom joins frames only where
they have positions in the patient, which ultrasound has not. Every frame refers to the frame of the source that it was drawn
on; empty ones are kept. Standard: DICOM PS3.3, A.51 and C.8.20.

As the standard asks, patient and study are those of the source: unlike all other results, this file names the patient.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage, UltrasoundMultiFrameImageStorage

from propl_monai import __version__
from propl_monai.common.files import true_type
from propl_monai.common.spacing import Spacing
from propl_monai.errors import ProPLError
from propl_monai.images.dicom_header import silence, with_preamble
from propl_monai.inference.formats.base import Format
from propl_monai.inference.formats.masks import Masks
from propl_monai.tasks import Task

# What each target is: category, type, and the organ where the type does not say it (SNOMED CT; PS3.16, CID 7150 and 7151).
_STRUCTURE, _ABNORMAL = "91723000 Anatomical Structure", "49755003 Morphologically Abnormal Structure"
TARGETS: dict[str, tuple[str, str, str]] = {
    "breast cancer": (_ABNORMAL, "108369006 Neoplasm", "76752008 Breast"),
    "fetal head": (_STRUCTURE, "69536005 Head", ""),
    "left atrium": (_STRUCTURE, "82471001 Left atrium", ""),
    "left ventricle": (_STRUCTURE, "87878005 Left ventricle", ""),
    "myocardium": (_STRUCTURE, "49848007 Left Ventricle Myocardium", ""),
    "ovarian tumor": (_ABNORMAL, "108369006 Neoplasm", "15497006 Ovary"),
    "thyroid gland": (_STRUCTURE, "69748006 Thyroid", ""),
    "thyroid nodule": (_ABNORMAL, "27925004 Nodule", "69748006 Thyroid"),
}
_OWN = "99PROPL"  # scheme of codes that no dictionary has, those of added tasks; its name as PS3.3, 8.2 asks
_SIDES = {"L": "7771000 Left", "R": "24028007 Right"}  # CID 244
_LEARNED = "123110 Artificial Intelligence"  # a family of algorithms (CID 7162)
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_MAY_BE_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("AccessionNumber", "ReferringPhysicianName"),
)
_PLACES = (  # ultrasound has no position in the patient; highdicom would ask for more of it than is there
    *("ImagePositionPatient", "ImageOrientationPatient", "SharedFunctionalGroupsSequence"),
    *("PerFrameFunctionalGroupsSequence", "DimensionIndexSequence", "DimensionOrganizationSequence"),
)
_SERIES = 1000  # numbers of series of segmentations begin behind those of scanners


class DicomSeg(Format):
    """`NAME.seg.dcm`."""

    name, package = "dicom-seg", "highdicom"

    def check(self, path: Path, name: str) -> None:
        """Refuse what is no DICOM file, or lacks the identifiers that a segmentation refers to."""
        _source(path)

    def files(self, masks: Masks) -> dict[str, bytes]:
        """See the module."""
        masks.require_room()
        source = _source(masks.path)
        with silence():
            try:
                made = _first_frame(self.require(), source, masks)
                _add_frames(made, masks)
                buffer = io.BytesIO()
                made.save_as(buffer)
                return {f"{masks.name}.seg.dcm": buffer.getvalue()}
            except Exception as error:  # not chained, as it may quote a patient
                name = type(error).__name__
        fact = f"is a DICOM file that no segmentation can be made of ({name})"
        raise ProPLError(masks.path, fact, "look at its patient and study elements, or write another --format")


def _source(path: Path) -> Dataset:
    """All elements but the pixel data."""
    if true_type(path) != "a DICOM file":
        fact = "is no DICOM file, which a DICOM SEG refers to"
        raise ProPLError(path, fact, "leave it out, or write another --format, such as nrrd")
    found = Dataset()
    with silence(), path.open("rb") as stream:
        try:
            whole = with_preamble(path, stream)
            whole.seek(0)
            found = dcmread(whole, stop_before_pixels=True)
            missing = [name for name in _UIDS if not found.get(name)]
        except Exception:  # not chained, as it may quote a patient
            missing = list(_UIDS)
    if missing:
        fact = f"has no {missing[0]}, which a DICOM SEG refers to"
        raise ProPLError(path, fact, "export it again with its identifiers, or write another --format, such as nrrd")
    return found


def _first_frame(highdicom: Any, source: Dataset, masks: Masks) -> Dataset:
    """The segmentation of the first frame."""
    still = copy.deepcopy(source)
    for name in _PLACES:
        still.pop(name, None)
    for name in _MAY_BE_EMPTY:
        if name not in still:
            setattr(still, name, "")
    # highdicom knows no retired or private class, so the class of the source comes into the references afterwards.
    still.SOPClassUID = UltrasoundMultiFrameImageStorage if masks.count > 1 else UltrasoundImageStorage
    still.NumberOfFrames = 1
    measures = _measures(source, masks.spacing_mm)
    shared = Dataset()  # of a multi-frame file of today, where highdicom looks for a pixel size
    shared.PixelMeasuresSequence = measures or _measures(Dataset(), (1, 1))
    still.SharedFunctionalGroupsSequence = [shared]
    uid, side = highdicom.UID, str(source.get("ImageLaterality") or source.get("Laterality") or "")
    first = np.stack([next(iter(masks)).transpose(1, 2, 0)]).astype(np.uint8)  # (1, H, W, K)
    made: Dataset = highdicom.seg.Segmentation(
        source_images=[still],
        pixel_array=first,
        segmentation_type="BINARY",
        segment_descriptions=[_segment(highdicom, *one, side) for one in enumerate(masks.tasks, start=1)],
        series_instance_uid=uid(),
        series_number=_SERIES + int(source.get("SeriesNumber") or 0) % _SERIES,
        sop_instance_uid=uid(),
        instance_number=1,
        manufacturer="propl_monai",
        manufacturer_model_name="ProPL",
        software_versions=__version__,
        device_serial_number=__version__,
        content_label="PROPL",
        content_description="masks predicted by propl_monai",
        series_description="ProPL masks",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        pixel_measures=shared.PixelMeasuresSequence,
        omit_empty_frames=False,
    )
    for reference in _references(made):
        reference.ReferencedSOPClassUID = source.SOPClassUID
    if not measures:  # which highdicom cannot do without
        made.SharedFunctionalGroupsSequence[0].pop("PixelMeasuresSequence", None)
    made.PatientOrientation = source.get("PatientOrientation") or ""
    if source.get("BodyPartExamined"):
        made.BodyPartExamined = source.BodyPartExamined
    return made


def _references(made: Dataset) -> Iterator[Dataset]:
    """All places where the source is named."""
    yield from made.SourceImageSequence
    for series in made.ReferencedSeriesSequence:
        yield from series.ReferencedInstanceSequence
    for group in made.PerFrameFunctionalGroupsSequence:
        yield from group.DerivationImageSequence[0].SourceImageSequence


def _measures(source: Dataset, spacing_mm: Spacing | None) -> list[Dataset]:
    """The pixel size; none where it is unknown.

    None either in a frame of reference without a slice thickness, which the standard asks for there: the pixel size is that
    of the source, whose pixels each frame refers to.
    """
    thickness = source.get("SliceThickness")
    if spacing_mm is None or ("FrameOfReferenceUID" in source and not thickness):
        return []
    item = Dataset()
    item.PixelSpacing = [float(f"{length:.8g}") for length in spacing_mm]
    if thickness:
        item.SliceThickness = thickness
    return [item]


def _segment(highdicom: Any, number: int, task: Task, side: str) -> Any:
    category, kind, organ = TARGETS.get(task.name, (_STRUCTURE, "", ""))
    made = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=task.name,
        segmented_property_category=_code(category),
        segmented_property_type=_code(kind) if kind else _code(f"{task.code} {task.name}", _OWN),
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="ProPL", version=__version__, family=_code(_LEARNED, "DCM")
        ),
        anatomic_regions=[_code(organ)] if organ else None,
        display_color=highdicom.color.CIELabColor.from_rgb(*task.colour),
    )
    if organ and side in _SIDES:
        modifier = highdicom.sr.CodedConcept.from_code(_code(_SIDES[side]))
        made.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [modifier]
    return made


def _code(text: str, scheme: str = "SCT") -> Code:
    value, _, meaning = text.partition(" ")
    return Code(value, scheme, meaning)


def _add_frames(made: Dataset, masks: Masks) -> None:
    """All frames, task by task, instead of the first one, each with its number in the source."""
    tasks = len(masks.tasks)
    first = list(made.PerFrameFunctionalGroupsSequence)
    groups = []
    for index in range(tasks):
        for number in range(1, masks.count + 1):
            group = copy.deepcopy(first[index])
            content = group.FrameContentSequence[0]
            content.DimensionIndexValues = [index + 1, number]
            content.TemporalPositionIndex = number
            reference = group.DerivationImageSequence[0].SourceImageSequence[0]
            if masks.count > 1:
                reference.ReferencedFrameNumber = number
            groups.append(group)
    made.PerFrameFunctionalGroupsSequence = groups
    time = copy.deepcopy(made.DimensionIndexSequence[0])
    time.DimensionIndexPointer, time.FunctionalGroupPointer = 0x00209128, 0x00209111  # temporal position, frame content
    time.DimensionDescriptionLabel = "Temporal Position Index"
    made.DimensionIndexSequence = [made.DimensionIndexSequence[0], time]
    made.NumberOfFrames = tasks * masks.count
    made.SegmentsOverlap = "YES" if any((frame.sum(axis=0) > 1).any() for frame in masks) else "NO"
    made.PixelData = _bits(masks)


def _bits(masks: Masks) -> bytes:
    """All masks, task by task, one bit a pixel from the least significant on, without a gap between frames (PS3.5, 8.1.1)."""
    content, rest = bytearray(), np.zeros(0, bool)
    for index in range(len(masks.tasks)):
        for frame in masks:
            rest = np.concatenate([rest, frame[index].ravel()])
            whole = rest.size - rest.size % 8
            content += np.packbits(rest[:whole], bitorder="little").tobytes()
            rest = rest[whole:]
    content += np.packbits(rest, bitorder="little").tobytes()
    return bytes(content) + b"\0" * (len(content) % 2)
