"""How fast a machine could be at best: the arithmetic of a training step over the rate of its largest product of matrices."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from propl_monai.bench.workloads import Work, build

SIDE = 1024  # of the square matrices
PRODUCTS = 20


def floor(work: Work) -> dict[str, Any]:
    """The least seconds that a piece of work could take.

    Args:
        work: on this machine; threads are set for the process.

    Returns:
        "operations" (multiplications and additions, of torch's counter: products and convolutions), "rate" (operations
        a second of a product of matrices in its precision), and "seconds", their quotient.
    """
    torch.set_num_threads(work.threads)
    with FlopCounterMode(display=False) as counter:
        build(work)()
    operations = counter.get_total_flops()
    rate = _rate(torch.bfloat16 if work.precision == "bf16" else torch.float32, work.device)
    return {"operations": operations, "rate": round(rate), "seconds": round(operations / rate, 4)}


def _rate(dtype: torch.dtype, device: str) -> float:
    matrix = torch.randn(SIDE, SIDE, device=device).to(dtype)
    times = []
    for _ in range(PRODUCTS):
        begin = time.perf_counter()
        matrix @ matrix
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return 2 * SIDE**3 / statistics.median(times)
