"""CAMUS: apical two- and four-chamber views at end-diastole and end-systole, with one label map of three structures.

Two forms of the same 500 patients are in use, and both are read:

* the challenge's: `training/patient0001/patient0001_2CH_ED.mhd` (+ `.raw`, `_gt.mhd`), 450 patients, and `testing/`, 50
  patients without label maps;
* that of 2023: `database_nifti/patient0001/patient0001_2CH_ED.nii.gz` (+ `_gt.nii.gz`), and `database_split/` beside it.

Pictures have the same names in both, so that lists of names fit both; the older form was not at hand to compare pixels. Only
the numbers of `testing/` start again at 1: those patients get the prefix `testing_`, as it is not known which of the 500 they
are in the form of 2023. Never put both forms into one datalist.

`Info_2CH.cfg` holds lines such as `ED: 1`, `ES: 18`, `NbFrame: 18`, `ImageQuality: Good`; frames count from 1. In NIfTI
the axes are (width, height), which `propl_monai.images` turns. Pixels are anisotropic, 0.308 x 0.154 mm in the challenge's
form, and the spacing is taken from each file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from propl_monai.datasets.sources.base import Exclusion, Reading, Record, Source, choice
from propl_monai.datasets.sources.camus_split import PATIENT, PATIENTS, official_splits
from propl_monai.datasets.sources.cines import parse_every, read_frame
from propl_monai.datasets.sources.listing import find_folders, glance, left_out, visible
from propl_monai.errors import ProPLError
from propl_monai.images import Picture, read_frames, read_image, read_values

NAME = "CAMUS"
# The ventricle is its cavity, the inside of the endocardium.
LABELS = {"left atrium": 3, "left ventricle": 1, "myocardium": 2}
VIEWS = ("2CH", "4CH")
PHASES = ("ED", "ES")
SEQUENCES = ("none", "unlabelled", "labelled")
QUALITIES = ("keep", "drop")
_FILE = re.compile(r"(patient\d{4})_([24]CH)_((?:ED|ES|sequence|half_sequence)(?:_gt)?)\.(?:nii\.gz|nii|mhd)", re.ASCII)
_Files = dict[tuple[str, str], Path]
_COMPANION = re.compile(r"Info_[24]CH\.cfg|.+\.z?raw", re.ASCII)


@dataclass(frozen=True)
class _Patient:
    """One patient's folder; `name` is unique in the source, `number` (patient0001) is what its files start with."""

    folder: Path
    name: str
    split: str | None
    label_maps_published: bool

    @property
    def number(self) -> str:
        return self.folder.name


def read_camus(folder: Path, *, sequences: str = "none", every: str = "1", poor_quality: str = "keep") -> Reading:
    """List CAMUS in either form.

    Args:
        folder: of the download, above it (two levels at most), or the one that holds the patients' folders.
        sequences: "unlabelled" adds the frames of each (half) sequence between end-diastole and end-systole without masks,
            as `patient0001_2CH_frame003`; "labelled" with the masks of `_half_sequence_gt` where there is one.
        every: keep the first of these frames, and every n-th after it.
        poor_quality: "drop" leaves out views whose `ImageQuality` is Poor, or missing.
    """
    choice(NAME, "sequences", sequences, SEQUENCES)
    choice(NAME, "poor_quality", poor_quality, QUALITIES)
    step = parse_every(NAME, every)
    # Resolved, as the names of a home and its parent count.
    homes = list(find_folders(folder.resolve(), lambda place: any(map(_is_patient, visible(place)))))
    if not homes:
        fact = f"holds no patient's folder such as patient0001 (looked in it, and two levels down: {glance(folder)})"
        raise ProPLError(folder, fact, "name the folder that holds training/ and testing/, or database_nifti/")
    patients = [patient for home in homes for patient in _patients(home)]
    first: dict[str, _Patient] = {}
    for patient in patients:
        if first.setdefault(patient.name, patient) is not patient:
            fact = f"holds {patient.name} twice, in {first[patient.name].folder.parent} and {patient.folder.parent}"
            raise ProPLError(folder, fact, "name one of these two folders")
    others = (entry for home in homes for entry in visible(home) if not _is_patient(entry))
    listed: list[Record | Exclusion] = [left_out(entry, "is not a patient's folder") for entry in others]
    kinds: Counter[str] = Counter()
    for patient in patients:
        files, strays = _files(patient)
        kinds.update(kind for _, kind in files)
        listed += strays
        for view in VIEWS:
            own = {kind: path for (of_view, kind), path in files.items() if of_view == view}
            info = _read_info(patient.folder / f"Info_{view}.cfg")
            quality = info.get("ImageQuality", "not given").lower()
            found = [*_read_stills(patient, view, own)]
            if own and sequences != "none":
                found += _read_sequence(patient, view, own, info, labelled=sequences == "labelled", step=step)
            if poor_quality == "drop" and quality in ("poor", "not given"):
                reason = f"image quality is {quality}"
                found = [Exclusion(each.name, reason) if isinstance(each, Record) else each for each in found]
            listed += found
    # Counted before any option drops something.
    pictures, label_maps = (sum(kinds[phase + suffix] for phase in PHASES) for suffix in ("", "_gt"))
    return Reading.of(listed, {"patients": len(patients), "pictures": pictures, "label maps": label_maps})


def _is_patient(entry: Path) -> bool:
    return bool(PATIENT.fullmatch(entry.name)) and entry.is_dir()


def _patients(home: Path) -> Iterator[_Patient]:
    testing = home.name.lower() == "testing"
    splits = {} if testing else official_splits(home.parent / "database_split")
    for entry in visible(home):
        if _is_patient(entry) and testing:
            yield _Patient(entry, f"testing_{entry.name}", "test", label_maps_published=False)
        elif _is_patient(entry):
            yield _Patient(entry, entry.name, splits.get(entry.name), label_maps_published=True)


def _files(patient: _Patient) -> tuple[_Files, list[Exclusion]]:
    """The files of a patient by view and kind, such as ("2CH", "ED_gt")."""
    files: _Files = {}
    excluded = []
    for entry in visible(patient.folder):
        match = _FILE.fullmatch(entry.name)
        if match and match[1] == patient.number:
            if files.setdefault((match[2], match[3]), entry) is not entry:
                excluded.append(Exclusion(f"{patient.name}/{entry.name}", "is there a second time in another format"))
        elif not _COMPANION.fullmatch(entry.name):
            excluded.append(Exclusion(f"{patient.name}/{entry.name}", "is no file of CAMUS's layout"))
    return files, excluded


def _read_sequence(
    patient: _Patient, view: str, files: Mapping[str, Path], info: Mapping[str, str], labelled: bool, step: int
) -> Iterator[Record | Exclusion]:
    kind = next((kind for kind in ("half_sequence", "sequence") if kind in files), None)
    if kind is None:
        yield Exclusion(f"{patient.name}_{view}_sequence", "its sequence is missing")
        return
    labels = files.get(f"{kind}_gt") if labelled else None
    try:
        numbers = _frames_between(files[kind], labels, info)
    except ProPLError as problem:
        yield Exclusion(f"{patient.name}_{view}_{kind}", problem.fact, fault=True)
        return
    for number in numbers[::step]:
        name = f"{patient.name}_{view}_frame{number:03d}"
        yield _record(patient, name, partial(read_frame, files[kind], number), labels, number)


def _read_stills(patient: _Patient, view: str, files: Mapping[str, Path]) -> Iterator[Record | Exclusion]:
    for phase in PHASES:
        name = f"{patient.name}_{view}_{phase}"
        picture, labels = files.get(phase), files.get(f"{phase}_gt")
        if picture and (labels or not patient.label_maps_published):
            yield _record(patient, name, partial(read_image, picture), labels)
        elif picture:
            yield Exclusion(name, "its label map is missing")
        elif labels:
            yield Exclusion(name, "its picture is missing")


def _frames_between(path: Path, labels: Path | None, info: Mapping[str, str]) -> list[int]:
    """The numbers of the frames of a sequence that are not end-diastole or end-systole: those two are there as stills."""
    count = read_frames(path).count
    if labels and read_frames(labels).count != count:
        raise ProPLError(labels, "its label maps are not as many as its frames", "download both again")
    if info.get("NbFrame") != str(count) or not all(info.get(phase, "").isdigit() for phase in PHASES):
        fact = "Info_*.cfg does not say which of its frames are end-diastole and end-systole"
        raise ProPLError(path, fact, "download it again")
    return [number for number in range(1, count + 1) if str(number) not in (info["ED"], info["ES"])]


def _record(
    patient: _Patient, name: str, image: Callable[[], Picture], labels: Path | None, number: int | None = None
) -> Record:
    masks = {task: partial(_read_label, labels, label, number) if labels else None for task, label in LABELS.items()}
    return Record(name, patient.name, image, masks, patient.split)


def _read_info(path: Path) -> dict[str, str]:
    """The lines `key: value` of an Info file; nothing when it is not there."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _read_label(path: Path, label: int, number: int | None = None) -> np.ndarray:
    """One structure of a label map, or of one frame of several; bool `(H, W)`."""
    # Frames are shown as stored up to 255; stretched labels would be refused here.
    values = read_values(path) if number is None else read_frame(path, number).pixels
    present = np.unique(values)
    if values.ndim != 2 or not np.isin(present, (0, 1, 2, 3)).all():
        shown = ", ".join(f"{value:g}" for value in present[:6]) + (", ..." if len(present) > 6 else "")
        fact = f"holds the values {shown}, where a label map of CAMUS holds 0, 1, 2 and 3 only"
        raise ProPLError(path, fact, "download it again; copies saved as JPEG or stretched to 255 are not label maps")
    return values == label


SOURCE = Source(
    name=NAME,
    title="Left ventricle, myocardium and left atrium in apical two- and four-chamber views",
    tasks=tuple(LABELS),
    group="patient",
    licence=(
        "CC BY-NC-SA 4.0, for non-commercial scientific research only, with citation (LICENSE_TERMS.md of the download)"
    ),
    citation=(
        "Leclerc et al., Deep Learning for Segmentation Using an Open Large-Scale Dataset in 2D Echocardiography, IEEE "
        "Transactions on Medical Imaging 38(9):2198-2210 (2019), doi:10.1109/TMI.2019.2900516"
    ),
    holds={"patients": PATIENTS, "pictures": 2000, "label maps": 2000},
    exclusions=(
        "Frames of the sequences, unless the option sequences includes them.",
        "Views of poor image quality, if the option poor_quality says so.",
    ),
    read=read_camus,
)
