"""The benchmark of many files, with a few."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import growth


def test_every_stage_is_measured(tmp_path: Path) -> None:
    found = growth.measure(40, tmp_path)
    assert list(found) == [
        *("list", "first run", "all done before", "shard 1/2", "shard 2/2", "the whole after its shards"),
        *("lab: list, hash, verify", "lab: the list again"),
    ]
    assert all(seconds > 0 and memory > 10 for seconds, memory in found.values())


def test_papers_alone(tmp_path: Path) -> None:
    found = growth.measure(3, tmp_path, papers=True)
    assert list(found) == ["list", "journal, a line for each", "journal read again", "run.json"]
    record = json.loads((tmp_path / "papers" / "run.json").read_text())
    assert len(record["inputs"]) == len(record["outputs"]) == 3
