"""One prediction divided among several processes or machines that share the output folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from propl_monai.common.files import lock_folder
from propl_monai.errors import ProPLError


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, from 1. The SHA-256 of a file's name alone decides which shard it belongs to.

    So no process needs to know the others, and a file added to the inputs moves no other file to another shard, except one
    that differs from it only in the suffix: the name of its results changes (`inputs.find_inputs`).
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
        """Whether the file whose results have this name belongs to this shard."""
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8]) % self.count == self.number - 1

    def folder(self, output: Path) -> Path:
        """The folder in the output folder for this shard's own journal, run.json and measurements.csv."""
        return output / "shards" / f"{self.number}-of-{self.count}"


@contextmanager
def lock_results(output: Path, shard: Shard | None) -> Iterator[None]:
    """Lock the output folder: for all files alone, or for one shard, beside other shards but not twice the same one."""
    with ExitStack() as held:
        held.enter_context(lock_folder(output, shared=shard is not None))
        if shard is not None:
            held.enter_context(lock_folder(shard.folder(output)))
        yield


def files_of_shards(output: Path, name: str) -> list[Path]:
    """The files of this name in the folders of all shards."""
    return sorted(output.glob(f"shards/*-of-*/{name}"))
