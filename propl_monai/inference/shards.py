"""Parts of one prediction for several processes or machines that share the folder of results."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from propl_monai.common.files import lock_folder
from propl_monai.errors import ProPLError

FOLDER = "shards"  # of the papers of all shards, inside the folder of results


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, from 1. A file belongs to one shard by the SHA-256 of its name alone.

    So no process needs to know the others, and a file that is added to the inputs moves no other one to another shard, but
    for one that differs from it in the suffix alone: its results get another name (`input_files.find_inputs`).
    Shards are of equal size on average: of 10,000 files in ten shards, most get 1,000 ± 30.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard of a text such as "2/5"."""
        found = re.fullmatch(r"(\d+)/(\d+)", text, re.ASCII)
        number, count = (int(part) for part in found.groups()) if found else (0, 0)
        if not 1 <= number <= count:
            raise ProPLError("--shard", f"'{text}' is no part of a whole", "give I/N, such as 2/5, with I from 1 to N")
        return cls(number, count)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, name: str) -> bool:
        """Whether the file whose results have this name is of this shard."""
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8]) % self.count == self.number - 1

    def papers(self, output: Path) -> Path:
        """The folder for what this shard alone writes, its journal, run.json and measurements, in that of the results."""
        return output / FOLDER / f"{self.number}-of-{self.count}"


@contextmanager
def lock_results(output: Path, shard: Shard | None) -> Iterator[None]:
    """Make the folder of results one's own: shards of it together, each of them once; a run of all files alone."""
    with ExitStack() as held:
        held.enter_context(lock_folder(output, shared=shard is not None))
        if shard is not None:
            held.enter_context(lock_folder(shard.papers(output)))
        yield


def papers_of_shards(output: Path, name: str) -> list[Path]:
    """The files of this name among the papers of all shards."""
    return sorted(output.glob(f"{FOLDER}/*-of-*/{name}"))
