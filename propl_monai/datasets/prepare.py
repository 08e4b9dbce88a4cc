"""From a data set in its original layout to pictures, masks and a datalist that training can use.

Everything is written beside the datalist: `<SOURCE>/images/NAME.png` and `<SOURCE>/masks/<CODE>/NAME.png`, 8 bit, upright;
the originals are only read. Preparing another source into the same datalist adds it, preparing one again replaces it and
its folder. Nothing is replaced before all that comes in its place is there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from propl_monai import tasks
from propl_monai.common.files import file_sha256, lock_folder
from propl_monai.common.replace_folder import require_replaceable, staging_for, take_place
from propl_monai.common.run_record import RunRecord, made_by
from propl_monai.data.cases import SPLITS as SPLIT_NAMES
from propl_monai.data.cases import Case, Coverage
from propl_monai.data.datalist import Datalist
from propl_monai.data.splits import assign_splits_but, labelled_place, splits_not_by_hash
from propl_monai.datasets.sources.base import NO_PICTURE, Exclusion, Reading, Record, Source, choice
from propl_monai.datasets.sources.folder import MASKS, read_turned
from propl_monai.datasets.sources.registry import IN_PLACE, SOURCES, read_source
from propl_monai.errors import ProPLError, unknown
from propl_monai.images import write_mask, write_picture

WAYS = ("hash", "official")
THREADS = 2  # decoders and zlib let go of the interpreter
RUN = "run.json"
LONGEST_NAME = 200  # bytes of a picture's name: file systems take 255, suffix and temporary prefix included
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Prepared:
    """The result.

    Attributes:
        datalist: as written; with the cases of other sources that were there before.
        source: name of the source.
        counts: cases of this source by task and split, e.g. `{"left atrium": {"train": 10, ...}}`.
        found: what the folder held, see `Source.holds`.
        missing: one line for every count of `Source.holds` that the folder does not meet.
        excluded: what was left out, with the reason.
        refused: inputs that could not be read, with the reason; not counted as left out on purpose.
        moved: cases whose official split is not kept, as the same picture is held out under another name.
        gone: ids of cases that an earlier run of this source had put into the datalist, and this one has not.
    """

    datalist: Datalist
    source: str
    counts: Mapping[str, Mapping[str, int]]
    found: Mapping[str, int]
    missing: tuple[str, ...]
    excluded: tuple[Exclusion, ...]
    refused: tuple[ProPLError, ...]
    moved: int = 0
    gone: tuple[str, ...] = ()

    def report(self) -> str:
        """The report, one fact per line."""
        lines = [
            f"{task}: " + "  ".join(f"{split} {self.counts[task].get(split, 0)}" for split in SPLIT_NAMES)
            for task in sorted(self.counts)
        ]
        in_place = self.source in IN_PLACE
        own = [case for case in self.datalist.cases if in_place or case.source == self.source]
        lines.append(str(Coverage.of(own)))
        lines += [self.datalist.description] if in_place else []
        lines += [f"found: {words} {count}" for words, count in self.found.items()]
        lines += [f"missing: {line}" for line in self.missing]
        if self.moved:
            lines.append(f"moved: {self.moved} out of their official split, as their picture is held out elsewhere too")
        if self.gone:
            lines.append(f"replaced: {len(self.gone)} cases of an earlier run are gone, such as {self.gone[0]}")
        reasons = Counter(each.reason for each in self.excluded)
        for reason, count in reasons.most_common():
            suffixes = Counter(Path(each.name).suffix for each in self.excluded if each.reason == reason)
            listed = ", ".join(f"{number} {suffix or 'without suffix'}" for suffix, number in suffixes.most_common())
            lines.append(f"left out: {count} ({reason}" + (f": {listed})" if reason.startswith(NO_PICTURE) else ")"))
        lines += [f"refused: {problem}" for problem in self.refused]
        return "\n".join([*lines, f"Train with dataset_dir {self.datalist.root}"])


def find_source(name: str) -> Source:
    """The source of a name; upper and lower case do not matter."""
    found = {known.lower(): source for known, source in SOURCES.items()}.get(name.strip().lower())
    if found is None:
        raise unknown("prepare", "source", name, [*SOURCES, *IN_PLACE])
    return found


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
        splits: "hash" (by group, `propl_monai.data.splits`), or "official" where the publishers name one; others by hash.
        progress: called with (pictures done, pictures in all).
    """
    output = Path(output)
    if output.suffix.lower() != ".json":
        raise ProPLError(output, "is not the name of a .json file", "give one such as prepared/datalist.json")
    folder = Path(folder)
    if name.lower() in IN_PLACE:
        return _own_folder(name.lower(), folder, output, dict(options or {}), splits, progress)
    source = find_source(name)
    if splits not in WAYS:
        raise unknown("prepare", "splits", splits, WAYS)
    _require_apart(folder, output, source)
    reading = source.open(folder, options)
    return _copy(source, reading, folder, output, {**source.options, **(options or {})}, splits, progress)


def _copy(
    source: Source,
    reading: Reading,
    folder: Path,
    output: Path,
    options: Mapping[str, str],
    splits: str,
    progress: Progress | None,
) -> Prepared:
    """Write pictures, masks, datalist and run.json of one source."""
    settings = {"source": source.name, "options": dict(options), "splits": splits}
    with lock_folder(output.parent), staging_for(output.parent / source.name) as staging:
        before = Datalist.read(output, output.parent).cases if output.exists() else ()
        earlier = tuple(case for case in before if case.source != source.name)
        if earlier and not (output.parent / earlier[0].image).exists():
            fact = f"holds cases whose pictures are not beside it ({earlier[0].image})"
            raise ProPLError(output, fact, "give another name")
        record = RunRecord(staging / RUN, "prepare", settings)
        written, refused = _write_all(reading.records, staging, source.name, progress)
        if not written:
            fact = f"no picture of {source.name} could be read; the first: {refused[0]}"
            raise ProPLError(folder, fact, "repair the files")
        official = {each.name: each.split for each in reading.records} if splits == "official" else {}
        cases, moved = _place(earlier, written, official)
        counts = sorted(Counter(case.source for case in cases).items())
        description = "Prepared: " + ", ".join(f"{count} cases of {source}" for source, count in counts) + "."
        datalist = Datalist(output.parent, cases, output.stem, description)
        record.write("running")  # whatever happens next, this marks the folder as ours to replace
        record.path = take_place(staging, output.parent / source.name) / RUN
        datalist.write(output)
        gone = tuple(sorted({case.case_id for case in before} - {case.case_id for case in cases}))
        prepared = replace(_sum_up(datalist, source, reading, refused, moved), gone=gone)
        _write_record(record, prepared, output)
    return prepared


def _own_folder(
    name: str, folder: Path, output: Path, options: dict[str, str], splits: str, progress: Progress | None
) -> Prepared:
    """A plain folder is read in place; with masks that were drawn before EXIF turned their pictures it is copied."""
    masks = choice(name, "masks", options.pop("masks", MASKS[0]), MASKS)
    if options:
        raise unknown(f"source {name}", "option", next(iter(options)), ["masks"])
    if splits != WAYS[0]:
        raise ProPLError(f"source {name}", f"names no {splits} split", f"leave it out, or give {WAYS[0]}")
    if masks == MASKS[0]:
        return _in_place(name, folder, output)
    readings = read_turned(folder)
    sources = [Source(each, "", (), "", "", "", Reading) for each in readings]  # that are read already
    for source in sources:
        _require_apart(folder, output, source)
    given = {"masks": masks}
    made = [_copy(each, readings[each.name], folder, output, given, splits, progress) for each in sources]
    own = [case for case in made[-1].datalist.cases if case.source in readings]
    refused = tuple(problem for each in made for problem in each.refused)
    return Prepared(made[-1].datalist, name, _counts(own), {"cases": len(own)}, (), (), refused)


def _in_place(name: str, folder: Path, output: Path) -> Prepared:
    """A layout that training reads as it is: nothing is copied, the datalist's paths start from the folder."""
    if output.exists() and any(case.image.startswith(f"{case.source}/") for case in Datalist.read(output).cases):
        fact = "holds cases that were prepared, whose pictures lie beside it; a folder that is read in place cannot join them"
        raise ProPLError(output, fact, "give another name")
    datalist = read_source(name, folder)
    datalist.write(output)
    return Prepared(datalist, name, _counts(datalist.cases), {"cases": len(datalist.cases)}, (), (), ())


def _require_apart(folder: Path, output: Path, source: Source) -> None:
    """The originals are never written to: pictures of an earlier run must not be read, nor originals replaced."""
    home = output.parent / source.name
    target = home.resolve()
    if folder.resolve() == target or target in folder.resolve().parents or folder.resolve() in target.parents:
        raise ProPLError(output, f"would put pictures into the originals in {folder}", "choose another folder")
    require_replaceable(home, made_by(home / RUN, "prepare"))


def _write_all(
    records: Sequence[Record], staging: Path, source: str, progress: Progress | None
) -> tuple[list[Case], list[ProPLError]]:
    """Write every record; the refused ones leave nothing behind."""
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
    return cases, refused


def _write_one(record: Record, folder: Path, source: str) -> list[Case] | ProPLError:
    """The cases of one picture, one for each of its tasks; all its masks are read before anything is written."""
    try:
        if not re.fullmatch(r"[^/\\\x00-\x1f\ud800-\udfff]+", record.name):
            raise ProPLError(record.name, "is no file name of UTF-8 text", "rename it")
        if len(record.name.encode()) > LONGEST_NAME:
            raise ProPLError(record.name, f"is a name of more than {LONGEST_NAME} bytes", "rename it, or its folders")
        picture = record.image()
        masks = {task: read and read() for task, read in record.masks.items()}
        rows, columns = picture.pixels.shape[:2]
        for task, mask in masks.items():
            if mask is not None and mask.shape != (rows, columns):
                fact = f"its mask of {task} is {mask.shape[0]} x {mask.shape[1]} (height x width), "
                cure = "download both again, or leave the picture out"
                raise ProPLError(record.name, f"{fact}the picture {rows} x {columns}", cure)
    except ProPLError as problem:
        return problem
    write_picture(folder / "images" / f"{record.name}.png", picture.pixels)
    return [_case(record, folder, source, task, masks[task], picture.spacing_mm) for task in sorted(masks)]


def _case(
    record: Record, folder: Path, source: str, task: str, mask: np.ndarray | None, spacing: tuple[float, float] | None
) -> Case:
    """Write one mask; paths are those of picture and mask when `folder` has become `<root>/<SOURCE>`."""
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


def _place(
    earlier: Sequence[Case], written: Sequence[Case], official: Mapping[str, str | None]
) -> tuple[tuple[Case, ...], int]:
    """Splits by hash, or the publishers' where they name one; sources that were prepared before keep theirs.

    Returns:
        The cases, and how many are not in their official split.
    """
    own = {case.case_id: split for case in written if (split := official.get(case.case_id.split("/", 2)[2]))}
    kept = splits_not_by_hash(earlier) | own
    cases = assign_splits_but((*earlier, *written), kept)
    return cases, sum(kept.get(case.case_id, case.split) != case.split for case in cases)


def _sum_up(
    datalist: Datalist, source: Source, reading: Reading, refused: Sequence[ProPLError], moved: int
) -> Prepared:
    counts = _counts([case for case in datalist.cases if case.source == source.name])
    missing = tuple(
        f"{words}: {reading.found.get(words, 0)} found, {count} in the published set"
        for words, count in source.holds.items()
        if reading.found.get(words, 0) != count
    )
    excluded = tuple(each for each in reading.excluded if not each.fault)
    faults = [
        ProPLError(each.name, each.reason, "repair it, or take it away") for each in reading.excluded if each.fault
    ]
    return Prepared(datalist, source.name, counts, dict(reading.found), missing, excluded, (*faults, *refused), moved)


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
        "moved": prepared.moved,
        "excluded": [{"name": each.name, "reason": each.reason} for each in prepared.excluded],
    }
    record.write("partial" if prepared.refused else "finished", [output.name], results)
