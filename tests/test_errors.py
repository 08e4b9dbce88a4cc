"""Messages with their file, fact and cure."""

from __future__ import annotations

import errno
import pickle
import subprocess
import sys

import pytest

from propl_monai.errors import EXIT_BAD_INPUT, EXIT_FAILURE, ProPLError, find_cause, first_line, unknown


def test_message_names_place_fact_and_cure() -> None:
    error = ProPLError("a.png", "is 3×4 pixels, its mask 5×6", "export the mask again")
    assert str(error) == "a.png: is 3×4 pixels, its mask 5×6; export the mask again"
    assert (error.where, error.fact, error.cure) == ("a.png", "is 3×4 pixels, its mask 5×6", "export the mask again")


def test_survives_pickling_as_between_loader_workers() -> None:
    error = pickle.loads(pickle.dumps(ProPLError("a.png", "is empty", "drop it")))
    assert isinstance(error, ProPLError)
    assert (error.where, error.fact, error.cure) == ("a.png", "is empty", "drop it")


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (OSError(errno.ENOSPC, "full"), EXIT_FAILURE),
        (OSError(errno.EROFS, "read-only"), EXIT_FAILURE),
        (PermissionError(errno.EACCES, "denied"), EXIT_BAD_INPUT),
        (OSError(errno.ENAMETOOLONG, "long"), EXIT_BAD_INPUT),
        (ValueError("damaged"), EXIT_BAD_INPUT),
        (None, EXIT_BAD_INPUT),
    ],
)
def test_the_exit_code_is_that_of_the_cause(cause: Exception | None, code: int) -> None:
    error = ProPLError("out", "cannot be written", "make room")
    error.__cause__ = cause
    assert error.exit_code == code and error.of_machine == (code == EXIT_FAILURE)


def test_unknown_names_the_nearest_or_all() -> None:
    near = unknown("option", "decoder", "PDD", ["sd", "pd", "mean"])
    assert str(near) == "option: unknown decoder 'PDD'; did you mean 'pd'?"
    assert unknown("option", "decoder", "xyz", ["sd", "pd", "mean"]).cure == "known: sd, pd, mean"


def test_first_line_is_short_and_never_empty() -> None:
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(TimeoutError()) == "TimeoutError"
    assert len(first_line(ValueError("x" * 1000))) == 160


def test_cause_is_found_through_wrapping() -> None:
    inner = ProPLError("a", "b", "c")
    try:
        try:
            raise inner
        except ProPLError as error:
            raise RuntimeError("wrapped by a transform") from error
    except RuntimeError as outer:
        assert find_cause(outer) is inner
    assert find_cause(ValueError("another")) is None


@pytest.mark.parametrize(
    "told",
    [
        "DataLoader worker (pid 7) is killed by signal: Killed. ",
        "DataLoader worker (pid(s) 7) exited unexpectedly",
        "DataLoader timed out after 600 seconds",
    ],
)
def test_a_lost_loader_process_is_a_fault_of_the_machine(told: str) -> None:
    found = find_cause(RuntimeError(told))
    assert found is not None and found.where == "num_workers" and found.exit_code == EXIT_FAILURE
    assert told.strip() in found.fact and "lower num_workers" in found.cure
    assert find_cause(RuntimeError("Caught an error in DataLoader worker process 0")) is None


def test_a_circle_of_causes_ends() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert find_cause(first) is None


HOOKED = (
    "from propl_monai.errors import *; from propl_monai.errors import install_exit_messages; install_exit_messages(); "
)


@pytest.mark.parametrize(
    ("raised", "code", "told", "silent"),
    [
        (
            "raise ProPLError('a.png', 'is empty', 'drop it')",
            EXIT_BAD_INPUT,
            "error: a.png: is empty; drop it",
            "Trace",
        ),
        ("raise ValueError('a fault of ours')", EXIT_FAILURE, "Traceback", "error: a.png"),
        ("import os; os.kill(os.getpid(), 15); print('still here')", 143, "", "Trace"),
    ],
)
def test_exit_messages(raised: str, code: int, told: str, silent: str) -> None:
    done = subprocess.run([sys.executable, "-c", HOOKED + raised], capture_output=True, text=True)
    assert done.returncode == code
    assert told in done.stderr and silent not in done.stderr
