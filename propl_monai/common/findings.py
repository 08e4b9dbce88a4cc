"""One thing that a check found: what every check of this package reports, whatever it checks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or worth a look.

    Attributes:
        code: a short name to count by, such as `E-SIZE`; those of a verification start with E (error) or W (warning).
        where: the file, group or setting.
        fact: what is wrong with it.
        cure: what the user can do about it.
        case_id: a case that uses the file; None where no case is meant.
    """

    code: str
    where: str
    fact: str
    cure: str
    case_id: str | None = None

    @property
    def is_error(self) -> bool:
        """Whether the code is that of an error."""
        return self.code.startswith("E-")

    def __str__(self) -> str:
        return f"{self.code} {self.where}: {self.fact}; {self.cure}"
