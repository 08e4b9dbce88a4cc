"""The one exception that a user of this package is meant to read.

Every public function raises `ProPLError` for bad input: a file, option, task or tensor that it cannot use. Docstrings name
only what is raised beside it.
"""

from __future__ import annotations

import errno
import re
import signal
import sys
import threading
from collections.abc import Iterable
from difflib import get_close_matches
from types import TracebackType

EXIT_OK = 0
EXIT_FAILURE = 1  # a fault of ours, or of the machine
EXIT_BAD_INPUT = 2  # nothing was done, the message says why
EXIT_PARTIAL = 3  # the rest was done, some inputs were refused
WHOLE = "this installation only predicts: install the whole package, `pip install propl-monai`"  # a cure
# Errors of the disk or the machine, not of one file.
_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
_MACHINE |= {errno.ECHILD, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN}
_LOADER_LOST = ("DataLoader worker (pid", "DataLoader timed out")  # what torch says of a process that is gone, or hangs


class ProPLError(Exception):
    """Bad input, with the message *where: fact; cure*.

    Args:
        where: the file, folder, option or task at fault.
        fact: what is wrong with it.
        cure: what the user can do about it.
    """

    def __init__(self, where: object, fact: str, cure: str) -> None:
        # A file name that is not UTF-8 gets escapes: no terminal and no JSON would take it.
        parts = (text.encode("utf-8", "backslashreplace").decode() for text in (str(where), fact, cure))
        self.where, self.fact, self.cure = parts
        super().__init__(f"{self.where}: {self.fact}; {self.cure}")

    @property
    def of_machine(self) -> bool:
        """Whether a full, read-only or broken disk, or another limit of the machine, is the cause, and no input."""
        return isinstance(self.__cause__, OSError) and self.__cause__.errno in _MACHINE

    @property
    def exit_code(self) -> int:
        """The code that a process ends with, see the README."""
        return EXIT_FAILURE if self.of_machine else EXIT_BAD_INPUT

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        # Loader workers send exceptions through pickle, which would otherwise call __init__ with one argument.
        return type(self), (self.where, self.fact, self.cure)


def unknown(where: object, kind: str, given: str, known: Iterable[str]) -> ProPLError:
    """A `ProPLError` for a name that does not exist; its cure names the nearest one, or all of them."""
    names = list(known)
    lowered = {name.lower(): name for name in names}
    near = get_close_matches(str(given).lower(), lowered, n=1, cutoff=0.5)
    cure = f"did you mean '{lowered[near[0]]}'?" if near else "known: " + ", ".join(names)
    return ProPLError(where, f"unknown {kind} '{given}'", cure)


def first_line(error: BaseException) -> str:
    """What a foreign exception says, short enough to quote in a fact; its class where it says nothing."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160]


def find_cause(error: BaseException | None) -> ProPLError | None:
    """The `ProPLError` in a chain of causes; config parser, transforms and loaders wrap what they raise."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        found = error if isinstance(error, ProPLError) else _from_worker(error)
        if found is not None:
            return found
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def _from_worker(error: BaseException) -> ProPLError | None:
    """Of a loader process: the `ProPLError` in the traceback that it leaves, as torch sends text, not the chain; its end."""
    text = str(error)
    if isinstance(error, RuntimeError) and text.startswith(_LOADER_LOST):  # raised wherever the signal comes
        cure = "lower num_workers, or free memory; a training goes on from its last epoch with resume=true"
        lost = ProPLError("num_workers", f"a loader process was ended or hangs ({first_line(error)})", cure)
        lost.__cause__ = ChildProcessError(errno.ECHILD, text)
        return lost
    name = f"{ProPLError.__module__}.{ProPLError.__qualname__}"
    # The traceback goes on after an empty line. Wherever these parts are cut, together they make the same message.
    found = re.search(rf"^{re.escape(name)}: (.+?): (.+); (.+?)$(?=\n\n|\s*\Z)", text, re.MULTILINE | re.DOTALL)
    return ProPLError(*found.groups()) if found and "DataLoader worker" in text else None


def exit_on_sigterm() -> None:
    """Make SIGTERM, by which clusters end a job, an exit like any other: run.json says so, child processes end, too."""
    if threading.current_thread() is threading.main_thread():  # signals are the business of no other
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def install_exit_messages() -> None:
    """Make an uncaught `ProPLError` end the process with its message and exit code instead of a traceback.

    The bundle configs call this first, as `python -m monai.bundle` itself catches nothing.
    """
    exit_on_sigterm()

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        cause = find_cause(error)
        if cause is None:
            sys.__excepthook__(kind, error, trace)
            return
        print(f"error: {cause}", file=sys.stderr)
        sys.exit(cause.exit_code)

    sys.excepthook = hook
