"""What a format is."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from propl_monai.errors import ProPLError
from propl_monai.inference.formats.masks import Masks


class Format:
    """A format that masks are written in: files of each input, one file for the whole folder, or both.

    Attributes:
        name: in options.
        package: the module that it needs, of the extra `formats`; empty for none.
        shared: the name of its file for the whole folder; empty for none.
    """

    name: str
    package = ""
    shared = ""

    def require(self) -> Any:
        """The module of `package`, imported."""
        try:
            return import_module(self.package) if self.package else None
        except ImportError as error:
            fact = f"needs {self.package.partition('.')[0]}, which is not installed"
            raise ProPLError(f"--format {self.name}", fact, "pip install 'propl-monai[formats]'") from error

    def check(self, path: Path, name: str) -> None:
        """Refuse an input that this format cannot carry; `name` is that of its results."""

    def files(self, masks: Masks) -> dict[str, bytes]:
        """The files of one input: names relative to the output folder, and contents."""
        return {}

    def part(self, masks: Masks) -> list[Any]:
        """What the file for the whole folder says of one input, as JSON values, which the journal keeps."""
        return []

    def whole(self, parts: Sequence[Any]) -> bytes:
        """The file for the whole folder, from the elements of all parts."""
        return b""
