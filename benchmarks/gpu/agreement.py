"""Step "agreement": what the device computes, and what half precision computes, equals the CPU and fp32 within tolerances."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from benchmarks.gpu.child import leave
from benchmarks.gpu.data import cases_of
from benchmarks.gpu.plan import Plan
from benchmarks.gpu.steps import FAILED, FINISHED, UNFINISHED
from benchmarks.gpu.training import Setting, build, tiny
from propl_monai import tasks
from propl_monai.data.cases import Case
from propl_monai.data.datalist import Datalist
from propl_monai.errors import ProPLError
from propl_monai.evaluation.metrics import case_row
from propl_monai.images import read_mask
from propl_monai.inference.predictor import Predictor
from propl_monai.training.trainer import PRECISIONS
from propl_monai.training.validation import dice

# Least cosine between the first gradient and that in fp32. Rounding to bf16 turns it by some 20° in a small random network.
DIRECTION = {"bf16": 0.9, "fp16": 0.99, "fp32": 0.999}
FIRST_LOSS = 0.01  # largest relative difference of the first loss
LOSS = {"bf16": 0.05, "fp16": 0.05}  # of the mean loss of the second half of a training
SKIPPED = 10  # steps that a loss scale may take to settle
PROBABILITY, FLIPPED = 0.02, 1e-3  # largest difference of a probability; share of the pixels of masks that change sides
SCALE = 1024.0  # of the loss in the one backward pass that is compared, as a trainer scales it in fp16


def run(plan: Plan) -> dict[str, Any]:
    """All checks, each of which may fail without stopping the others."""
    setting = Setting(passes=1, strength=0.0, steps=40)
    if plan.tiny:
        setting = replace(setting, **tiny(setting))
    checks: dict[str, Callable[[], dict[str, Any]]] = {
        "metrics": lambda: metrics(plan, 4 if plan.tiny else 48),
        "prediction": lambda: prediction(plan, 1 if plan.tiny else 24),
        "gradients": lambda: gradients(plan, setting),
        "trainings": lambda: trainings(plan, setting),
    }
    found: dict[str, Any] = {}
    for name, check in checks.items():
        try:
            found[name] = check()
        except Exception as error:  # the others are still worth their time
            found[name] = {"equal": False, "error": f"{type(error).__name__}: {error}"}
        leave(plan, "agreement", {"status": UNFINISHED, **found}, lines(found))
        gc.collect()
    status = FINISHED if all(one["equal"] for one in found.values()) else FAILED
    return {"status": status, **found}


def _chosen(plan: Plan, count: int) -> tuple[Datalist, list[Case]]:
    """Cases with a mask, evenly spaced in the list."""
    datalist = cases_of(plan)
    cases = [case for case in datalist.cases if case.mask is not None]
    return datalist, [cases[place] for place in np.linspace(0, len(cases) - 1, count).round().astype(int)]


def metrics(plan: Plan, count: int) -> dict[str, Any]:
    """Dice, IoU, HD95 and validation Dice on the device and on the CPU: every figure is the same."""
    datalist, cases = _chosen(plan, count)
    different = []
    for number, case in enumerate(cases):
        mask = torch.from_numpy(read_mask(datalist.root / str(case.mask)))
        moved = torch.zeros_like(mask) if number == 0 else mask.roll((number % 7, 3), (0, 1))
        pairs = [(moved.to(device), mask.to(device)) for device in ("cpu", plan.device)]
        spacing = case.pixel_spacing_mm or (0.5, 0.4)
        rows = [case_row(*pair, spacing, where=case.case_id) for pair in pairs]
        scores = [dice(torch.stack((one, two)), two[None]).tolist() for one, two in pairs]
        if rows[0] != rows[1] or scores[0] != scores[1]:
            different.append({"case": case.case_id, "cpu": [rows[0], scores[0]], plan.device: [rows[1], scores[1]]})
    return {"equal": not different, "cases": count, "different": different}


def prediction(plan: Plan, count: int) -> dict[str, Any]:
    """The shipped weights on the device and on the CPU. The uncertainty is left out: its random numbers differ."""
    datalist, cases = _chosen(plan, count)
    names = list(tasks.NAMES[:2] if plan.tiny else tasks.NAMES)
    on_cpu, on_device = (Predictor(device=device) for device in ("cpu", plan.device))
    largest, flipped, pixels = 0.0, 0, 0
    for case in cases:
        picture = datalist.root / case.image
        for one, two in zip(on_cpu(picture, names), on_device(picture, names), strict=True):
            largest = max(largest, float(np.abs(one.probability - two.probability).max()))
            flipped, pixels = flipped + int((one.mask != two.mask).sum()), pixels + one.mask.size
    share = flipped / pixels
    return {
        "equal": largest <= PROBABILITY and share <= FLIPPED,
        "pictures": count,
        "tasks": len(names),
        "largest_difference": largest,
        "share_of_pixels_that_change": share,
        "tolerance": [PROBABILITY, FLIPPED],
    }


def gradients(plan: Plan, setting: Setting) -> dict[str, Any]:
    """The first gradient in each precision, and of the CPU in fp32, against that of the device in fp32 without TF32."""
    torch.backends.cudnn.allow_tf32 = False
    loss, wanted = _gradient(plan, setting, plan.device, "fp32")
    found: dict[str, Any] = {"fp32": {"loss": loss, "norm": float(wanted.norm())}}
    others = [(name, plan.device) for name in ("bf16", "fp16") if _fits(name, plan.device)]
    for precision, device in [*others, *([] if plan.device == "cpu" else [("fp32", "cpu")])]:
        other_loss, gradient = _gradient(plan, setting, device, precision)
        cosine = float(torch.nn.functional.cosine_similarity(gradient, wanted, dim=0))
        difference = abs(other_loss - loss) / loss
        found[precision if device == plan.device else f"{precision}, {device}"] = {
            "loss": other_loss,
            "norm": float(gradient.norm()),
            "cosine": cosine,
            "relative_difference": difference,
            "tolerance": FIRST_LOSS,
            "equal": cosine >= DIRECTION[precision] and difference <= FIRST_LOSS,  # NaN is not
        }
    torch.backends.cudnn.allow_tf32 = True
    return {"equal": all(one.get("equal", True) for one in found.values()), **found}


def _gradient(plan: Plan, setting: Setting, device: str, precision: str) -> tuple[float, torch.Tensor]:
    trainer = build(plan, setting, device)
    batches = [
        {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in (batch or {}).items()}
        for batch in next(iter(trainer.data_loader)).values()
    ]
    dtype = PRECISIONS[precision]
    trainer.method.train()
    with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
        loss = trainer.method(*batches, 0.0)["loss"]
    (SCALE * loss).backward()
    parts = [one.grad.float().flatten().cpu() for one in trainer.method.parameters() if one.grad is not None]
    return float(loss.detach()), torch.cat(parts) / SCALE


def trainings(plan: Plan, setting: Setting) -> dict[str, Any]:
    """The same training in each precision: mean loss of its second half, steps skipped, and whether weights are finite."""
    found: dict[str, Any] = {}
    for precision in PRECISIONS:
        if not _fits(precision, plan.device):
            found[precision] = {"not_run": _refusal(plan, replace(setting, precision=precision))}
            continue
        losses: list[float] = []
        trainer = build(plan, replace(setting, precision=precision), plan.device, [_Losses(losses)])
        trainer.run()
        finite = all(bool(torch.isfinite(one).all()) for one in trainer.method.state_dict().values())
        late = float(np.mean(losses[len(losses) // 2 :]))
        found[precision] = {"loss": late, "skipped_steps": trainer.bad_steps, "finite": finite, "losses": losses}
    base = found["fp32"]["loss"]
    equal = True
    for precision, one in found.items():
        if "loss" in one and precision in LOSS:
            one["relative_difference"] = abs(one["loss"] - base) / base
            one["tolerance"] = LOSS[precision]
            equal &= one["relative_difference"] <= LOSS[precision] and one["skipped_steps"] <= SKIPPED
        equal &= one.get("finite", True)
    return {"equal": bool(equal), **found}


def _fits(precision: str, device: str) -> bool:
    return precision != "fp16" or device == "cuda"


def _refusal(plan: Plan, setting: Setting) -> str:
    """What the trainer says of a precision that the device does not have."""
    try:
        build(plan, setting, plan.device)
    except ProPLError as error:
        return str(error)
    raise AssertionError(f"{setting.precision} was to be refused on {plan.device}")


class _Losses:
    """Keeps the loss of each step."""

    def __init__(self, losses: list[float]) -> None:
        self.losses = losses

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.keep)

    def keep(self, engine: Engine) -> None:
        self.losses.append(engine.state.output["loss"])


def lines(result: dict[str, Any]) -> list[str]:
    """For summary.md."""
    told = []
    for name, one in result.items():
        if name == "status":
            continue
        figures = one.get("error") or ", ".join(
            f"{key} loss {100 * value['relative_difference']:.2g} % (at most {100 * value['tolerance']:g} %)"
            + (f", cosine of gradients {value['cosine']:.4f}" if "cosine" in value else "")
            for key, value in one.items()
            if isinstance(value, dict) and "relative_difference" in value
        )
        if name == "prediction" and "largest_difference" in one:
            figures = f"probabilities differ by {one['largest_difference']:.2g}, pixels of masks: "
            figures += f"{100 * one['share_of_pixels_that_change']:.3f} %"
        told.append(f"* {name}: {'equal' if one['equal'] else '**not equal**'} {figures}".rstrip())
    return told
