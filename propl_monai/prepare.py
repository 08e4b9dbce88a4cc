"""From a data set in its original layout to pictures, masks and a datalist that training can use.

Everything is written beside the datalist: `<SOURCE>/images/NAME.png` and `<SOURCE>/masks/<CODE>/NAME.png`, 8 bit, upright;
the originals are only read. Preparing another source into the same datalist adds it, preparing one again replaces it.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from propl_monai import tasks
from propl_monai.cases import SPLITS as SPLIT_NAMES
from propl_monai.cases import Case
from propl_monai.datalist import Datalist
from propl_monai.errors import ProPLError, unknown
from propl_monai.files import TEMPORARY_PREFIX, file_sha256
from propl_monai.images import write_mask, write_picture
from propl_monai.run_record import RunRecord
from propl_monai.sources import IN_PLACE, SOURCES, read_source
from propl_monai.sources.base import Exclusion, Reading, Record, Source
from propl_monai.splits import assign_splits, labelled_place

WAYS = ("hash", "official")
THREADS = 2  # decoders and zlib let go of the interpreter
RUN = "run.json"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Prepared:
    """What came of it.

    Attributes:
        datalist: as written; with the cases of other sources that were there before.
        source: name of the source.
        counts: cases of this source by task and split, e.g. `{"left atrium": {"train": 10, ...}}`.
        found: what the folder held, see `Source.holds`.
        missing: one line for every count of `Source.holds` that the folder does not meet.
        excluded: what was left out, with the reason.
        refused: inputs that could not be read, with the reason; not counted as left out on purpose.
    """

    datalist: Datalist
    source: str
    counts: Mapping[str, Mapping[str, int]]
    found: Mapping[str, int]
    missing: tuple[str, ...]
    excluded: tuple[Exclusion, ...]
    refused: tuple[ProPLError, ...]

    def report(self) -> str:
        """The whole of it in words, one fact a line."""
        lines = [
            f"{task}: " + "  ".join(f"{split} {self.counts[task].get(split, 0)}" for split in SPLIT_NAMES)
            for task in sorted(self.counts)
        ]
        lines += [f"found: {words} {count}" for words, count in self.found.items()]
        lines += [f"missing: {line}" for line in self.missing]
        reasons = Counter(each.reason for each in self.excluded)
        lines += [f"left out: {count} ({reason})" for reason, count in reasons.most_common()]
        lines += [f"refused: {problem}" for problem in self.refused]
        return "\n".join([*lines, f"Train with dataset_dir {self.datalist.root}"])


def find_source(name: str) -> Source:
    """The source of a name, in any case.

    Raises:
        ProPLError: no such source; names the nearest.
    """
    for known, source in SOURCES.items():
        if known.lower() == name.strip().lower():
            return source
    raise unknown("prepare", "source", name, [*SOURCES, *IN_PLACE])


def prepare(
    name: str,
    folder: str | Path,
    output: str | Path,
    options: Mapping[str, str] | None = None,
    splits: str = "hash",
    progress: Progress | None = None,
) -> Prepared:
    """Read a data set and write pictures, masks, datalist and `<SOURCE>/run.json`.

    Args:
        name: of the source, see `propl info`.
        folder: the unpacked download.
        output: the datalist to write, or to add to; pictures go beside it.
        options: of the source's reader.
        splits: "hash" (by group, `propl_monai.splits`), or "official" where the publishers name one; others by hash.
        progress: called with (pictures done, pictures in all).

    Raises:
        ProPLError: unknown source, option or splits; nothing in the folder; every picture refused; no room to write.
    """
    output = Path(output)
    if name.lower() in IN_PLACE:
        return _in_place(name.lower(), Path(folder), output)
    source = find_source(name)
    if splits not in WAYS:
        raise unknown("prepare", "splits", splits, WAYS)
    _require_apart(Path(folder), output, source)
    earlier = _cases_of_others(output, source)
    reading = source.open(Path(folder), options)
    asked = {"source": source.name, "options": {**source.options, **(options or {})}, "splits": splits}
    record = RunRecord(output.parent / source.name / RUN, "prepare", asked)
    written, refused = _write_all(reading.records, output.parent, source.name, progress)
    if not written:
        raise ProPLError(
            folder, f"no picture of {source.name} could be read; the first: {refused[0]}", "mend the files"
        )
    cases = _place((*earlier, *written), splits, {each.name: each.split for each in reading.records}, source.name)
    datalist = Datalist(output.parent, cases, output.stem, _describe(cases))
    datalist.write(output)
    prepared = _sum_up(datalist, source, reading, refused)
    _write_record(record, prepared, output)
    return prepared


def _in_place(name: str, folder: Path, output: Path) -> Prepared:
    """A layout that training reads as it is: nothing is copied, the datalist's paths start from the folder."""
    datalist = read_source(name, folder)
    datalist.write(output)
    return Prepared(datalist, name, _counts(datalist.cases), {"cases": len(datalist.cases)}, (), (), ())


def _require_apart(folder: Path, output: Path, source: Source) -> None:
    """The originals are never written to: pictures of an earlier run must not be read, nor originals replaced."""
    target = (output.parent / source.name).resolve()
    if output.suffix.lower() != ".json":
        raise ProPLError(output, "is not the name of a .json file", "give one such as prepared/datalist.json")
    if folder.resolve() == target or target in folder.resolve().parents or folder.resolve() in target.parents:
        raise ProPLError(output, f"would put pictures into the originals in {folder}", "choose another folder")


def _cases_of_others(output: Path, source: Source) -> tuple[Case, ...]:
    if not output.exists():
        return ()
    return tuple(case for case in Datalist.read(output, output.parent).cases if case.source != source.name)


def _write_all(
    records: Sequence[Record], root: Path, source: str, progress: Progress | None
) -> tuple[list[Case], list[ProPLError]]:
    """Write every record; the refused ones leave nothing behind.

    The pictures of an earlier run stay until all new ones are there: its datalist must not outlive them.
    """
    staging = root / f"{TEMPORARY_PREFIX}{source}"
    shutil.rmtree(staging, ignore_errors=True)
    cases: list[Case] = []
    refused: list[ProPLError] = []
    with ThreadPoolExecutor(THREADS) as pool:
        results = pool.map(lambda record: _write_one(record, staging, source), records)
        for done, result in enumerate(results, start=1):
            if isinstance(result, ProPLError):
                refused.append(result)
            else:
                cases += result
            if progress:
                progress(done, len(records))
    if cases:
        shutil.rmtree(root / source, ignore_errors=True)
        staging.rename(root / source)
    shutil.rmtree(staging, ignore_errors=True)
    return cases, refused


def _write_one(record: Record, folder: Path, source: str) -> list[Case] | ProPLError:
    """The cases of one picture, one for each of its tasks; all its masks are read before anything is written."""
    try:
        if not re.fullmatch(r"[^/\\\x00-\x1f]+", record.name):
            raise ProPLError(record.name, "is no file name", "rename it")
        picture = record.image()
        masks = {task: read and _fitting(record, task, read(), picture.pixels) for task, read in record.masks.items()}
        write_picture(folder / "images" / f"{record.name}.png", picture.pixels)
        return [_case(record, folder, source, task, masks[task], picture.spacing_mm) for task in sorted(masks)]
    except ProPLError as problem:
        return problem


def _fitting(record: Record, task: str, mask: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    if mask.shape != pixels.shape[:2]:
        (height, width), (rows, columns) = mask.shape, pixels.shape[:2]
        fact = f"its mask of {task} is {height} x {width} (height x width), the picture {rows} x {columns}"
        raise ProPLError(record.name, fact, "download both again, or leave the picture out")
    return mask


def _case(
    record: Record, folder: Path, source: str, task: str, mask: np.ndarray | None, spacing: tuple[float, float] | None
) -> Case:
    """Write one mask, and tell of picture and mask where they will be when `folder` has become `<root>/<SOURCE>`."""
    code = tasks.find(task).code
    image_part, mask_part = f"images/{record.name}.png", f"masks/{code}/{record.name}.png"
    if mask is not None:
        write_mask(folder / mask_part, mask)
    return Case(
        case_id=f"{code}/{source}/{record.name}",
        image=f"{source}/{image_part}",
        mask=None if mask is None else f"{source}/{mask_part}",
        task=task,
        source=source,
        group=record.group,
        split=record.split or "train",
        image_sha256=file_sha256(folder / image_part),
        mask_sha256=None if mask is None else file_sha256(folder / mask_part),
        pixel_spacing_mm=spacing,
        # By name: another release of Pillow may write other bytes for the same picture.
        labelled_place=labelled_place(source, record.name),
    )


def _place(cases: Sequence[Case], splits: str, official: Mapping[str, str | None], source: str) -> tuple[Case, ...]:
    """Splits by hash, or the publishers' where they name one; earlier sources prepared by hash do not move."""
    placed = assign_splits(cases)
    if splits == "hash":
        return placed
    return tuple(
        replace(case, split=official.get(case.case_id.split("/", 2)[2]) or case.split)
        if case.source == source
        else case
        for case in placed
    )


def _describe(cases: Sequence[Case]) -> str:
    counts = Counter(case.source for case in cases)
    return "Prepared: " + ", ".join(f"{count} cases of {source}" for source, count in sorted(counts.items())) + "."


def _sum_up(datalist: Datalist, source: Source, reading: Reading, refused: Sequence[ProPLError]) -> Prepared:
    counts = _counts([case for case in datalist.cases if case.source == source.name])
    missing = tuple(
        f"{words}: {reading.found.get(words, 0)} found, {count} in the published set"
        for words, count in source.holds.items()
        if reading.found.get(words, 0) != count
    )
    return Prepared(datalist, source.name, counts, dict(reading.found), missing, reading.excluded, tuple(refused))


def _counts(cases: Sequence[Case]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for case in cases:
        counts.setdefault(case.task, Counter())[case.split] += 1
    return counts


def _write_record(record: RunRecord, prepared: Prepared, output: Path) -> None:
    for problem in prepared.refused:
        record.finding(problem.where, str(problem))
    results: dict[str, Any] = {
        "datalist_sha256": prepared.datalist.sha256,
        "counts": {task: dict(splits) for task, splits in prepared.counts.items()},
        "found": dict(prepared.found),
        "missing": list(prepared.missing),
        "excluded": [{"name": each.name, "reason": each.reason} for each in prepared.excluded],
    }
    record.write("partial" if prepared.refused else "finished", [output.name], results)
