"""Make `datalists/sources/*.csv` again from the names that the publishers gave: `python datalists/freeze.py [--check]`.

No picture is needed: names, groups and hashes decide. `--check` writes nothing and ends with 1 where a list differs.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from propl_monai import tasks
from propl_monai.common.files import write_atomically
from propl_monai.data.cases import Case
from propl_monai.data.datalist import Datalist
from propl_monai.data.splits import assign_splits, labelled_place
from propl_monai.datasets.apply_protocol import apply_protocol
from propl_monai.datasets.protocol import find_protocol
from propl_monai.datasets.sources.busi import NEAR_DUPLICATES
from propl_monai.datasets.sources.camus import PHASES, VIEWS
from propl_monai.datasets.sources.camus_split import PATIENTS, TEST_PATIENTS, VALIDATION_PATIENTS

FOLDER = Path(__file__).parent
PROTOCOL = "universal-8x800"
COLUMNS = ("name", "group", "split", "labelled_place", "official_split", PROTOCOL)


@dataclass(frozen=True)
class Published:
    """One picture as its publishers name it; `official` is their split, empty where there is none."""

    name: str
    group: str
    official: str = ""


@dataclass(frozen=True)
class Frozen:
    """A source whose names are known; `whole` is false where only some are, so that no protocol can choose among them."""

    tasks: tuple[str, ...]
    pictures: Callable[[], Iterator[Published]]
    whole: bool = True


def _busi() -> Iterator[Published]:
    for kind, count in (("benign", 437), ("malignant", 210)):
        for name in (f"{kind} ({number})" for number in range(1, count + 1)):
            if name not in NEAR_DUPLICATES:
                yield Published(name, name)


def _udiat() -> Iterator[Published]:
    return (Published(f"{number:06d}", f"{number:06d}") for number in range(1, 164))


def _hc18() -> Iterator[Published]:
    for suffix, numbers in [("HC", range(806)), *_seen("HC18").items()]:
        yield from (Published(f"{number:03d}_{suffix}", f"{number:03d}", "train") for number in numbers)


def _camus() -> Iterator[Published]:
    held_out = dict.fromkeys(VALIDATION_PATIENTS, "validation") | dict.fromkeys(TEST_PATIENTS, "test")
    for number in range(1, PATIENTS + 1):
        patient = f"patient{number:04d}"
        for view in VIEWS:
            for phase in PHASES:
                yield Published(f"{patient}_{view}_{phase}", patient, held_out.get(number, "train"))


def _mmotu() -> Iterator[Published]:
    return (Published(str(number), str(number)) for number in range(1, 1470))


def _tn3k() -> Iterator[Published]:
    """The five lists of the publishers hold every fifth of the sorted names out: `fold2` is validation in fold 2."""
    for prefix, count in (("trainval", 2879), ("test", 614)):
        for number in range(count):
            name = f"{prefix}_{number:04d}"
            yield Published(name, name, f"fold{number % 5}" if prefix == "trainval" else "test")


def _ddti() -> Iterator[Published]:
    return (Published(name, name.partition("_")[0]) for name in _seen("DDTI"))


def _seen(source: str) -> Any:
    """Examinations by suffix of their second to fourth pictures (HC18), or names (DDTI)."""
    return json.loads((FOLDER / "published_names.json").read_text(encoding="utf-8"))[source]


SOURCES: dict[str, Frozen] = {
    "BUSI": Frozen(("breast cancer",), _busi),
    "CAMUS": Frozen(("left atrium", "left ventricle", "myocardium"), _camus),
    "DDTI": Frozen(("thyroid nodule",), _ddti, whole=False),
    "HC18": Frozen(("fetal head",), _hc18),
    "MMOTU": Frozen(("ovarian tumor",), _mmotu),
    "TN3K": Frozen(("thyroid nodule",), _tn3k),
    "UDIAT": Frozen(("breast cancer",), _udiat),
}


def cases_of(source: str) -> list[Case]:
    """The cases of a source before they are split; names stand in for the hashes of files that are not here."""
    return [
        Case(
            case_id=f"{tasks.find(task).code}/{source}/{picture.name}",
            image=f"{source}/images/{picture.name}.png",
            mask=f"{source}/masks/{tasks.find(task).code}/{picture.name}.png",
            task=task,
            source=source,
            group=picture.group,
            split="train",
            image_sha256=hashlib.sha256(f"{source}|{picture.name}".encode()).hexdigest(),
            mask_sha256=hashlib.sha256(f"{task}|{source}|{picture.name}".encode()).hexdigest(),
            labelled_place=labelled_place(source, picture.name),
        )
        for picture in SOURCES[source].pictures()
        for task in SOURCES[source].tasks
    ]


def table(source: str) -> str:
    """The frozen list of a source as CSV, in the order of the names."""
    cases = assign_splits(cases_of(source))
    by_name = {case.case_id.split("/", 2)[2]: case for case in cases}
    chosen = _chosen(source, cases)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for picture in sorted(SOURCES[source].pictures(), key=lambda picture: picture.name):
        case = by_name[picture.name]
        place = repr(case.labelled_place)
        writer.writerow([picture.name, case.group, case.split, place, picture.official, chosen.get(picture.name, "")])
    return stream.getvalue()


def _chosen(source: str, cases: tuple[Case, ...]) -> dict[str, str]:
    """For the pictures that the protocol takes, the codes of their tasks."""
    if not SOURCES[source].whole:
        return {}
    made, _ = apply_protocol(Datalist(FOLDER, cases, source), find_protocol(PROTOCOL))
    codes: dict[str, list[str]] = {}
    for code, _, name in sorted(case.case_id.split("/", 2) for case in made.cases):
        codes.setdefault(name, []).append(code)
    return {name: " ".join(each) for name, each in codes.items()}


def main() -> int:
    """Write or check every list; returns the exit code."""
    fresh = {_path(source): table(source) for source in SOURCES}
    stale = {path: text for path, text in fresh.items() if not path.is_file() or path.read_bytes() != text.encode()}
    if "--check" in sys.argv[1:]:
        print("\n".join(f"{path} differs; run datalists/freeze.py" for path in stale) or "all lists are current")
        return int(bool(stale))
    for path, text in stale.items():
        write_atomically(path, text.encode())
        print(f"written: {path}")
    return 0


def _path(source: str) -> Path:
    return FOLDER / "sources" / f"{source}.csv"


if __name__ == "__main__":
    sys.exit(main())
