"""Minutes to accuracy, on made curves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.time_to_accuracy import curve_of, judged
from propl_monai.errors import ProPLError


def run_of(folder: Path, mdice: list[float]) -> Path:
    folder.mkdir()
    lines = [
        {"iteration": 10 * number, "seconds": 60.0, "validation": {"sd": dice, "best_decoder": "sd"}}
        for number, dice in enumerate(mdice, 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_the_plain_step_takes_longer(tmp_path: Path) -> None:
    run = run_of(tmp_path / "plain", [0.5, 0.8])
    assert curve_of(run).minutes == [1.0, 2.0]
    assert curve_of(run, extra=3.0).minutes == [1.5, 3.0]
    assert curve_of(run).reached(0.8) == 2.0 and curve_of(run).reached(0.81) is None


def test_the_best_plain_run_counts(tmp_path: Path) -> None:
    ours = curve_of(run_of(tmp_path / "ours", [0.76]))
    slow, fast = (
        curve_of(run_of(tmp_path / name, dice)) for name, dice in (("slow", [0.1] * 5 + [0.8]), ("fast", [0, 0, 0.8]))
    )
    found = judged(ours, [slow, fast], 0.75)
    assert (
        found["times"] == 3.0 and not found["at_least"] and found["minutes"] == {"ours": 1.0, "slow": 6.0, "fast": 3.0}
    )


def test_a_target_that_is_never_reached_gives_a_lower_bound(tmp_path: Path) -> None:
    ours, plain = curve_of(run_of(tmp_path / "ours", [0.76])), curve_of(run_of(tmp_path / "plain", [0.1] * 4))
    found = judged(ours, [plain], 0.75)
    assert found["at_least"] and found["times"] == 4.0 and found["minutes"]["plain"] is None
    with pytest.raises(ProPLError, match="never reached"):
        judged(plain, [ours], 0.75)


def test_a_folder_without_curve_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match="does not exist"):
        curve_of(tmp_path)
