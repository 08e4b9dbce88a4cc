"""The datalist: the pictures, their tasks and their splits. Knows nothing of pixels or torch."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import InitVar, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from propl_monai import tasks as registry
from propl_monai.common.files import require_file, write_atomically
from propl_monai.common.findings import Finding
from propl_monai.data import cases as rules
from propl_monai.data.cases import BAD_ENTRY, Broken, Case, summarise
from propl_monai.errors import ProPLError, unknown

__all__ = ["FORMAT", "Case", "Datalist", "as_items"]

FORMAT = "propl-datalist/1"
TOP_KEYS: tuple[str, ...] = ("format", "name", "description", "cases")


@dataclass(frozen=True)
class Datalist:
    """Cases that keep every rule of `propl_monai.data.cases`, and the folder that their paths start from.

    Attributes:
        root: folder that `Case.image` and `Case.mask` are relative to; not part of the file.
        cases: at least one case.
        name: short name for tables and messages.
        description: where the data come from, and what was noticed while reading them.

    Args:
        place: words for the case at an index, used in messages only; its number and id when None.
    """

    root: Path
    cases: tuple[Case, ...]
    name: str
    description: str = ""
    place: InitVar[Callable[[int], str] | None] = None

    def __post_init__(self, place: Callable[[int], str] | None) -> None:
        rules.check_cases(
            self.cases, self.name, place or (lambda index: f"case {index + 1} ({self.cases[index].case_id})")
        )

    @classmethod
    def read(cls, path: str | Path, root: str | Path | None = None) -> Datalist:
        """Read a datalist file.

        Args:
            path: a JSON file as `write` makes it; `datalists/schema.json` describes it.
            root: folder of the pictures; the folder of the file itself when None.
        """
        path = Path(path)
        text = _read_text(path)
        content = _parse(path, text)
        rows, place = content["cases"], _Places(path, text, content["cases"])
        broken = list(_broken_rows(rows))
        if broken:
            raise summarise(path, [ProPLError(place(index), rule.fact, rule.cure) for index, rule in broken])
        cases = tuple(map(_to_case, rows))
        return cls(Path(root or path.parent), cases, content["name"], content.get("description", ""), place)

    def write(self, path: str | Path) -> None:
        """Write the datalist as JSON, one case per line in the order of their ids; whole or not at all."""
        head = json.dumps({"format": FORMAT, "name": self.name, "description": self.description}, **_PLAIN)
        lines = ",\n".join(json.dumps(row, **_PLAIN) for row in self._rows())
        text = f'{head[:-1]}, "cases": [\n{lines}\n]}}\n'
        # The name may come from a file name that is not UTF-8; escaped like this it is still JSON.
        write_atomically(Path(path), text.encode("utf-8", "backslashreplace"))

    @property
    def sha256(self) -> str:
        """The hash of the cases alone: independent of root, name, description, and the order of cases and keys."""
        canonical = json.dumps(self._rows(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()

    def select(self, split: str | None = None, tasks: Sequence[str] | None = None) -> Datalist:
        """The cases of one split and of some tasks (names, codes or slugs); None means all."""
        if split is not None and split not in rules.SPLITS:
            raise unknown(self.name, "split", split, rules.SPLITS)
        names = None if tasks is None else {task.name for task in registry.find_all(tasks, self.name)}
        of_tasks = [case for case in self.cases if names is None or case.task in names]
        chosen = tuple(case for case in of_tasks if split in (None, case.split))
        if not chosen:
            wanted = f"split {split or 'any'} and task {', '.join(sorted(names)) if names else 'any'}"
            raise ProPLError(self.name, f"holds no case of {wanted}", "choose another split or task, or add data")
        return Datalist(self.root, chosen, self.name, self.description)

    def _rows(self) -> list[dict[str, Any]]:
        return [_to_row(case) for case in sorted(self.cases, key=lambda case: case.case_id)]


def examine(path: str | Path) -> tuple[tuple[Case, ...], tuple[Finding, ...]]:
    """The valid cases of a datalist file, and all faults of the others.

    A file that is no datalist at all gives one finding and no case. What breaks a rule is reported under the name of the
    datalist, with the line of the case; what is in two splits is reported under the name of the picture.
    """
    path = Path(path)
    try:
        text = _read_text(path)
        rows = _parse(path, text)["cases"]
    except ProPLError as error:
        place = error.where.removeprefix(str(path)).removeprefix(", ")
        return (), (Finding(BAD_ENTRY, path.name, f"{place}: {error.fact}".removeprefix(": "), error.cure),)
    if not rows:
        return (), (Finding(BAD_ENTRY, path.name, "holds no case", "add at least one picture"),)
    broken = list(_broken_rows(rows))
    readable = _others(range(len(rows)), broken)
    cases = {index: _to_case(rows[index]) for index in readable}
    values = [(readable[index], rule) for index, rule in rules.broken_values(cases.values())]
    valid = _others(readable, values)
    between = [(valid[index], rule) for index, rule in rules.broken_between([cases[index] for index in valid])]
    places = _Places(path, text, rows)
    found = []
    for index, rule in sorted([*broken, *values, *between], key=lambda each: each[0]):
        case, fact = cases.get(index), f"{rule.where} {rule.fact}".strip()
        if case is not None and rule.code != BAD_ENTRY:
            found.append(replace(rule, where=case.image, fact=fact, case_id=case.case_id))
        else:
            case_id = case.case_id if case and rule.where else None
            found.append(replace(rule, where=path.name, fact=f"{places.within(index)}: {fact}", case_id=case_id))
    return tuple(cases[index] for index in valid), tuple(found)


def _others(indexes: Iterable[int], broken: list[Broken]) -> list[int]:
    """The indexes that break no rule."""
    guilty = {index for index, _ in broken}
    return [index for index in indexes if index not in guilty]


def as_items(cases: Iterable[Case], root: str | Path) -> list[dict[str, Any]]:
    """The cases as the dictionaries that MONAI datasets take: strings and numbers only, so that any collate works.

    Returns:
        One dictionary per case: `image` and `label` (absolute paths; no `label` key when there is no mask), `task`,
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
    if case.labelled_place is None:
        del row["labelled_place"]  # lists that were written before this key keep their hash
    else:
        row["labelled_place"] = float(case.labelled_place)
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
        raise ProPLError(f"{path}, line {error.lineno}", fact, "fix that line, or write the file again") from error
    except ProPLError as error:
        raise ProPLError(path, error.fact, error.cure) from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, thousands of brackets
        raise ProPLError(path, "holds JSON that no datalist needs", "write the file again") from error
    if not isinstance(content, dict):
        raise ProPLError(path, "is JSON, but not an object", "see datalists/schema.json for the form of a datalist")
    faults = list(_key_faults(content, TOP_KEYS, {"description"}))
    if not faults and content["format"] != FORMAT:
        faults.append((f"has format {content['format']!r}, this version reads {FORMAT!r}", "write the file again"))
    for key, kind in (("name", str), ("description", str), ("cases", list)):
        if key in content and not isinstance(content[key], kind):
            faults.append((f"'{key}' is not a {'text' if kind is str else 'list'}", "see datalists/schema.json"))
    if faults:
        raise summarise(path, [ProPLError(path, *fault) for fault in faults])
    return content


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of pairs; JSON allows a key twice and silently keeps the last one."""
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ProPLError("", f"has the key '{repeated}' twice in one object (near {str(pairs[0])[:80]})", "keep one")
    return made


def _broken_rows(rows: list[Any]) -> Iterator[Broken]:
    """Rows that are no objects, or whose keys are not those of a case."""
    allowed, required = set(rules.KEYS), set(rules.KEYS) - rules.OPTIONAL_KEYS
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            yield index, Finding(BAD_ENTRY, "", "is not an object", "see datalists/schema.json")
        elif not required <= row.keys() <= allowed:
            for fact, cure in _key_faults(row, rules.KEYS, rules.OPTIONAL_KEYS):
                yield index, Finding(BAD_ENTRY, "", fact, cure)


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


class _Places:
    """File, line and id of a row, for messages; the lines are looked up once, on first use."""

    def __init__(self, path: Path, text: str, rows: list[Any]) -> None:
        self.path, self.text, self.rows = path, text, rows

    def __call__(self, index: int) -> str:
        return f"{self.path}, {self.within(index)}"

    def within(self, index: int) -> str:
        """The same without the file."""
        row = self.rows[index]
        case_id = row.get("case_id") if isinstance(row, dict) else None
        line = self._lines.get(case_id) if isinstance(case_id, str) else None
        named = f" ({case_id})" if case_id is not None else ""
        return (f"line {line}, " if line else "") + f"case {index + 1}{named}"

    @cached_property
    def _lines(self) -> dict[str, int]:
        """The line of each id, of its first one when it is there twice."""
        found: dict[str, int] = {}
        line, end = 1, 0
        for match in re.finditer(r'"case_id"\s*:\s*("(?:[^"\\]|\\.)*")', self.text):
            line += self.text.count("\n", end, match.start(1))
            end = match.start(1)
            found.setdefault(json.loads(match[1]), line)
        return found
