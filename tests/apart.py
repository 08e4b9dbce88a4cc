"""`python -m MODULE ARGUMENTS`, or a script, in a process of its own, forked from a server that has imported MONAI.

An import of MONAI takes some eight seconds of a processor, and the tests start it a hundred times. What is tried here has
its own memory, working folder, streams and exit code as before; only the start is shared. Tests of the start itself use
`subprocess`.
"""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import resource
import runpy
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from propl_monai.common.bundle_command import bundle_arguments
from propl_monai.common.bundle_process import raise_failure
from propl_monai.common.files import write_atomically

_context = multiprocessing.get_context("forkserver")
# Not what registers something at import time that depends on the working folder or the environment of a child.
_context.set_forkserver_preload(
    ["monai.bundle", "torchvision", "propl_monai.training.trainer", "pandas", "scipy.stats"]
)


def run(
    module: str | Path,
    arguments: Sequence[object],
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """What `subprocess.run([sys.executable, "-W", "ignore", "-m", module, *arguments])` with captured text returns."""
    given = [str(each) for each in arguments]
    with tempfile.TemporaryDirectory() as folder:
        streams = [str(Path(folder, name)) for name in ("stdout", "stderr")]
        taken = (module, given, str(cwd or Path.cwd()), dict(environment or os.environ), streams)
        process = _context.Process(target=_work, args=taken)
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired([str(module), *given], timeout)
        said = [Path(stream).read_text(errors="replace") if Path(stream).exists() else "" for stream in streams]
        assert process.exitcode is not None
        return subprocess.CompletedProcess([str(module), *given], process.exitcode, *said)


def run_bundle_apart(
    bundle: Path, run_id: str, configs: Sequence[str], keys: Mapping[str, Any], log: Path, check: Callable[[], None]
) -> float:
    """Stands in for `bundle_process.run_bundle_apart`, which has tests of its own; the memory is this process's."""
    overrides = log.with_suffix(".config.json")
    write_atomically(overrides, json.dumps(keys, indent=2).encode())
    check()
    done = run("monai.bundle", bundle_arguments(run_id, bundle, [*configs, overrides], {}))
    log.write_text(done.stdout + done.stderr)
    check()
    raise_failure(log, done.returncode)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _work(module: str | Path, arguments: list[str], cwd: str, environment: dict[str, str], streams: list[str]) -> None:
    for number, path in enumerate(streams, start=1):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    warnings.simplefilter("ignore")
    sys.argv = [str(module), *arguments]  # runpy puts the file in place of a module's name
    try:
        if isinstance(module, Path):
            sys.path.insert(0, str(module.parent))
            runpy.run_path(str(module), run_name="__main__")
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit:
        raise
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]  # as the interpreter does; may exit with another code
        sys.exit(1)
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
