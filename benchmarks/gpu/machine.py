"""Step "machine": what runs here, and whether the data are sound."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from typing import Any

import torch

from benchmarks.gpu.data import cases_of
from benchmarks.gpu.plan import Plan
from propl_monai.common.run_record import commit, versions
from propl_monai.errors import ProPLError

NVIDIA = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader")


def run(plan: Plan) -> dict[str, Any]:
    """Versions, devices, settings of torch that change speed and rounding, and the cases of the verified data."""
    if plan.device == "cuda" and not torch.cuda.is_available():
        fact = f"torch {torch.__version__} sees no GPU (built for CUDA {torch.version.cuda})"
        raise ProPLError("--device cuda", fact, "use a machine with an NVIDIA GPU, or give --device cpu")
    datalist = cases_of(plan)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "versions": versions(),
        "commit": commit(),
        "cores": cores,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpus": [_gpu(number) for number in range(torch.cuda.device_count())] if plan.device == "cuda" else [],
        "nvidia_smi": _nvidia_smi() if plan.device == "cuda" else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "tf32": {"matmul": torch.backends.cuda.matmul.allow_tf32, "convolution": torch.backends.cudnn.allow_tf32},
        "cases": dict(sorted(Counter(f"{case.task}, {case.split}" for case in datalist.cases).items())),
        "datalist_sha256": datalist.sha256,
    }


def _gpu(number: int) -> dict[str, Any]:
    about = torch.cuda.get_device_properties(number)
    return {
        "name": about.name,
        "memory_gb": round(about.total_memory / 1e9, 1),
        "capability": f"{about.major}.{about.minor}",
        "multiprocessors": about.multi_processor_count,
    }


def _nvidia_smi() -> str | None:
    if shutil.which(NVIDIA[0]) is None:
        return None
    done = subprocess.run(NVIDIA, capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr.strip()


def lines(result: dict[str, Any]) -> list[str]:
    """For summary.md."""
    gpus = ", ".join(f"{one['name']} ({one['memory_gb']} GB)" for one in result["gpus"]) or "no GPU"
    found = result["versions"]
    return [
        f"{gpus}, {result['cores']} cores, {result['memory_gb']} GB; Python {found['python']}, torch {found['torch']}, "
        f"CUDA {result['cuda']}, commit {result['commit']}; {sum(result['cases'].values())} cases."
    ]
