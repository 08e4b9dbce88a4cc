"""Apply a protocol to a datalist: choose the cases, split them, and report the result.

The splits are assigned before anything is chosen, so that a group has the same split under every protocol of one level,
and training on more never meets what a smaller protocol tests on. What is chosen depends on hashes of source, group and
name alone: not on order, on the bytes that an encoder wrote, or on tasks and sources added later.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from propl_monai import tasks as registry
from propl_monai.data.cases import SPLITS, Case, picture_name
from propl_monai.data.datalist import Datalist
from propl_monai.data.splits import GroupKey, TaskSource, assign_splits, find_units, labelled_images, labelled_place
from propl_monai.data.splits import unit_interval as place_of
from propl_monai.datasets.protocol import Protocol, Share, find_protocol
from propl_monai.errors import ProPLError

SUM = "all"  # in the place of a source


@dataclass(frozen=True)
class Row:
    """The result for one task, or for one source of it.

    Attributes:
        task: its name.
        source: its source, or `SUM` for the sum of several.
        found: cases of the datalist that have a mask.
        wanted: pictures that the protocol wants; None: as many as there are.
        splits: cases chosen, by split.
        labelled: train cases that count as labelled, by fraction.
    """

    task: str
    source: str
    found: int
    wanted: int | None
    splits: Mapping[str, int]
    labelled: Mapping[str, int]

    @property
    def chosen(self) -> int:
        """Cases in all splits."""
        return sum(self.splits.values())


@dataclass(frozen=True)
class Report:
    """The result of a protocol; as text a table, and a line for each source with too few pictures.

    Attributes:
        protocol: what was applied.
        rows: for each task its sources, and their sum where there are several.
    """

    protocol: Protocol
    rows: tuple[Row, ...]

    @property
    def missing(self) -> list[str]:
        """One line for each source that has fewer pictures than wanted."""
        return [
            f"{row.task}, {row.source}: {row.chosen} of {row.wanted} pictures ({row.found} with a mask in the datalist)"
            for row in self.rows
            if row.wanted is not None and row.chosen < row.wanted and row.source != SUM
        ]

    def __str__(self) -> str:
        fractions = list(map(str, self.protocol.labelled))
        table = [["task", "source", "found", "wanted", "chosen", *SPLITS, *fractions]]
        for row in self.rows:
            numbers = [row.found, "all" if row.wanted is None else row.wanted, row.chosen]
            numbers += [row.splits[split] for split in SPLITS] + [row.labelled[fraction] for fraction in fractions]
            table.append([row.task, row.source, *map(str, numbers)])
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [f"Protocol {self.protocol.name}"]
        lines += [f"LEAKS: {self.protocol.leaks}"] if self.protocol.leaks else []
        lines += ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in table]
        lines += [f"fewer than wanted: {line}" for line in self.missing]
        return "\n".join([*lines, "Paths start from the same folder as before: train with that dataset_dir"])


def split_datalist(file: str | Path, protocol: str, output: str | Path) -> Report:
    """Read a datalist, apply a protocol and write the result.

    Args:
        file: the datalist.
        protocol: a name of `protocol_names`, or a protocol file that ends in `.json`.
        output: the datalist to write; another one, as a protocol leaves cases and groups out.
    """
    file, output = Path(file), Path(output)
    if output.resolve() == file.resolve():
        fact = "is the datalist itself, and a protocol leaves out cases and groups"
        raise ProPLError(output, fact, "give another name for the result")
    if output.exists():
        Datalist.read(output)  # another file of that name is refused, not overwritten
    wanted = find_protocol(protocol)
    made, report = apply_protocol(Datalist.read(file), wanted)
    made.write(output)
    return report


def apply_protocol(datalist: Datalist, protocol: Protocol) -> tuple[Datalist, Report]:
    """Choose and split the cases of a datalist; their present splits are ignored.

    Returns:
        The new datalist, whose cases all have a `labelled_place`, and the report.
    """
    cases = [
        replace(case, labelled_place=labelled_place(case.source, picture_name(case)))
        if case.labelled_place is None
        else case
        for case in datalist.cases
    ]
    if protocol.level == "picture":
        cases = [replace(case, group=picture_name(case)) for case in cases]
    placed = assign_splits(cases, protocol.test, protocol.validation)
    chosen = placed if protocol.tasks is None else _choose(placed, protocol.tasks, protocol.salt)
    if not chosen:
        sources = "; ".join(f"{task}: {', '.join(shares)}" for task, shares in (protocol.tasks or {}).items())
        fact = f"holds no picture with a mask that protocol {protocol.name} takes"
        raise ProPLError(datalist.name, fact, f"prepare at least one of its sources ({sources})")
    leaks = f"LEAKS: {protocol.leaks}. " if protocol.leaks else ""
    description = f"{leaks}Protocol {protocol.name}: {protocol.description} {datalist.description}".strip()
    made = Datalist(datalist.root, chosen, f"{datalist.name} ({protocol.name})", description)
    return made, Report(protocol, tuple(_rows(protocol, datalist.cases, made.cases)))


def _choose(cases: Sequence[Case], tasks: Mapping[str, Mapping[str, Share]], salt: str) -> tuple[Case, ...]:
    """The cases that the shares select, in the order given; only those with a mask."""
    homes = {key: unit.keys for unit in find_units(cases) for key in unit.keys}
    pools: dict[TaskSource, dict[tuple[GroupKey, ...], list[Case]]] = defaultdict(lambda: defaultdict(list))
    for case in cases:
        if case.mask is not None:
            pools[case.task, case.source][homes[case.source, case.group]].append(case)
    chosen: set[str] = set()
    for task, shares in tasks.items():
        for source, share in shares.items():
            chosen |= {case.case_id for case in _take(pools[task, source], share, salt)}
    return tuple(case for case in cases if case.case_id in chosen)


def _take(units: Mapping[tuple[GroupKey, ...], list[Case]], share: Share, salt: str) -> list[Case]:
    """Whole units in the order of their hashes, the same under every task; one that would be too many is passed over."""
    taken: list[Case] = []
    for keys in sorted(units, key=lambda keys: (place_of(salt, *keys[0]), keys)):
        own = sorted(units[keys], key=lambda case: (place_of(salt, case.source, picture_name(case)), case.case_id))
        own = own[: share.of_each_group]
        if share.pictures is None or len(taken) + len(own) <= share.pictures:
            taken += own
    return taken


def _rows(protocol: Protocol, before: Iterable[Case], after: Sequence[Case]) -> Iterable[Row]:
    """The rows of the report, in the order of the protocol's tasks, or of the registry."""
    found = Counter((case.task, case.source) for case in before if case.mask is not None)
    splits = Counter(((case.task, case.source), case.split) for case in after)
    labelled: dict[str, Counter[TaskSource]] = {}
    for fraction in protocol.labelled:
        ids = labelled_images(after, fraction)
        labelled[str(fraction)] = Counter((case.task, case.source) for case in after if case.case_id in ids)
    for task, shares in (protocol.tasks or _every_share(after)).items():
        parts = [(source, {source: share}) for source, share in shares.items()]
        for name, part in parts if len(parts) == 1 else [*parts, (SUM, dict(shares))]:
            wanted = [share.pictures for share in part.values() if share.pictures is not None]
            yield Row(
                task,
                name,
                sum(found[task, source] for source in part),
                sum(wanted) if len(wanted) == len(part) else None,
                {split: sum(splits[(task, source), split] for source in part) for split in SPLITS},
                {fraction: sum(counts[task, source] for source in part) for fraction, counts in labelled.items()},
            )


def _every_share(cases: Iterable[Case]) -> dict[str, dict[str, Share]]:
    shares: dict[str, dict[str, Share]] = {task: {} for task in registry.NAMES}
    for task, source in sorted({(case.task, case.source) for case in cases}):
        shares[task][source] = Share()
    return {task: sources for task, sources in shares.items() if sources}
