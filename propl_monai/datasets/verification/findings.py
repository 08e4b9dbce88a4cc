"""The findings of a verification, as text and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from propl_monai.common.findings import Finding
from propl_monai.data.cases import Coverage

SCHEMA = "propl-verification/1"
PATHS_SHOWN = 5

# E-...: training on it would fail or mislead, W-...: sound, but worth a look.
CODES: dict[str, str] = {
    "E-DATALIST": "an entry of the datalist that breaks its rules",
    "E-MISSING": "a file that is not there",
    "E-DECODE": "a file that cannot be read as a picture",
    "E-FORMAT": "a picture that is not one frame of 8 or 16 bits",
    "E-HUGE": "a picture with more pixels than are decoded",
    "E-NONFINITE": "NaN or infinity in a picture",
    "E-TINY": "a picture too small to show anything",
    "E-HASH": "a file that was changed after the datalist was made",
    "E-SIZE": "a mask of another size than its image",
    "E-LOSSY": "a mask that lossy compression has blurred",
    "E-LABELS": "a mask of more than two values",
    "E-LEAK-EXACT": "one picture in two splits",
    "E-LEAK-FILE": "one file in two splits",
    "E-LEAK-GROUP": "one patient, examination or video in two splits",
    "E-LEAK-TASK": "tasks that share pictures, but not their splits",
    "W-LEAK-NEAR": "nearly one picture in two splits, under two groups",
    "W-DUPLICATE": "the same or nearly one picture in one split, under two groups",
    "W-CONSTANT": "a picture of one value",
    "W-TINY": "a very small picture",
    "W-SUFFIX": "a picture whose name says another type",
    "W-EMPTY": "a mask without foreground",
    "W-FULL": "a mask without background",
    "W-SPECK": "a mask of a few pixels",
    "W-INVERTED": "a mask that may be inverted",
    "W-TURNED": "a picture that its EXIF orientation turns",
    "W-MASKS": "one picture with unequal masks in one split",
}


@dataclass(frozen=True)
class Verification:
    """The result of one verification.

    Attributes:
        name: of the datalist or its file.
        findings: errors first, by code, then by path.
        cases: number of sound cases.
        files: size in bytes and time of change in ns of every file that is there, by its path relative to the root.
        sha256: of the datalist, see `Datalist.sha256`; empty when it breaks its rules.
        seconds: that it took.
        grouped, spaced: see `Coverage`.
    """

    name: str
    findings: tuple[Finding, ...]
    cases: int
    files: Mapping[str, tuple[int, int]] = field(repr=False)
    sha256: str
    seconds: float
    grouped: int = 0
    spaced: int = 0

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that training refuses."""
        return tuple(finding for finding in self.findings if finding.is_error)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that are worth a look."""
        return tuple(finding for finding in self.findings if not finding.is_error)

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings by code, errors first."""
        return dict(Counter(finding.code for finding in self.findings))

    def to_json(self) -> dict[str, Any]:
        """The whole result but for the times of the files, as JSON values."""
        return {
            "schema": SCHEMA,
            "datalist": self.name,
            "datalist_sha256": self.sha256 or None,
            "cases": self.cases,
            "cases_with_group": self.grouped,
            "cases_with_spacing": self.spaced,
            "files": len(self.files),
            "seconds": round(self.seconds, 2),
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "counts": self.counts,
            "findings": [
                {"code": each.code, "path": each.where, "case_id": each.case_id, "fact": each.fact, "cure": each.cure}
                for each in self.findings
            ],
        }

    def to_text(self, shown: int = PATHS_SHOWN) -> str:
        """A report for a terminal: each code with its number, its first findings, and what to do.

        Args:
            shown: findings of one code that are written out.
        """
        files = f"{self.cases:,} cases, {len(self.files):,} files, {self.seconds:.1f} s"
        counts = f"{len(self.errors)} errors, {len(self.warnings)} warnings" if self.findings else "nothing wrong"
        lines = [f"{self.name}: {files}: {counts}", str(Coverage(self.cases, self.grouped, self.spaced))]
        for code, group in groupby(self.findings, key=lambda finding: finding.code):
            lines += _section(code, list(group), shown)
        return "\n".join(lines)


def _section(code: str, findings: Sequence[Finding], shown: int) -> list[str]:
    """The lines of one code; a cure that the next finding has too is written once, below the last of them."""
    lines = ["", f"{code}  {len(findings)}  {CODES[code]}"]
    first = findings[:shown]
    for number, finding in enumerate(first, 1):
        lines.append(f"  {finding.where}: {finding.fact}")
        if number == len(first) or first[number].cure != finding.cure:
            lines.append(f"    -> {finding.cure}")
    if len(findings) > shown:
        lines.append(f"  and {len(findings) - shown} more")
    return lines


def in_order(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Errors first, in the order of `CODES`, then by path, then as they came; each once."""
    rank = {code: number for number, code in enumerate(CODES)}
    return tuple(sorted(dict.fromkeys(findings), key=lambda found: (rank[found.code], found.where)))
