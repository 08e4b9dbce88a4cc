"""Processes that do real work, forked from this one so that they start at once, to be killed in the middle of it."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from propl_monai.common.files import TEMPORARY_PREFIX
from propl_monai.errors import find_cause

OTHER_ERROR = 70  # exit code of what is no ProPLError
LATEST = 0.02  # seconds between the opening of a file and the kill
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Child:
    """A process that does `work` and notes each file that it opens for writing, or renames, below `watched`.

    Args:
        work: what it does; its exceptions become exit codes.
        watched: a folder.
        log: gets what it prints.
        limit: of the size of a file, in bytes: beyond it a write fails as on a full disk.
    """

    def __init__(self, work: Callable[[], Any], watched: Path, log: Path, limit: int | None = None) -> None:
        self._reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            _work(work, str(watched), writing, log, limit)
        os.close(writing)

    def kill_while_writing(self, number: int, delay: float) -> int | None:
        """Kill it `delay` seconds after its write of that number (from 1) began; the exit code if it ended before that."""
        seen = 0
        while seen < number:
            if not (noted := os.read(self._reading, 1)):
                return self.wait()
            seen += len(noted)
        time.sleep(delay)
        os.kill(self.pid, signal.SIGKILL)
        code = self.wait()
        return None if code == -signal.SIGKILL else code

    def wait(self) -> int:
        """Its exit code; minus the number of the signal that ended it."""
        os.close(self._reading)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _work(work: Callable[[], Any], watched: str, pipe: int, log: Path, limit: int | None) -> None:
    code = OTHER_ERROR
    try:
        output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)

        def note(event: str, given: tuple[Any, ...]) -> None:
            opened = event == "open" and isinstance(given[2], int) and given[2] & _WRITING
            if (opened or event == "os.rename") and str(given[0]).startswith(watched):
                os.write(pipe, b"w")

        sys.addaudithook(note)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        work()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException as error:
        traceback.print_exc()
        cause = find_cause(error)
        code = cause.exit_code if cause else OTHER_ERROR
    finally:
        for process in multiprocessing.active_children():  # loader processes, which may hang
            process.kill()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Kills:
    """Random moments, the same ones in every run, and what was found after them."""

    def __init__(self, most_writes: int) -> None:
        self.random = random.Random(0)
        self.most_writes, self.kills, self.halves = most_writes, 0, 0

    def kill(self, child: Child, folder: Path) -> int | None:
        """Kill a child at a random write; its exit code if it ended before that."""
        code = child.kill_while_writing(self.random.randint(1, self.most_writes), self.random.uniform(0, LATEST))
        if code is None:
            self.kills += 1
            self.halves += bool(orphans(folder))
        return code

    def note(self) -> str:
        """For the table."""
        return f"{self.halves} kills left a half-written temporary file, which the next start removed"


def orphans(folder: Path) -> list[str]:
    """Temporary files that a kill has left."""
    return [path.name for path in folder.rglob(TEMPORARY_PREFIX + "*")]


def command(*words: object) -> Callable[[], None]:
    """The command `propl` with these words, in the process that calls it."""

    def run() -> None:
        from propl_monai.cli import main

        sys.argv = ["propl", *map(str, words)]
        main()

    return run


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Every line of a file as JSON, but a last one without its end: its writer was killed, and is to repair it."""
    text = path.read_text(encoding="utf-8")
    whole, _, _ = text.rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]
