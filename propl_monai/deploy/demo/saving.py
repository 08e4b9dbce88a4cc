"""The files that the page offers for download, those of `propl predict`: built in memory."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from propl_monai.common.files import stem
from propl_monai.common.spacing import Spacing
from propl_monai.deploy.demo.study import Study
from propl_monai.errors import ProPLError, unknown
from propl_monai.images.write import png
from propl_monai.inference.formats.masks import Masks
from propl_monai.inference.formats.registry import NAMES, PNG, find_format
from propl_monai.inference.inputs import InputFile
from propl_monai.inference.measurements import MEASUREMENTS, measurement_row, to_csv
from propl_monai.inference.prediction import Prediction
from propl_monai.tasks import Task

DICOM_SEG, ALL_FRAMES, CSV = "dicom-seg", "png-all", "csv"


def formats_of(study: Study) -> list[str]:
    """The formats that masks of this file can be saved in, with the packages that are installed."""
    found = [PNG] + [ALL_FRAMES] * (len(study.frames) > 1)
    for name in NAMES[1:]:
        try:
            find_format(name).require()
        except ProPLError:  # of the extra `formats`
            continue
        found += [name] * (name != DICOM_SEG or bool(study.dicom))
    return found


def save(
    study: Study, tasks: Sequence[Task], form: str, number: int, spacing: Spacing | None, folder: Path
) -> tuple[str, bytes]:
    """One file: that of a format, or a zip where there are several.

    Args:
        study: that was segmented.
        tasks: at least one.
        form: one of `formats_of`, or "csv" for measurements.
        number: the frame of "png"; all other formats hold all frames.
        spacing: height and width of a pixel in mm.
        folder: for temporary files.
    """
    if form not in (CSV, *formats_of(study)):
        raise unknown("format", "format", form, formats_of(study))
    if not tasks:
        raise ProPLError(study.name, "no target is segmented", "choose one, then save")
    if form != PNG and (missing := study.missing(tasks)):
        fact = f"{len(missing)} of {len(study.frames)} frames are not segmented"
        raise ProPLError(study.name, fact, "segment all frames first")
    count = len(study.frames)
    name = stem(study.name)
    if form == CSV:
        file = InputFile(Path(study.name), name, "", count)
        rows = [measurement_row(file, n, _found(study, t, n, spacing)) for n in range(1, count + 1) for t in tasks]
        return f"{name}_{MEASUREMENTS}", to_csv(rows)
    with study.on_disk(folder) as path:
        place = (spacing, study.seconds_per_frame, study.geometry, study.orientation)
        masks = Masks(path, name, count, tasks, *place)
        if form in (PNG, ALL_FRAMES):
            numbers = [number] if form == PNG else range(1, count + 1)
            names = masks.names()
            files = {
                f"{names[n - 1]}_{task.slug}.png": png(study.mask(task, n).astype(np.uint8) * 255)
                for n in numbers
                for task in tasks
            }
        else:
            files = _formatted(study, masks, form)
    if len(files) == 1:
        ((only, content),) = files.items()
        return only, content
    return f"{name}_{form}.zip", _zipped(files)


def _found(study: Study, task: Task, number: int, spacing: Spacing | None) -> Prediction:
    """A mask as the table of measurements takes it, which looks at no probability."""
    mask = study.mask(task, number)
    scores = study.found[task.name, number].scores
    return Prediction(task.name, mask, mask.astype(np.float32), None, spacing, scores)


def _formatted(study: Study, masks: Masks, form: str) -> dict[str, bytes]:
    for number in range(1, masks.count + 1):
        masks.add([study.mask(task, number) for task in masks.tasks])
    one = find_format(form)
    try:
        one.check(masks.path, masks.name)
        files = one.files(masks)
        if one.shared:
            files[one.shared] = one.whole(one.part(masks))
    except ProPLError as error:
        raise ProPLError(study.name, error.fact, error.cure) from None
    return files


def _zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()
