"""How fast a machine could be at best: the arithmetic of a piece of work over the best rate of its products."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from benchmarks.speed.clock import seconds
from benchmarks.speed.workloads import Call, Work, build

SIDES = (512, 1024, 2048)  # of square matrices
TRIES = 8


def floor(work: Work) -> dict[str, Any]:
    """The least seconds that a piece of work could take.

    Args:
        work: on this machine; threads are set for the process.

    Returns:
        "operations" (multiplications and additions, of torch's counter: products and convolutions), "rate" (the most
        operations a second that a product of matrices or a convolution reached in its precision), and "seconds",
        their quotient.
    """
    torch.set_num_threads(work.threads)
    operations = count_operations(build(work))
    rate = _rate(torch.bfloat16 if work.precision == "bf16" else torch.float32, work.device)
    return {"operations": operations, "rate": round(rate), "seconds": round(operations / rate, 4)}


def count_operations(call: Call) -> int:
    """Multiplications and additions of products, convolutions and attention, forward and backward, in one call."""
    mapping: dict[Any, Any] = {torch.ops.aten.convolution_backward: _of_convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        call()
    return counter.get_total_flops()


def _of_convolution_backward(gradient: Any, image: Any, weight: Any, *rest: Any, **_: Any) -> int:
    # torch's own count takes a depthwise convolution's weight gradient for a dense one's, hundreds of times too much.
    transposed, wanted = rest[-4], rest[-1]  # between them: padding of the output, groups
    return conv_flop_count(image, weight, gradient, transposed=transposed) * sum(wanted[:2])


def _rate(dtype: torch.dtype, device: str) -> float:
    """The best try of each, and the best of them: other work on the machine can only lower a rate."""
    rates = []
    for side in SIDES:
        matrix = torch.randn(side, side, device=device).to(dtype)
        rates.append(2 * side**3 / _fastest(partial(torch.mm, matrix, matrix), device))
    # As the costliest of the decoders: 192 channels to 96 on 56 × 56 places.
    layer = torch.nn.Conv2d(192, 96, 3, padding=1, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    maps = torch.randn(4, 192, 56, 56, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        rates.append(2 * 4 * 56**2 * 192 * 96 * 9 / _fastest(lambda: layer(maps), device))
    return max(rates)


def _fastest(work: Callable[[], object], device: str) -> float:
    def done() -> None:
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    return min(seconds(done, TRIES))
