"""The frozen lists of `datalists/sources`: complete, and exactly what the package gives for the published names."""

from __future__ import annotations

import csv
import hashlib
import runpy
from collections import Counter, defaultdict

import pytest
from factories import ROOT

from propl_monai.datasets.protocol import find_protocol
from propl_monai.datasets.sources import busi

DATALISTS = ROOT / "datalists"
FREEZE = runpy.run_path(str(DATALISTS / "freeze.py"))
COUNTS = {"BUSI": 623, "CAMUS": 2000, "DDTI": 270, "HC18": 999, "MMOTU": 1469, "TN3K": 3493, "UDIAT": 163}
PROTOCOL = "universal-8x800"


def read(source: str) -> list[dict[str, str]]:
    with (DATALISTS / "sources" / f"{source}.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def place(*parts: str) -> float:
    """The published rule, written out a second time."""
    return int(hashlib.sha256("|".join(parts).encode()).hexdigest()[:13], 16) / 16**13


def test_every_source_is_there_and_small() -> None:
    files = {path.stem for path in (DATALISTS / "sources").iterdir()}
    assert files == set(COUNTS) == set(FREEZE["SOURCES"])
    assert sum(path.stat().st_size for path in DATALISTS.rglob("*.*")) < 1_000_000
    text = (DATALISTS / "README.md").read_text(encoding="utf-8")
    assert all(f"`sources/{source}.csv`" in text for source in files)


@pytest.mark.parametrize("source", COUNTS)
def test_list_is_what_the_package_gives(source: str) -> None:
    assert (DATALISTS / "sources" / f"{source}.csv").read_text(encoding="utf-8") == FREEZE["table"](source)


@pytest.mark.parametrize("source,count", COUNTS.items())
def test_list_follows_the_published_rule(source: str, count: int) -> None:
    rows = read(source)
    assert len({row["name"] for row in rows}) == len(rows) == count
    for row in rows:
        at = place("propl-monai-split-1", source, row["group"])
        # All these sources have 40 groups or more: thresholds 0.25 and 0.25 + 0.75 × 0.15.
        assert row["split"] == ("test" if at < 0.25 else "validation" if at < 0.3625 else "train")
        assert float(row["labelled_place"]) == place("propl-monai-labelled-names-1", source, row["name"])


@pytest.mark.parametrize("source", COUNTS)
def test_protocol_takes_whole_groups_of_its_number(source: str) -> None:
    rows, wanted = read(source), find_protocol(PROTOCOL).tasks
    if source == "DDTI":
        assert {row[PROTOCOL] for row in rows} == {""}  # not all names are known
        return
    groups: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        groups[row["group"]].add(row[PROTOCOL])
    assert all(len(codes) == 1 for codes in groups.values())
    assert wanted is not None
    for task, shares in wanted.items():
        if source in shares:
            code = FREEZE["tasks"].find(task).code
            taken = sum(code in row[PROTOCOL].split() for row in rows)
            assert taken == min(shares[source].pictures or 0, len(rows))


def test_names_and_groups_are_those_of_the_publishers() -> None:
    names = {source: {row["name"]: row for row in read(source)} for source in COUNTS}
    left_out = set(busi.NEAR_DUPLICATES)
    assert len(left_out) == 24 and not left_out & names["BUSI"].keys()
    benign = {f"benign ({number})" for number in range(1, 438)} - left_out
    assert benign < names["BUSI"].keys() and "malignant (210)" in names["BUSI"]
    assert {"000001", "000163"} < names["UDIAT"].keys()
    assert {"1", "1469"} < names["MMOTU"].keys()
    assert names["HC18"]["010_2HC"]["group"] == names["HC18"]["010_HC"]["group"] == "010"
    # Published counts of first to fourth pictures of an examination.
    assert Counter(name.partition("_")[2] for name in names["HC18"]) == {"HC": 806, "2HC": 164, "3HC": 23, "4HC": 6}
    assert names["CAMUS"]["patient0001_2CH_ED"]["group"] == "patient0001"
    assert len({row["group"] for row in read("CAMUS")}) == 500
    assert Counter(name.partition("_")[0] for name in names["TN3K"]) == {"trainval": 2879, "test": 614}
    assert names["DDTI"]["58_2"]["group"] == "58"


def test_official_splits() -> None:
    patients = {row["group"]: row["official_split"] for row in read("CAMUS")}
    assert Counter(patients.values()) == {"train": 400, "validation": 50, "test": 50}
    assert (patients["patient0001"], patients["patient0200"], patients["patient0027"]) == (
        "train",
        "validation",
        "test",
    )
    folds = Counter(row["official_split"] for row in read("TN3K"))
    assert folds == {"fold0": 576, "fold1": 576, "fold2": 576, "fold3": 576, "fold4": 575, "test": 614}
    assert {row["official_split"] for row in read("HC18")} == {"train"}
    assert {row["official_split"] for source in ("BUSI", "UDIAT", "MMOTU", "DDTI") for row in read(source)} == {""}
