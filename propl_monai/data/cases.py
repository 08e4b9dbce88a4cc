"""One case, and the rules that a set of cases keeps: sound values, unique names, and nothing shared between splits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

from propl_monai.common.findings import Finding
from propl_monai.common.spacing import is_spacing
from propl_monai.errors import ProPLError, unknown
from propl_monai.tasks import find, known_names

SPLITS: tuple[str, ...] = ("train", "validation", "test")
PROBLEMS_SHOWN = 5
BAD_ENTRY = "E-DATALIST"  # the code of a broken rule; those of what is in two splits start with E-LEAK
Broken = tuple[int, Finding]  # the index of a case and the rule that it breaks, alone or together with an earlier case
# datalists/schema.json holds the same three patterns; a test compares them.
# A path is relative, POSIX, without empty, `.` or `..` parts.
PATH_PATTERN = r"^(?![A-Za-z]:)(?!(?:.*/)?\.{0,2}(?:/|$))[^\\\x00-\x1f]+$"
TEXT_PATTERN = r"^[^\x00-\x1f]+$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"

_is_path = re.compile(PATH_PATTERN).fullmatch
_is_text = re.compile(TEXT_PATTERN).fullmatch
_is_sha256 = re.compile(SHA256_PATTERN).fullmatch
_surrogate = re.compile("[\ud800-\udfff]").search  # what a file name that is not UTF-8 becomes; not in the schema
_PATH_CURE = "write a path relative to the root folder, with '/' and without '..'"
_SHA256_CURE = "give the SHA-256 of the file's bytes as 64 lower-case hexadecimal digits"


@dataclass(frozen=True)
class Case:
    """One picture under one task. The same picture under three tasks is three cases.

    Attributes:
        case_id: unique name, `CODE/SOURCE/NAME`, e.g. `LA/CAMUS/patient0001_2CH_ES`; safe as a relative path.
        image: POSIX path of the picture, relative to the datalist's root.
        mask: POSIX path of its mask, or None when none was drawn.
        task: a name of `propl_monai.tasks.known_names()`.
        source: the data set it comes from, e.g. `CAMUS`.
        group: patient, examination or video: the unit that is never divided between splits; unique within its source.
        split: `train`, `validation` or `test`.
        image_sha256: of the picture file's bytes, 64 lower-case hexadecimal digits.
        mask_sha256: of the mask file's bytes, None exactly when `mask` is.
        pixel_spacing_mm: height and width of one pixel (row, column) in mm, or None when unknown.
        labelled_place: in [0, 1); the picture counts as labelled at every fraction above it. None: from `image_sha256`.
            One picture has one place under all its tasks.
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
    labelled_place: float | None = None


KEYS: tuple[str, ...] = tuple(field.name for field in fields(Case))
OPTIONAL_KEYS = frozenset({"mask", "mask_sha256", "pixel_spacing_mm", "labelled_place"})


def picture_name(case: Case) -> str:
    """A picture's name within its source, from an id `CODE/SOURCE/NAME`; the whole id where it has another form."""
    return case.case_id.removeprefix(f"{find(case.task).code}/{case.source}/")


@dataclass(frozen=True)
class Coverage:
    """How many cases have what is easily forgotten; as text one line for reports.

    Attributes:
        cases: all of them.
        grouped: those whose group is not only the picture itself.
        spaced: those with a pixel spacing.
    """

    cases: int
    grouped: int
    spaced: int

    @classmethod
    def of(cls, cases: Sequence[Case]) -> Coverage:
        """Count."""
        grouped = sum(case.group != picture_name(case) for case in cases)
        return cls(len(cases), grouped, sum(case.pixel_spacing_mm is not None for case in cases))

    def __str__(self) -> str:
        alone = "" if self.grouped == self.cases else "; any other picture counts as its own patient"
        group, spacing = (f"{count} of {self.cases} cases" for count in (self.grouped, self.spaced))
        return f"group (patient, examination or video): {group}{alone}. Pixel spacing: {spacing}"


def summarise(where: object, problems: Sequence[ProPLError]) -> ProPLError:
    """One error for many: the single one itself, or the first `PROBLEMS_SHOWN` and their number."""
    if len(problems) == 1:
        return problems[0]
    shown = "".join(f"\n  - {problem}" for problem in problems[:PROBLEMS_SHOWN])
    more = f"\n  - and {len(problems) - PROBLEMS_SHOWN} more" if len(problems) > PROBLEMS_SHOWN else ""
    return ProPLError(where, f"{len(problems)} problems:{shown}{more}\n", "fix them and run again")


def check_cases(cases: Sequence[Case], where: object, place: Callable[[int], str]) -> None:
    """Check every rule of a datalist.

    Args:
        cases: what to check.
        where: name of the whole, for the message.
        place: words for the case at an index, for the message.
    """
    if not cases:
        raise ProPLError(where, "holds no case", "add at least one picture")
    # Values of the wrong type would only raise nonsense from the rules between cases.
    broken = [*broken_values(cases)] or [*broken_between(cases)]
    if broken:
        places = [f"{where}, {rule.where}" if rule.where else place(index) for index, rule in broken]
        problems = [ProPLError(named, rule.fact, rule.cure) for named, (_, rule) in zip(places, broken, strict=True)]
        raise summarise(where, problems)


def broken_values(cases: Iterable[Case]) -> Iterator[Broken]:
    """The rules that single cases break; `Finding.where` is empty."""
    for index, case in enumerate(cases):
        for fact, cure in _case_faults(case):
            yield index, Finding(BAD_ENTRY, "", fact, cure)


def broken_between(cases: Sequence[Case]) -> Iterator[Broken]:
    """The rules that cases break together; each case must be valid by itself."""
    yield from _clashes(cases)
    yield from _leaks(cases)


def _case_faults(case: Case) -> Iterator[tuple[str, str]]:
    """Facts and cures for the values of one case."""
    for key, path in (("case_id", case.case_id), ("image", case.image), ("mask", case.mask)):
        if path is None and key == "mask":
            continue
        if not isinstance(path, str) or not _is_path(path):
            yield f"{key} {path!r} is not a relative path inside the root folder", _PATH_CURE
        elif _surrogate(path):
            yield f"{key} {path!r} is not UTF-8", "rename the file, and make the datalist again"
    for key, text in (("source", case.source), ("group", case.group)):
        if not isinstance(text, str) or not _is_text(text) or _surrogate(text):
            yield f"{key} {text!r} is not a line of text", f"give a {key} of at least one printable character"
    for key, value, known in (("task", case.task, known_names()), ("split", case.split, SPLITS)):
        if value not in known:
            error = unknown("", key, value, known)
            yield error.fact, error.cure
    yield from _hash_faults(case)
    spacing = case.pixel_spacing_mm
    if spacing is not None and not is_spacing(spacing):
        fact = f"pixel_spacing_mm {spacing!r} is not two positive numbers"
        yield fact, "give [row, column] in mm, or null when it is unknown"
    place = case.labelled_place
    if place is not None and not (type(place) in (int, float) and 0 <= place < 1):
        fact = f"labelled_place {place!r} is not a number of at least 0 and below 1"
        yield fact, "leave it out, or let `propl prepare` or `propl split` write it"


def _hash_faults(case: Case) -> Iterator[tuple[str, str]]:
    if not isinstance(case.image_sha256, str) or not _is_sha256(case.image_sha256):
        yield f"image_sha256 {case.image_sha256!r} is not a SHA-256", _SHA256_CURE
    if (case.mask is None) != (case.mask_sha256 is None):
        present, absent = ("mask", "mask_sha256") if case.mask_sha256 is None else ("mask_sha256", "mask")
        yield f"has a {present} but no {absent}", "give both, or neither for a picture without a mask"
    elif case.mask_sha256 is not None and (not isinstance(case.mask_sha256, str) or not _is_sha256(case.mask_sha256)):
        yield f"mask_sha256 {case.mask_sha256!r} is not a SHA-256", _SHA256_CURE


def _clashes(cases: Sequence[Case]) -> Iterator[Broken]:
    """Names that occur twice, also when only upper and lower case differ: some file systems see one file there."""
    ids: dict[str, Case] = {}
    pictures: dict[tuple[str, str], Case] = {}
    spellings: dict[str, str] = {}
    for index, case in enumerate(cases):
        first = ids.setdefault(case.case_id.casefold(), case)
        if first is not case:
            fact = f"is there twice (as {first.case_id!r}, {first.image}, and again with {case.image})"
            cure = "give each picture of a task one name of its own"
            yield index, Finding(BAD_ENTRY, f"case_id {case.case_id!r}", fact, cure)
        first = pictures.setdefault((case.task, case.image), case)
        if first is not case and first.case_id != case.case_id:
            fact = f"is two cases of task {case.task}: {first.case_id} and {case.case_id}"
            yield index, Finding(BAD_ENTRY, case.image, fact, "keep one of them")
        spelling = spellings.setdefault(case.image.casefold(), case.image)
        if spelling != case.image:
            fact = f"differs from {spelling} only in upper and lower case"
            yield index, Finding(BAD_ENTRY, case.image, fact, "rename one of them")


def _leaks(cases: Sequence[Case]) -> Iterator[Broken]:
    """Groups and pictures that stand in two splits, and pictures with two groups or places."""
    groups: dict[tuple[str, str], Case] = {}
    paths: dict[str, Case] = {}
    hashes: dict[str, Case] = {}
    for index, case in enumerate(cases):
        first = groups.setdefault((case.source, case.group), case)
        if first.split != case.split:
            cure = "give all cases of one patient, examination or video one split; `assign_splits` does"
            subject = f"group {case.group!r} of {case.source}"
            yield index, Finding("E-LEAK-GROUP", subject, _in_two_splits(first, case), cure)
        same_path = paths.setdefault(case.image, case)
        if same_path is not case:
            yield from _one_picture(index, same_path, case, "image", case.image, "E-LEAK-FILE")
        first = hashes.setdefault(case.image_sha256, case)
        if first is case:
            continue
        if first.image != case.image:
            yield from _one_picture(index, first, case, "image_sha256", case.image_sha256, "E-LEAK-EXACT")
        if first.labelled_place != case.labelled_place:
            places = [f"{each.labelled_place} ({each.case_id})" for each in (first, case)]
            fact = f"has two places, {places[0]} and {places[1]}"
            cure = "a picture is labelled under all its tasks or none: give both cases one place; `assign_splits` does"
            yield index, Finding(BAD_ENTRY, f"labelled_place of image_sha256 {case.image_sha256}", fact, cure)


def _one_picture(index: int, first: Case, case: Case, key: str, value: str, leak: str) -> Iterator[Broken]:
    """The rules for two cases of one picture; `leak` is the code of two splits within one task."""
    if first.split != case.split:
        code = leak if first.task == case.task else "E-LEAK-TASK"
        cure = "keep one split for one picture, under every task"
        yield index, Finding(code, f"{key} {value}", _in_two_splits(first, case), cure)
    elif first.source == case.source and first.group != case.group:
        fact = f"has two groups, {first.group!r} ({first.case_id}) and {case.group!r} ({case.case_id})"
        cure = "one picture shows one patient: give both cases the same group"
        yield index, Finding(BAD_ENTRY, f"{key} {value}", fact, cure)


def _in_two_splits(first: Case, second: Case) -> str:
    return f"is in two splits: {first.split} ({first.case_id}) and {second.split} ({second.case_id})"
