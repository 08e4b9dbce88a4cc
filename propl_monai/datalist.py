"""The datalist: which pictures there are, what they show, and which split each is in. Knows nothing of pixels or torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import Any

from propl_monai import tasks as registry
from propl_monai.cases import KEYS, OPTIONAL_KEYS, SPLITS, Case, check_cases, summarise
from propl_monai.errors import ProPLError, unknown
from propl_monai.files import require_file, write_atomically

__all__ = ["FORMAT", "Case", "Datalist", "as_items"]

FORMAT = "propl-datalist/1"
TOP_KEYS: tuple[str, ...] = ("format", "name", "description", "cases")


@dataclass(frozen=True)
class Datalist:
    """Cases that keep every rule of `propl_monai.cases`, and the folder that their paths start from.

    Attributes:
        root: folder that `Case.image` and `Case.mask` are relative to; not part of the file.
        cases: at least one case.
        name: short name for tables and messages.
        description: where the data come from, and what was noticed while reading them.

    Args:
        place: words for the case at an index, used in messages only; its number and id when None.

    Raises:
        ProPLError: a rule is broken; names the first few offending cases and how many there are.
    """

    root: Path
    cases: tuple[Case, ...]
    name: str
    description: str = ""
    place: InitVar[Callable[[int], str] | None] = None

    def __post_init__(self, place: Callable[[int], str] | None) -> None:
        check_cases(self.cases, self.name, place or (lambda index: f"case {index + 1} ({self.cases[index].case_id})"))

    @classmethod
    def read(cls, path: str | Path, root: str | Path | None = None) -> Datalist:
        """Read a datalist file.

        Args:
            path: a JSON file as `write` makes it; `datalists/schema.json` describes it.
            root: folder of the pictures; the folder of the file itself when None.

        Raises:
            ProPLError: the file is missing, is not JSON, or breaks a rule; with the line and the nearest valid name.
        """
        path = Path(path)
        text = _read_text(path)
        content = _parse(path, text)

        def place(index: int) -> str:
            return _place(path, text, content["cases"], index)

        cases = tuple(_to_cases(path, content["cases"], place))
        return cls(Path(root or path.parent), cases, content["name"], content.get("description", ""), place)

    def write(self, path: str | Path) -> None:
        """Write the datalist as JSON, one case a line in the order of their ids; whole or not at all."""
        head = json.dumps({"format": FORMAT, "name": self.name, "description": self.description}, **_PLAIN)
        lines = ",\n".join(json.dumps(row, **_PLAIN) for row in self._rows())
        write_atomically(Path(path), f'{head[:-1]}, "cases": [\n{lines}\n]}}\n'.encode())

    @property
    def sha256(self) -> str:
        """The hash of the cases alone: independent of root, name, description, and the order of cases and keys."""
        canonical = json.dumps(self._rows(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()

    def select(self, split: str | None = None, tasks: Sequence[str] | None = None) -> Datalist:
        """The cases of one split and of some tasks (names, codes or slugs); None means all.

        Raises:
            ProPLError: no such split or task, or no case is left.
        """
        if split is not None and split not in SPLITS:
            raise unknown(self.name, "split", split, SPLITS)
        names = None if tasks is None else {task.name for task in registry.find_all(tasks, self.name)}
        chosen = tuple(
            case for case in self.cases if split in (None, case.split) and (names is None or case.task in names)
        )
        if not chosen:
            wanted = f"split {split or 'any'} and task {', '.join(sorted(names)) if names else 'any'}"
            raise ProPLError(self.name, f"holds no case of {wanted}", "choose another split or task, or add data")
        return Datalist(self.root, chosen, self.name, self.description)

    def _rows(self) -> list[dict[str, Any]]:
        return [_to_row(case) for case in sorted(self.cases, key=lambda case: case.case_id)]


def as_items(cases: Iterable[Case], root: str | Path) -> list[dict[str, Any]]:
    """The cases as the dictionaries that MONAI datasets take: strings and numbers only, so that any collate works.

    Returns:
        One dictionary a case: `image` and `label` (absolute paths; no `label` key when there is no mask), `task`,
        `case_id`, `group`, `source`, and `pixel_spacing_mm` as `[row, column]`, `[0.0, 0.0]` when unknown.
    """
    folder = os.path.abspath(root)
    items = []
    for case in cases:
        item: dict[str, Any] = {"image": os.path.join(folder, *case.image.split("/"))}
        if case.mask is not None:
            item["label"] = os.path.join(folder, *case.mask.split("/"))
        item.update(task=case.task, case_id=case.case_id, group=case.group, source=case.source)
        item["pixel_spacing_mm"] = [float(length) for length in case.pixel_spacing_mm or (0.0, 0.0)]
        items.append(item)
    return items


_PLAIN: dict[str, Any] = {"ensure_ascii": False, "allow_nan": False}


def _to_row(case: Case) -> dict[str, Any]:
    row = dict(vars(case))
    if case.pixel_spacing_mm is not None:
        row["pixel_spacing_mm"] = [float(length) for length in case.pixel_spacing_mm]  # 1 and 1.0 must hash alike
    return row


def _read_text(path: Path) -> str:
    require_file(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProPLError(path, f"is not UTF-8 text (byte {error.start})", "save it as UTF-8") from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    """The outer object of a datalist file, with its own keys checked."""
    try:
        content = json.loads(text, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        fact = f"is not valid JSON: {error.msg} in column {error.colno}"
        raise ProPLError(f"{path}, line {error.lineno}", fact, "mend that line, or write the file anew") from error
    except ProPLError as error:
        raise ProPLError(path, error.fact, error.cure) from error
    if not isinstance(content, dict):
        raise ProPLError(path, "is JSON, but not an object", "see datalists/schema.json for the form of a datalist")
    faults = list(_key_faults(content, TOP_KEYS, {"description"}))
    if not faults and content["format"] != FORMAT:
        faults.append((f"has format {content['format']!r}, this version reads {FORMAT!r}", "write the file anew"))
    for key, kind in (("name", str), ("description", str), ("cases", list)):
        if key in content and not isinstance(content[key], kind):
            faults.append((f"'{key}' is not a {'text' if kind is str else 'list'}", "see datalists/schema.json"))
    if faults:
        raise summarise(path, [ProPLError(path, *fault) for fault in faults])
    return content


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of pairs; JSON allows a key twice and keeps the last one without a word."""
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ProPLError("", f"has the key '{repeated}' twice in one object (near {str(pairs[0])[:80]})", "keep one")
    return made


def _to_cases(path: Path, rows: list[Any], place: Callable[[int], str]) -> Iterable[Case]:
    problems = []
    allowed, required = set(KEYS), set(KEYS) - OPTIONAL_KEYS
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            problems.append(ProPLError(place(index), "is not an object", "see datalists/schema.json"))
        elif row.keys() <= allowed and row.keys() >= required:
            yield _to_case(row)
        else:
            problems += [ProPLError(place(index), *fault) for fault in _key_faults(row, KEYS, OPTIONAL_KEYS)]
    if problems:
        raise summarise(path, problems)


def _to_case(row: dict[str, Any]) -> Case:
    spacing = row.get("pixel_spacing_mm")
    if isinstance(spacing, list):
        row["pixel_spacing_mm"] = tuple(spacing)
    return Case(**{"mask": None, **row})


def _key_faults(row: dict[str, Any], known: Sequence[str], optional: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Facts and cures for keys that do not exist or are missing; an unknown key's cure names the nearest known one."""
    for key in row:
        if key not in known:
            error = unknown("", "key", key, known)
            yield error.fact, error.cure
    for key in known:
        if key not in row and key not in optional:
            yield f"has no key '{key}'", f"add '{key}', see datalists/schema.json"


def _place(path: Path, text: str, rows: list[Any], index: int) -> str:
    """File, line and id of a row, for a message; the line is found by looking for the id in the text."""
    row = rows[index]
    case_id = row.get("case_id") if isinstance(row, dict) else None
    start = text.find(f'"{case_id}"') if isinstance(case_id, str) else -1
    line = f", line {text.count(chr(10), 0, start) + 1}" if start >= 0 else ""
    return f"{path}{line}, case {index + 1}" + (f" ({case_id})" if case_id is not None else "")
