"""`python -m benchmarks.speed` measures what its table says, and refuses wrong options. No time is asserted."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from benchmarks.speed import comparison, measure
from benchmarks.speed.__main__ import app
from benchmarks.speed.comparison import Repeats, compare
from benchmarks.speed.measure import Measured, measure_apart
from benchmarks.speed.workloads import Work, build
from propl_monai.errors import ProPLError

SMALL = Work("propl", preset="compact", batch=2, pixels=32, threads=1)


@pytest.mark.parametrize(
    ("changed", "fact"),
    [
        ({"side": "ours"}, "side"),
        ({"kind": "inference"}, "prediction"),
        ({"preset": "large"}, "compact"),
        ({"precision": "fp16"}, "bf16"),
        ({"decoder_block": "lite"}, "light"),
        ({"passes": 0}, "passes"),
        ({"pixels": 100}, "no multiple of 32"),
        ({"tasks": 9}, "more than there are"),
    ],
)
def test_work_that_makes_no_sense_is_refused(changed: dict, fact: str) -> None:
    with pytest.raises(ProPLError, match=fact):
        replace(SMALL, **changed)


def test_a_training_step_learns() -> None:
    step = build(SMALL)
    losses = [float(step()) for _ in range(16)]  # the dropout of UPLC makes neighbours differ by 0.006
    assert sum(losses[-4:]) < sum(losses[:4]) - 0.04


def test_both_sides_answer_for_every_task() -> None:
    work = replace(SMALL, kind="prediction", tasks=3)
    assert build(work)().shape == (2, 3, 32, 32)
    assert build(replace(work, side="reference"))().shape == (3, 2, 1, 32, 32)


def test_bf16_is_what_the_network_computes_in() -> None:
    seen: list[torch.dtype] = []
    step = build(replace(SMALL, precision="bf16"))
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda module, _, output: seen.append(output.dtype) if isinstance(module, torch.nn.Conv2d) else None
    )
    try:
        step()
    finally:
        handle.remove()
    assert set(seen) == {torch.bfloat16}


def test_a_process_of_its_own_measures() -> None:
    found = measure_apart(SMALL, calls=1)
    assert found.seconds > 0 and found.computing > 0
    # Two streams of two pictures of 32 pixels keep more than a quarter of a megabyte for the backward pass.
    assert found.memory_mb > 0.25


def test_a_failing_process_is_reported() -> None:
    with pytest.raises(ProPLError, match=r"failed: .*device"):
        measure_apart(replace(SMALL, device="nonsense"), calls=1)


def test_memory_is_the_peak_above_what_was_loaded() -> None:
    memory = measure._ProcessMemory()
    with mmap.mmap(-1, 2**26) as held:  # new pages, whatever this process has at hand
        held.write(b"1" * 2**26)
    assert memory.peak() >= 60 * 2**20


@pytest.fixture
def measured_works(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Work]]:
    """The processes that a comparison starts, with made-up figures: ours twice as fast, in a quarter of the memory."""
    works: list[Work] = []

    def pretend(work: Work, calls: int) -> Measured:
        works.append(work)
        slow = work.side == "reference"
        return Measured(
            2.0 + len(works) if slow else (1.0 + len(works)) / 2, 4.0 if slow else 1.0, 800 if slow else 200
        )

    monkeypatch.setattr(comparison, "measure_apart", pretend)
    yield works


def test_pairs_are_measured_in_turn(measured_works: list[Work]) -> None:
    row = compare(replace(SMALL, precision="bf16"), Repeats(repeats=3, calls=2), lambda line: None)
    assert [work.side for work in measured_works] == ["reference", "propl"] * 3
    assert {work.precision for work in measured_works if work.side == "reference"} == {"fp32"}
    # Calls 1 to 6: 3, 5, 7 s of the reference; 1.5, 2.5, 3.5 s of ours.
    assert row["reference"]["seconds"] == 5 and row["propl"]["seconds"] == 2.5
    assert row["ratio"]["seconds"] == {"median": 2.0, "min": 2.0, "max": 2.0}
    assert row["ratio"]["memory_mb"]["median"] == 4 and row["ratio"]["computing"]["median"] == 4


def test_the_reference_may_compute_in_bf16_too(measured_works: list[Work]) -> None:
    row = compare(SMALL, Repeats(repeats=1, calls=1), lambda line: None, reference_precision="bf16")
    assert [work.precision for work in measured_works] == [row["reference_precision"], row["precision"]]
    assert row["reference_precision"] == "bf16" and row["precision"] == "fp32"


def test_the_command_prints_a_table_or_json(measured_works: list[Work]) -> None:
    def call(parts: str, *more: str) -> str:
        return CliRunner().invoke(app, [parts, "--presets", "compact", "--repeats", "1", *more]).stdout

    text = call("training")
    assert "training step, compact, 160 px, fp32, 4+4 pictures, N = 2" in text and "800 / 200" in text
    found = json.loads(call("training,prediction", "--passes", "1,8", "--json"))
    assert [row["passes"] for row in found["training"]] == [1, 8]
    assert [(row["batch"], row["tasks"]) for row in found["prediction"]] == [(1, 1), (1, 8)]
    assert found["machine"]["threads"] == 2 and "torch" in found["versions"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["speed"], "training"),
        (["training", "--presets", "big"], "compact"),
        (["--passes", "two"], "no list of positive integers"),
        (["--repeats", "0"], "repeats: is 0"),
        (["--calls", "0"], "calls: is 0"),
    ],
)
def test_the_command_refuses_what_it_does_not_know(arguments: list[str], said: str) -> None:
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, ProPLError) and said in str(error)
