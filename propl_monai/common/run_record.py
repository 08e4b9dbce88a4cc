"""run.json: options, inputs, outputs, results and findings of a run. One schema for every verb."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import propl_monai
from propl_monai.common.files import file_sha256, write_atomically
from propl_monai.errors import EXIT_BAD_INPUT, EXIT_OK, EXIT_PARTIAL, ProPLError

SCHEMA = 1
JOURNAL = "predictions.jsonl"  # of an output folder of predictions
PACKAGES: tuple[str, ...] = (
    *("torch", "monai", "pytorch-ignite", "timm", "onnxruntime", "numpy", "scipy", "pandas", "pillow", "nibabel"),
    "safetensors",
)


class RunRecord:
    """Collects the facts of one run and writes its run.json; see `common/run.schema.json`.

    A run.json of another verb is not replaced: it is what evaluation, report and release know of that run.

    Args:
        path: of run.json.
        verb: "train", "evaluate", "predict", …
        options: the settings of the run, JSON values.
        inputs: files that it read; each is recorded with its sha256.
    """

    def __init__(
        self, path: Path | str, verb: str, options: Mapping[str, Any], inputs: Iterable[Path | str] = ()
    ) -> None:
        self.path = Path(path)
        refuse_other_run(self.path, verb)
        self._clock = time.monotonic()
        self.content: dict[str, Any] = {
            "schema": SCHEMA,
            "verb": verb,
            "status": "running",
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": 0.0,
            "command": command(),
            "versions": versions(),
            "commit": commit(),
            "machine": {"system": platform.platform(), "processor": platform.machine()},
            "options": dict(options),
            "inputs": [],  # they and the outputs may be a hundred thousand: see `_pieces`
            "outputs": [],
            "results": {},
            "findings": [],
        }
        self._inputs = [(str(path), file_sha256(Path(path))) for path in inputs]

    def add_input(self, path: Path | str, sha256: str) -> None:
        """Record one more file that was read."""
        self._inputs.append((str(path), sha256))

    def finding(self, path: Path | str, message: str) -> None:
        """Record an input that was refused, and why."""
        self.content["findings"].append({"path": str(path), "message": message})

    def write(self, status: str, outputs: Iterable[Path | str] = (), results: Mapping[str, Any] | None = None) -> None:
        """Write run.json.

        Args:
            status: "running", "finished", "partial" (some inputs were refused) or "failed".
            outputs: files that exist now; they are listed while the file is written.
            results: numbers of the run, JSON values.
        """
        self.content["status"] = status
        self.content["seconds"] = round(time.monotonic() - self._clock, 2)
        if results is not None:
            self.content["results"] = dict(results)
        write_atomically(self.path, self._pieces(outputs))

    def _pieces(self, outputs: Iterable[Path | str]) -> Iterator[bytes]:
        """The file, as `json.dumps` with an indent of 2 writes it, but piece by piece."""
        lists: dict[str, Iterable[Any]] = {
            "inputs": ({"path": path, "sha256": sha256} for path, sha256 in self._inputs),
            "outputs": map(str, outputs),
        }
        before = "{\n"
        for key, value in self.content.items():
            yield f"{before}  {json.dumps(key)}: ".encode()
            before = ",\n"
            if key not in lists:
                yield _indented(value, 1)
                continue
            empty = True
            for one in lists[key]:
                yield (b"[\n    " if empty else b",\n    ") + _indented(one, 2)
                empty = False
            yield b"[]" if empty else b"\n  ]"
        yield b"\n}\n"

    def fail(
        self,
        where: Path | str,
        error: BaseException,
        outputs: Iterable[Path | str] = (),
        results: Mapping[str, Any] | None = None,
    ) -> None:
        """Write run.json with the status "failed" and the error; the error itself is left to the caller.

        On a full disk only the status is changed, in place, which needs no space.
        """
        self.finding(where, f"{type(error).__name__}: {error}")
        try:
            self.write("failed", outputs, results)
        except ProPLError:
            with suppress(OSError, ValueError), self.path.open("r+b") as stream:
                stream.seek(stream.read().index(b'"running"'))
                stream.write(b'"failed" ')


def _indented(value: Any, depth: int) -> bytes:
    return json.dumps(value, indent=2).replace("\n", "\n" + "  " * depth).encode()


def conclude(good: int, refused: int) -> tuple[str, int]:
    """The status for run.json and the exit code of a run, from the numbers of good and refused inputs."""
    if not good:
        return "failed", EXIT_BAD_INPUT
    return ("partial", EXIT_PARTIAL) if refused else ("finished", EXIT_OK)


def read_object(path: Path, cure: str) -> dict[str, Any]:
    """The JSON object of a file, such as a run.json; the cure is that of an error."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not a JSON number")

    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise ProPLError(path, f"cannot be read as JSON ({error})", cure) from error
    if not isinstance(content, dict):
        raise ProPLError(path, "holds no JSON object", cure)
    return content


def refuse_other_run(path: Path, verb: str) -> None:
    """Refuse a folder for the results of a verb where its run.json is that of another one, or of another program."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if isinstance(content, dict) and content.get("verb") != verb:
        other = f"`propl {content['verb']}`" if "verb" in content else "another program"
        fact = f"holds the run.json of {other}, which that of this run would replace"
        raise ProPLError(path.parent, fact, "choose another folder, such as a new one inside it")


def made_by(path: Path, verb: str) -> bool:
    """Whether a file exists and is the run.json of this verb."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("verb") == verb


def holds_predictions(folder: Path) -> bool:
    """Whether a folder holds results of `propl predict` or of the bundle's inference, which are no inputs."""
    journals = (JOURNAL, f"shards/*-of-*/{JOURNAL}")
    return made_by(folder / "run.json", "predict") or any(any(folder.glob(name)) for name in journals)


def command() -> list[str]:
    """The command line of this process, with `python -m` for a program of an installed package."""
    first, *rest = sys.argv
    if first.endswith("__main__.py"):
        return ["python", "-m", ".".join(Path(first).parts[-3:-1]), *rest]
    return [Path(first).name, *rest]


def versions() -> dict[str, str]:
    """Versions of Python, this package and those of `PACKAGES` that are installed."""
    found = {"python": platform.python_version(), "propl_monai": propl_monai.__version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of the git checkout that this package runs from, "+changes" where it was edited; None outside one."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        run = subprocess.run(["git", "-C", here.parent, *arguments], capture_output=True, text=True, check=True)
        return run.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        return git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes") or None
    except (OSError, subprocess.CalledProcessError):
        return None
