"""`python -m benchmarks.speed`: what is measured is what is said, a wrong wish is refused. No figure of time is asserted."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from benchmarks.speed import comparison, floor, measure, plans, serving
from benchmarks.speed.__main__ import app
from benchmarks.speed.comparison import Plan, compare
from benchmarks.speed.data_path import data_path
from benchmarks.speed.measure import Measured, measure_apart
from benchmarks.speed.workloads import Work, build
from propl_monai.errors import ProPLError
from propl_monai.inference.predictor import Predictor

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
    losses = [float(step()) for _ in range(6)]
    assert losses[-1] < losses[0]


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


def test_a_process_of_its_own_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure_apart(SMALL, calls=1)
    assert found.seconds > 0 and found.computing > 0
    # Two streams of two pictures of 32 pixels keep more than a quarter of a megabyte for the backward pass.
    assert found.memory_mb > 0.25


def test_a_process_that_fails_is_told() -> None:
    with pytest.raises(ProPLError, match=r"failed: .*device"):
        measure_apart(replace(SMALL, device="nonsense"), calls=1)


def test_memory_is_the_peak_above_what_was_loaded() -> None:
    memory = measure._ProcessMemory()
    with mmap.mmap(-1, 2**26) as held:  # new pages, whatever this process has at hand
        held.write(b"1" * 2**26)
    assert memory.peak() >= 60 * 2**20


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Work]]:
    """The processes that a comparison starts, with made-up figures: ours twice as fast, in a quarter of the memory."""
    asked: list[Work] = []

    def pretend(work: Work, calls: int) -> Measured:
        asked.append(work)
        slow = work.side == "reference"
        return Measured(
            2.0 + len(asked) if slow else (1.0 + len(asked)) / 2, 4.0 if slow else 1.0, 800 if slow else 200
        )

    monkeypatch.setattr(comparison, "measure_apart", pretend)
    yield asked


def test_pairs_are_measured_in_turn_and_their_ratios_told(told: list[Work]) -> None:
    row = compare(replace(SMALL, precision="bf16"), Plan(repeats=3, calls=2), lambda line: None)
    assert [work.side for work in told] == ["reference", "propl"] * 3
    assert {work.precision for work in told if work.side == "reference"} == {"fp32"}
    # Calls 1 to 6: 3, 5, 7 s of the reference; 1.5, 2.5, 3.5 s of ours.
    assert row["reference"]["seconds"] == 5 and row["propl"]["seconds"] == 2.5
    assert row["ratio"]["seconds"] == {"median": 2.0, "min": 2.0, "max": 2.0}
    assert row["ratio"]["memory_mb"]["median"] == 4 and row["ratio"]["computing"]["median"] == 4


def test_the_floor_counts_every_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = torch.ones(8, 16), torch.ones(16, 4)
    monkeypatch.setattr(floor, "build", lambda work: lambda: left @ right)
    found = floor.floor(SMALL)
    assert found["operations"] == 2 * 8 * 16 * 4
    assert found["seconds"] == pytest.approx(found["operations"] / found["rate"], abs=1e-4)


@pytest.mark.parametrize("groups", [1, 8])
def test_a_convolution_and_its_backward_pass_count_thrice(groups: int) -> None:
    layer = torch.nn.Conv2d(8, 8, 3, padding=1, groups=groups, bias=False)
    image = torch.ones(2, 8, 5, 5, requires_grad=True)
    forward = 2 * (2 * 8 * 5 * 5) * (8 // groups) * 9
    assert floor.count_operations(lambda: layer(image).sum().backward()) == 3 * forward


def test_the_cache_holds_a_byte_a_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.speed.data_path.CASES", 2)
    monkeypatch.setattr("benchmarks.speed.data_path.ORIGINAL", 64)
    found = data_path(SMALL, calls=1, steps=2)
    assert found["ratio"] > 0
    # 32 × 32 bytes of the image, and as many of the mask.
    assert found["cache_mb_per_1000"] == {"labelled": 2.0, "unlabelled": 1.0}


def test_serving_measures_on_the_device_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    opened = serving.Predictor.from_bundle

    def opening(path: Path, **options: Any) -> Predictor:
        asked.append(options.get("device"))
        return opened(path, **options)

    monkeypatch.setattr(serving.Predictor, "from_bundle", opening)
    monkeypatch.setattr(serving, "FRAMES", 3)
    monkeypatch.setattr(serving, "FRAME", 64)
    monkeypatch.setattr(serving, "find_spec", lambda name: None)  # ONNX takes long to write
    row = serving.serving("compact", 32, threads=1, repeats=1, device="cpu")
    assert asked and set(asked) == {"cpu"}
    assert 0 < row["file_mb"] < row["full_file_mb"] and "onnx_fps" not in row
    assert all(row[name] > 0 for name in ("memory_fps", "folder_fps", "network_fps"))


def test_the_command_prints_a_table_or_json(told: list[Work], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "floor", lambda work: {"operations": 1, "rate": 1, "seconds": 1.0})

    def call(more: list[str]) -> str:
        return CliRunner().invoke(app, ["training", *more]).stdout

    text = call(["--presets", "compact", "--repeats", "1"])
    assert "training step, compact, 160 px, fp32, 4+4 pictures, N = 2" in text and "800 / 200" in text
    found = json.loads(call(["--presets", "compact", "--repeats", "1", "--passes", "1,8", "--json"]))
    assert [row["passes"] for row in found["training"]] == [1, 8]
    assert found["machine"]["threads"] == 2 and "torch" in found["versions"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["speed"], "training"),
        (["training", "--presets", "big"], "compact"),
        (["--passes", "two"], "no list of numbers"),
        (["--repeats", "0"], "repeats: is 0"),
        (["--calls", "0"], "calls: is 0"),
    ],
)
def test_the_command_refuses_what_it_does_not_know(arguments: list[str], said: str) -> None:
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, ProPLError) and said in str(error)
