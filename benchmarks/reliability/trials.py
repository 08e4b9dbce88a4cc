"""A row of the table: a fault, how often it was tried, how often it did harm."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FIRST_FAULTS = 3  # that a note quotes


@dataclass
class Tally:
    """Trials of a row.

    Attributes:
        tried: number of trials.
        faults: one line for each trial that did harm.
        notes: what a reader should know beside the numbers.
        not_run: why the row, or a part of it, could not be tried here.
        seconds: that it took.
        processor: seconds of one core that it took, of all of its processes, where they were waited for.
    """

    tried: int = 0
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    not_run: str = ""
    seconds: float = 0.0
    processor: float = 0.0

    def trial(self, survived: bool, fault: object) -> bool:
        """Count one trial; `fault` says which, should it not have survived."""
        self.tried += 1
        if not survived:
            self.faults.append(str(fault))
        return survived

    def add(self, other: Tally) -> None:
        """Take over the trials of another part of the row."""
        self.tried += other.tried
        self.faults += other.faults
        self.notes += other.notes
        self.seconds += other.seconds
        self.processor += other.processor
        self.not_run = "; ".join(filter(None, (self.not_run, other.not_run)))


@dataclass(frozen=True)
class Room:
    """What a row gets to work with.

    Attributes:
        folder: of its own, empty.
        share: of the full number of trials, above 0 and at most 1.
    """

    folder: Path
    share: float = 1.0

    def times(self, full: int) -> int:
        """A share of so many trials, at least one."""
        return max(1, round(full * self.share))

    def sub(self, name: str) -> Path:
        """A new folder."""
        folder = self.folder / name
        folder.mkdir(parents=True)
        return folder


@dataclass(frozen=True)
class Row:
    """A kind of fault.

    Attributes:
        name: letter and number, such as T1.
        fault: in words.
        own: trials of its own; None where the tests are all.
        tests: files and tests of the suite that plant it, for pytest.
        options: more words for pytest, which runs the tests of the row apart then.
        not_run: what of the row cannot be tried by this command, and why.
    """

    name: str
    fault: str
    own: Callable[[Room], Tally] | None = None
    tests: Sequence[str] = ()
    options: Sequence[str] = ()
    not_run: str = ""

    def run(self, room: Room) -> Tally:
        """The trials of its own. Whatever goes wrong in a trial itself counts as harm: nothing was shown then."""
        tally, begun, used = Tally(not_run=self.not_run), time.monotonic(), processor_seconds()
        try:
            if self.own is not None:
                tally.add(self.own(room))
        except Exception as error:
            traceback.print_exc()
            tally.trial(False, f"the trial itself failed: {type(error).__name__}: {error}")
        tally.seconds, tally.processor = time.monotonic() - begun, processor_seconds() - used
        return tally

    def result(self, tally: Tally) -> dict[str, Any]:
        """For the table."""
        times = {"seconds": round(tally.seconds, 1), "processor": round(tally.processor, 1)}
        return {"row": self.name, "fault": self.fault, **asdict(tally), **times}


def processor_seconds() -> float:
    """Of this process so far, and of those that it has waited for."""
    return sum(os.times()[:4])


def table(results: Sequence[dict[str, Any]]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| row | fault | tried | survived | lost | core s | note |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for result in results:
        tried, lost = result["tried"], len(result["faults"])
        numbers = (
            f"{tried:,} | {tried - lost:,} | {lost:,} | {result['processor']:.0f}" if tried else "not run | – | – | –"
        )
        told = [*result["faults"][:FIRST_FAULTS], *result["notes"]]
        told += [f"not run: {result['not_run']}"] if result["not_run"] else []
        note = "; ".join(told).replace("|", "/").replace("\n", " ")
        lines.append(f"| {result['row']} | {result['fault']} | {numbers} | {note} |")
    tried, lost = sum(result["tried"] for result in results), sum(len(result["faults"]) for result in results)
    seconds = sum(result["processor"] for result in results)
    lines.append(f"| all | | {tried:,} | {tried - lost:,} | {lost:,} | {seconds:.0f} | |")
    return "\n".join(lines)
