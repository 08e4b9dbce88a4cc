"""Protocols: the form, and reading one from a JSON file or by the name of one in the package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any

from propl_monai import tasks as registry
from propl_monai.common.files import require_file
from propl_monai.data.splits import parse_fraction
from propl_monai.errors import ProPLError, unknown

FORMAT = "propl-protocol/1"
LEVELS = ("group", "picture")
_PREFIX, _SUFFIX = "protocol.", ".json"


@dataclass(frozen=True)
class Share:
    """The share that a task takes from one source.

    Attributes:
        pictures: at most this many, whole groups only; None: all.
        of_each_group: at most this many of each group, chosen by hash, for videos of near-duplicate frames; None: all.
    """

    pictures: int | None = None
    of_each_group: int | None = None

    def __post_init__(self) -> None:
        for name, count in vars(self).items():
            if count is not None and (type(count) is not int or count < 1):
                raise ProPLError(name, f"{count!r} is not a count", "give a whole number of at least 1")


@dataclass(frozen=True)
class Protocol:
    """Which cases are used, and how they are split.

    Attributes:
        name: of the protocol, and of the datalists made by it.
        description: what it does, and why.
        level: "group", or "picture" for splits that ignore patients, examinations and videos.
        leaks: what leaks from train to test; None for nothing known.
        salt: of the hashes that choose pictures. Another salt is another benchmark.
        test: share of the groups that go to test.
        validation: share of the remaining groups.
        labelled: the fractions of train that the benchmark calls for, such as "1/8".
        tasks: for each task (a name of `tasks.NAMES`) and source the share; None takes every case, also without a mask.
    """

    name: str
    description: str
    level: str
    leaks: str | None
    salt: str
    test: float
    validation: float
    labelled: tuple[Fraction, ...]
    tasks: Mapping[str, Mapping[str, Share]] | None


def protocol_names() -> list[str]:
    """The names of the protocols in the package."""
    files = (Path(file.name) for file in resources.files("propl_monai.datasets").iterdir())
    return sorted(file.stem.removeprefix(_PREFIX) for file in files if file.match(f"{_PREFIX}*{_SUFFIX}"))


def find_protocol(name: str) -> Protocol:
    """The protocol of a name, or of a file when the name ends in `.json`."""
    if name.lower().endswith(_SUFFIX):
        return read_protocol(Path(name))
    if name not in protocol_names():
        raise unknown("--protocol", "protocol", name, [*protocol_names(), f"or a file that ends in {_SUFFIX}"])
    return read_protocol(Path(str(resources.files("propl_monai.datasets").joinpath(f"{_PREFIX}{name}{_SUFFIX}"))))


def read_protocol(path: Path) -> Protocol:
    """Read a protocol file; `datalists/README.md` describes it."""
    require_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # also of bytes that are no text
        raise ProPLError(path, f"is not valid JSON ({error})", "fix it, see datalists/README.md") from error
    try:
        return _to_protocol(content)
    except ProPLError as error:
        raise ProPLError(f"{path}, {error.where}", error.fact, error.cure) from error


def _to_protocol(content: Any) -> Protocol:
    _require_keys("the file", content, {"format", *(field.name for field in fields(Protocol))})
    if content.pop("format") != FORMAT:
        raise ProPLError("format", "is another one", f"this version reads {FORMAT!r}")
    if content["level"] not in LEVELS:
        raise unknown("level", "level", content["level"], LEVELS)
    for key in ("name", "description", "salt"):
        _require(key, isinstance(content[key], str) and content[key].strip(), "a text")
    leaks = content["leaks"]
    _require("leaks", leaks is None or (isinstance(leaks, str) and leaks), "a sentence, or null for nothing known")
    for key in ("test", "validation"):
        share = content[key]
        _require(key, type(share) in (int, float) and 0 <= share < 1, "a share of at least 0 and below 1")
    _require("labelled", isinstance(content["labelled"], list), 'a list of fractions such as ["1/8"]')
    content["labelled"] = tuple(parse_fraction(each) for each in content["labelled"])
    content["tasks"] = None if content["tasks"] is None else _to_tasks(content["tasks"])
    return Protocol(**content)


def _to_tasks(content: Any) -> dict[str, dict[str, Share]]:
    _require("tasks", isinstance(content, dict) and content, "tasks and their sources, or null for every case")
    made: dict[str, dict[str, Share]] = {}
    for task, sources in content.items():
        _require(f"tasks, {task}", isinstance(sources, dict) and sources, 'sources such as {"HC18": {"pictures": 800}}')
        shares = made.setdefault(registry.find(task, "tasks").name, {})
        for source, share in sources.items():
            _require_keys(f"tasks, {task}, {source}", share, {field.name for field in fields(Share)}, needed=False)
            shares[source] = Share(**share)
    return made


def _require(where: str, sound: object, words: str) -> None:
    if not sound:
        raise ProPLError(where, f"is not {words}", "fix it, see datalists/README.md")


def _require_keys(where: str, content: Any, known: set[str], needed: bool = True) -> None:
    _require(where, isinstance(content, dict), "an object")
    for key in content:
        if key not in known:
            raise unknown(where, "key", key, sorted(known))
    for key in sorted(known - content.keys()):
        if needed:
            raise ProPLError(where, f"has no key '{key}'", f"add '{key}', see datalists/README.md")
