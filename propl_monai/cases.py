"""One case, and the rules that a set of cases keeps: sound values, unique names, and nothing shared between splits."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

from propl_monai.errors import ProPLError, unknown
from propl_monai.tasks import NAMES

SPLITS: tuple[str, ...] = ("train", "validation", "test")
PROBLEMS_SHOWN = 5
# datalists/schema.json holds the same three patterns; a test compares them.
PATH_PATTERN = (
    r"^(?![A-Za-z]:)(?!(?:.*/)?\.{0,2}(?:/|$))[^\\\x00-\x1f]+$"  # relative, POSIX, no empty, `.` or `..` part
)
TEXT_PATTERN = r"^[^\x00-\x1f]+$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"

_is_path = re.compile(PATH_PATTERN).fullmatch
_is_text = re.compile(TEXT_PATTERN).fullmatch
_is_sha256 = re.compile(SHA256_PATTERN).fullmatch
_PATH_CURE = "write a path relative to the root folder, with '/' and without '..'"
_SHA256_CURE = "give the SHA-256 of the file's bytes as 64 lower-case hexadecimal digits"


@dataclass(frozen=True)
class Case:
    """One picture under one task. The same picture under three tasks is three cases.

    Attributes:
        case_id: unique name, `CODE/SOURCE/NAME`, e.g. `LA/CAMUS/patient0001_2CH_ES`; safe as a relative path.
        image: POSIX path of the picture, relative to the datalist's root.
        mask: POSIX path of its mask, or None when nobody has drawn one.
        task: a name of `propl_monai.tasks.NAMES`.
        source: the data set it comes from, e.g. `CAMUS`.
        group: patient, examination or video: the unit that is never divided between splits; unique within its source.
        split: `train`, `validation` or `test`.
        image_sha256: of the picture file's bytes, 64 lower-case hexadecimal digits.
        mask_sha256: of the mask file's bytes, None exactly when `mask` is.
        pixel_spacing_mm: height and width of one pixel (row, column) in mm, or None when unknown.
    """

    case_id: str
    image: str
    mask: str | None
    task: str
    source: str
    group: str
    split: str
    image_sha256: str
    mask_sha256: str | None = None
    pixel_spacing_mm: tuple[float, float] | None = None


KEYS: tuple[str, ...] = tuple(field.name for field in fields(Case))
OPTIONAL_KEYS = frozenset({"mask", "mask_sha256", "pixel_spacing_mm"})


def summarise(where: object, problems: Sequence[ProPLError]) -> ProPLError:
    """One error for many: the single one itself, or the first `PROBLEMS_SHOWN` and their number."""
    if len(problems) == 1:
        return problems[0]
    shown = "".join(f"\n  - {problem}" for problem in problems[:PROBLEMS_SHOWN])
    more = f"\n  - and {len(problems) - PROBLEMS_SHOWN} more" if len(problems) > PROBLEMS_SHOWN else ""
    return ProPLError(where, f"{len(problems)} problems:{shown}{more}\n", "mend them and run again")


def check_cases(cases: Sequence[Case], where: object, place: Callable[[int], str]) -> None:
    """Check every rule of a datalist.

    Args:
        cases: what to check.
        where: name of the whole, for the message.
        place: words for the case at an index, for the message.

    Raises:
        ProPLError: no case at all, or the first few broken rules and their number.
    """
    if not cases:
        raise ProPLError(where, "holds no case", "add at least one picture")
    problems = [
        fault if isinstance(fault, ProPLError) else ProPLError(place(index), *fault)
        for index, case in enumerate(cases)
        for fault in _case_faults(case, place, index)
    ]
    if not problems:  # values of the wrong type would only raise nonsense from the rules between cases
        between = [*_clashes(cases), *_leaks(cases)]
        problems = [ProPLError(f"{where}, {each.where}", each.fact, each.cure) for each in between]
    if problems:
        raise summarise(where, problems)


def _case_faults(case: Case, place: Callable[[int], str], index: int) -> Iterator[tuple[str, str] | ProPLError]:
    """Facts and cures for the values of one case."""
    for key, path in (("case_id", case.case_id), ("image", case.image), ("mask", case.mask)):
        if path is None and key == "mask":
            continue
        if not isinstance(path, str) or not _is_path(path):
            yield f"{key} {path!r} is not a relative path inside the root folder", _PATH_CURE
    for key, text in (("source", case.source), ("group", case.group)):
        if not isinstance(text, str) or not _is_text(text):
            yield f"{key} {text!r} is not a line of text", f"give a {key} of at least one printable character"
    for key, value, known in (("task", case.task, NAMES), ("split", case.split, SPLITS)):
        if value not in known:
            yield unknown(place(index), key, value, known)
    yield from _hash_faults(case)
    spacing = case.pixel_spacing_mm
    if spacing is not None and not _is_spacing(spacing):
        fact = f"pixel_spacing_mm {spacing!r} is not two positive numbers"
        yield fact, "give [row, column] in mm, or null when it is unknown"


def _hash_faults(case: Case) -> Iterator[tuple[str, str]]:
    if not isinstance(case.image_sha256, str) or not _is_sha256(case.image_sha256):
        yield f"image_sha256 {case.image_sha256!r} is not a SHA-256", _SHA256_CURE
    if (case.mask is None) != (case.mask_sha256 is None):
        present, absent = ("mask", "mask_sha256") if case.mask_sha256 is None else ("mask_sha256", "mask")
        yield f"has a {present} but no {absent}", "give both, or neither for a picture without a mask"
    elif case.mask_sha256 is not None and (not isinstance(case.mask_sha256, str) or not _is_sha256(case.mask_sha256)):
        yield f"mask_sha256 {case.mask_sha256!r} is not a SHA-256", _SHA256_CURE


def _is_spacing(spacing: object) -> bool:
    return (
        isinstance(spacing, tuple)
        and len(spacing) == 2
        and all(type(length) in (int, float) and math.isfinite(length) and length > 0 for length in spacing)
    )


def _clashes(cases: Sequence[Case]) -> Iterator[ProPLError]:
    """Names that occur twice, also when only upper and lower case differ: some file systems see one file there."""
    ids: dict[str, Case] = {}
    pictures: dict[tuple[str, str], Case] = {}
    spellings: dict[str, str] = {}
    for case in cases:
        first = ids.setdefault(case.case_id.casefold(), case)
        if first is not case:
            fact = f"is there twice (as {first.case_id!r}, {first.image}, and again with {case.image})"
            yield ProPLError(f"case_id {case.case_id!r}", fact, "give each picture of a task one name of its own")
        first = pictures.setdefault((case.task, case.image), case)
        if first is not case and first.case_id != case.case_id:
            fact = f"is two cases of task {case.task}: {first.case_id} and {case.case_id}"
            yield ProPLError(case.image, fact, "keep one of them")
        spelling = spellings.setdefault(case.image.casefold(), case.image)
        if spelling != case.image:
            yield ProPLError(case.image, f"differs from {spelling} only in upper and lower case", "rename one of them")


def _leaks(cases: Sequence[Case]) -> Iterator[ProPLError]:
    """Groups and pictures that stand in two splits, and pictures whose group is not told in one way."""
    groups: dict[tuple[str, str], Case] = {}
    paths: dict[str, Case] = {}
    hashes: dict[str, Case] = {}
    regroup = "give all cases of one patient, examination or video one split; `assign_splits` does"
    for case in cases:
        first = groups.setdefault((case.source, case.group), case)
        if first.split != case.split:
            yield ProPLError(f"group {case.group!r} of {case.source}", _in_two_splits(first, case), regroup)
        for kind, first in (
            (f"image {case.image}", paths.setdefault(case.image, case)),
            (f"image_sha256 {case.image_sha256}", hashes.setdefault(case.image_sha256, case)),
        ):
            if first.split != case.split:
                yield ProPLError(kind, _in_two_splits(first, case), "keep one split for one picture, under every task")
            elif first.source == case.source and first.group != case.group:
                fact = f"has two groups, {first.group!r} ({first.case_id}) and {case.group!r} ({case.case_id})"
                yield ProPLError(kind, fact, "one picture shows one patient: give both cases the same group")


def _in_two_splits(first: Case, second: Case) -> str:
    return f"is in two splits: {first.split} ({first.case_id}) and {second.split} ({second.case_id})"
