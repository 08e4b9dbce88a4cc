"""Times one piece of work in a process of its own, so that no other work is in its memory or caches."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.speed.workloads import Call, Work, build
from propl_monai.errors import ProPLError

WARM_UP, WARM_UP_CUDA = 1, 5  # calls; a GPU loads its kernels, and chooses among them, as they are first used
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Measured:
    """Time and memory of a piece of work.

    Attributes:
        seconds: wall-clock time (on CUDA by its events), median of the calls.
        computing: CPU seconds of all threads, median; other work on the machine affects it less than `seconds`.
        memory_mb: peak memory during the calls in MiB, minus that of the process with network and pictures loaded; on
            CUDA, memory of the device.
    """

    seconds: float
    computing: float
    memory_mb: float


def measure_apart(work: Work, calls: int) -> Measured:
    """Measure in a new process.

    Args:
        work: see `Work`.
        calls: timed calls. Those before them, to warm up, count for memory only.
    """
    command = [sys.executable, "-m", "benchmarks.speed.measure", work.text(), str(calls)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(work.threads), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ProPLError(f"benchmark {work.text()}", f"failed: {last}", "give a smaller batch, or look at this error")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def measure(work: Work, calls: int) -> Measured:
    """Measure in this process; see `measure_apart`."""
    torch.set_num_threads(work.threads)
    on_gpu = work.device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(work.device)  # events belong to the device that is set
    call = build(work)
    memory = _CudaMemory(work.device) if on_gpu else _ProcessMemory()
    for _ in range(WARM_UP_CUDA if on_gpu else WARM_UP):
        call()
    clock = _cuda_times if on_gpu else _times
    rows = [clock(call) for _ in range(calls)]
    seconds, computing = (statistics.median(column) for column in zip(*rows, strict=True))
    return Measured(round(seconds, 4), round(computing, 4), round(memory.peak() / 2**20, 1))


def _times(call: Call) -> tuple[float, float]:
    clock, computing = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - clock, time.process_time() - computing


def _cuda_times(call: Call) -> tuple[float, float]:
    """By events of the GPU, which runs behind the CPU: both are idle when a call begins, and when its end is read."""
    torch.cuda.synchronize()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    computing = time.process_time()
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000, time.process_time() - computing


class _ProcessMemory:
    """Peak of the resident memory since this object was made, minus the resident memory then."""

    def __init__(self) -> None:
        with suppress(OSError):  # not Linux: a peak while loading may hide that of the calls
            RESET.write_text("5")  # resets the peak
        self.loaded = self._read("VmRSS")

    def peak(self) -> int:
        return max(0, self._read("VmHWM") - self.loaded)

    @staticmethod
    def _read(field: str) -> int:
        if not STATUS.is_file():
            unit = 1 if sys.platform == "darwin" else 1024
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        line = next(one for one in STATUS.read_text().splitlines() if one.startswith(field))
        return int(line.split()[1]) * 1024


class _CudaMemory:
    """Peak of a GPU's memory."""

    def __init__(self, device: str) -> None:
        self.device = device
        torch.cuda.reset_peak_memory_stats(device)
        self.loaded = torch.cuda.memory_allocated(device)

    def peak(self) -> int:
        return torch.cuda.max_memory_allocated(self.device) - self.loaded


def main(arguments: list[str]) -> None:
    """The new process: measure, and print one line of JSON."""
    work, calls = arguments
    print(json.dumps(vars(measure(Work(**json.loads(work)), int(calls)))))


if __name__ == "__main__":
    main(sys.argv[1:])
