"""A DICOM cine with identifiers of a patient in every kind of element, and the marks to look for in outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from picture_samples import MOVING, dicom, raw, region
from pydicom import dcmwrite, uid

SECRETS = {
    "PatientName": "Zyxwv^Quentin",
    "PatientID": "PID-778899",
    "PatientBirthDate": "19431231",
    "OtherPatientNames": "Hidden^Alias",
    "StudyDate": "20210203",
    "StudyDescription": "SECRETSTUDY",
    "SeriesDescription": "SECRETSERIES",
    "InstitutionName": "SECRETHOSPITAL",
    "ReferringPhysicianName": "Doctor^Secretive",
    "AccessionNumber": "ACC554433",
    "StudyInstanceUID": "1.2.840.99999.77.1",
    "SeriesInstanceUID": "1.2.840.99999.77.2",
    "ImageComments": "SECRETCOMMENT",
    "DeviceSerialNumber": "SERIAL0815",
}
MARKS = (
    *(
        "Zyxwv",
        "Quentin",
        "PID-77",
        "19431231",
        "Hidden",
        "20210203",
        "SECRET",
        "Secretive",
        "ACC55",
        "99999",
        "SERIAL",
    ),
    "PRIVATE-0421",
)


def private(path: Path, spoil: dict[str, Any]) -> Path:
    """A file with identifiers in many elements, in a private one, in a region, and where numbers are expected."""
    made = dicom(MOVING, "MONOCHROME2", uid.ExplicitVRLittleEndian, **SECRETS)
    made.private_block(0x0011, "PRIVATE-0421 MAKER", create=True).add_new(1, "LO", "PRIVATE-0421")
    item = region(1, 0.05, 0.025)
    item.PatientComments = "SECRETREGION"
    made.SequenceOfUltrasoundRegions = [item]
    made.PixelData = raw(MOVING, "MONOCHROME2")
    for name, value in spoil.items():
        vr, content = value
        made.add_new(name, vr, content)
    made["PixelData"].VR = "OB"
    dcmwrite(path, made, enforce_file_format=True)
    return path


SPOILS: dict[str, dict[str, Any]] = {
    "a whole file": {},
    "rows": {"Rows": ("LO", "SECRETROWS")},
    "frames": {"NumberOfFrames": ("LO", "SECRETFRAMES")},
    "colours": {"PhotometricInterpretation": ("LO", "SECRETCOLOURS")},
    "spacing": {"PixelSpacing": ("LO", "SECRETSPACING"), "SequenceOfUltrasoundRegions": ("LO", "SECRETREGIONS")},
    "time": {"FrameTime": ("LO", "SECRETTIME")},
    "window": {"WindowCenter": ("LO", "SECRETCENTRE"), "WindowWidth": ("LO", "SECRETWIDTH")},
    "cut": {},
}
