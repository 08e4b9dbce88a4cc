"""The figures of made-up runs: drawn from what there is, the same bytes each time, and left out with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_runs import cases, write_run
from PIL import Image

from propl_monai.errors import ProPLError
from propl_monai.evaluation.figure_style import COLOURS, DASHES, HATCHES, MARKERS, STYLE, canvas, matplotlib, widen
from propl_monai.evaluation.lab import plots
from propl_monai.evaluation.lab.comparison import read_comparisons
from propl_monai.evaluation.lab.figures import make_figures, plans
from propl_monai.evaluation.lab.plots import caption, dots, mdice_label, percent
from propl_monai.evaluation.lab.variants import PASSES
from propl_monai.evaluation.panels import Panel, best_median_worst, draw_panels

ALL = {"prompting", "passes", "memory", "perturbation", "curves", "labels", "text-onehot"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name in ("supervised", "prompt-onehot", "passes-4", "noise-gaussian"):
        write_run(folder, name)
    for seed in (0, 1):
        write_run(folder, "propl", seed=seed)
    write_run(folder, "propl", "1/16")
    return folder


def test_every_figure_is_drawn_the_same_each_time(runs: Path, tmp_path: Path) -> None:
    written, lines = make_figures(read_comparisons(runs, resamples=100), tmp_path / "a")
    make_figures(read_comparisons(runs, resamples=100), tmp_path / "b")
    names = {f"figure-{name}{suffix}" for name in ALL for suffix in (".svg", ".png")}
    assert {path.name for path in written} == names and {path.parent for path in written} == {tmp_path / "a" / "short"}
    for path in written:
        assert path.read_bytes() == (tmp_path / "b" / "short" / path.name).read_bytes()
        if path.suffix == ".png":
            with Image.open(path) as picture:
                assert picture.width == 720 and 250 < picture.height < 500
        else:
            assert "<dc:date>" not in path.read_text()
    assert (
        "short: figure passes drawn without what is not run or lacks its numbers: passes-1 at 1/8, passes-8 at 1/8"
        in lines
    )


def test_a_figure_without_its_runs_is_left_out_and_told(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "propl", curve=[])
    written, lines = make_figures(read_comparisons(tmp_path / "runs", resamples=100), tmp_path / "out")
    assert written == [] and len(lines) == len(ALL)
    assert "short: figure text-onehot left out, not run or without its numbers: prompt-onehot at 1/8" in lines


def test_one_run_has_a_curve(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "propl")
    written, _ = make_figures(read_comparisons(tmp_path / "runs", resamples=100), tmp_path / "out")
    assert {path.stem for path in written} == {"figure-curves"}


def test_bars_and_arms_are_those_of_the_table(runs: Path) -> None:
    comparison = read_comparisons(runs, resamples=100)["short"]
    cell = comparison.cell("propl", "1/8")
    assert cell is not None
    height, (low, high) = percent(cell)
    line = cell.scores.loc["mean"]
    assert height == pytest.approx(line["dice"] * 100)
    assert (height - low, height + high) == pytest.approx((line["dice_low"] * 100, line["dice_high"] * 100))
    with matplotlib.rc_context(STYLE):
        figure = plots.named({("propl", "1/8"): cell}, {"propl": "text"}, None)
    assert figure.axes[0].patches[0].get_height() == pytest.approx(height)
    assert figure.axes[0].get_ylim() == (0, 100)


def test_rows_are_drawn_with_the_seeds_that_all_have(runs: Path) -> None:
    """A mean of two trainings beside a single one would hide which of the two differs."""
    comparison = read_comparisons(runs, resamples=100)["short"]
    found = {plan.name: plan.cells(comparison) for plan in plans(comparison)}
    for name, key in (("text-onehot", ("propl", "1/8")), ("perturbation", ("propl", "1/8"))):
        assert found[name][key].seed_numbers == {0}
    assert found["curves"]["propl", "1/8"].seed_numbers == {0, 1}
    with matplotlib.rc_context(STYLE):
        drawn = next(plan for plan in plans(comparison) if plan.name == "perturbation").draw(found["perturbation"])
    assert len(drawn.axes[0].patches) == 4  # two rows, each filled and framed


def test_curve_counts_images_of_both_kinds(runs: Path) -> None:
    cell = read_comparisons(runs, resamples=100)["short"].cell("propl", "1/8")
    assert cell is not None
    with matplotlib.rc_context(STYLE):
        figure = plots.curves({("propl", "1/8"): cell})
    (drawn,) = figure.axes[0].lines
    # 8000 images in 500 steps are 16 a step; an epoch has 100 steps.
    assert list(drawn.get_xdata()) == [1600, 3200, 4800, 6400, 8000]
    # Mean of the two seeds, 0.4 points apart: 78 + 1.2 - 35 * 0.45 + 0.2.
    assert drawn.get_ydata()[0] == pytest.approx(78 + 1.2 - 35 * 0.45 + 0.2)


def test_seconds_are_those_of_the_fastest_epoch(tmp_path: Path) -> None:
    path = write_run(tmp_path, "propl")
    content = json.loads(path.read_text())
    content["results"]["curve"][2]["seconds"] = 80.5  # the others take 510 / 5
    path.write_text(json.dumps(content))
    cell = read_comparisons(tmp_path, resamples=100)["short"].cell("propl", "1/8")
    assert cell is not None
    with matplotlib.rc_context(STYLE):
        three = plots.passes({("propl", "1/8"): cell})
        two = plots.text_against_onehot({("propl", "1/8"): cell})
    assert [list(axes.lines[0].get_ydata()) for axes in three.axes[1:]] == [[80.5], [2160 / 1024]]
    assert two.axes[1].patches[0].get_height() == 80.5


def test_the_cost_of_a_pass_is_the_slope_over_n(tmp_path: Path) -> None:
    for name in ("passes-1", "propl", "passes-4", "passes-8"):
        write_run(tmp_path, name)
    found = read_comparisons(tmp_path, resamples=100)["short"].cells
    with matplotlib.rc_context(STYLE):
        figure = plots.passes({(name, "1/8"): found[name, "1/8"] for name in PASSES})
    # Each pass more takes 45 s of five epochs, and 130 MB.
    assert [axes.texts[0].get_text() for axes in figure.axes[1:]] == ["+9.0 s a pass", "+130.0 MB a pass"]


def test_captions_tell_images_seeds_and_what_has_no_interval(tmp_path: Path) -> None:
    few = cases(0.0)
    for place, task in enumerate(few["task"]):
        if task == "thyroid gland":
            few["source"][place], few["group"][place] = "tg3k", f"video {place % 4}"
    for name, seeds in (("propl", 3), ("passes-1", 1), ("passes-4", 1)):
        for seed in range(seeds):
            write_run(tmp_path, name, seed=seed, cases=few)
    cells = read_comparisons(tmp_path, resamples=100)["short"].cells
    assert caption(cells) == (
        "Test split: 192 images of 64 patients or videos. Trainings (seeds): 1 each, but 3 of propl at 1/8. Arms: 95 % "
        "interval over patients. Without thyroid gland: too few videos or patients for an interval."
    )
    assert mdice_label(cells["propl", "1/8"]) == "mean Dice, 7 tasks, %"
    line = cells["propl", "1/8"].scores
    assert percent(cells["propl", "1/8"])[0] == pytest.approx(line.iloc[[0, 1, 2, 3, 4, 5, 7]]["dice"].mean() * 100)


def test_a_small_difference_does_not_fill_the_axis() -> None:
    for low, high, expected in ((70, 71, (65.5, 75.5)), (20, 80, (20, 80)), (97, 99, (90, 100)), (0, 3, (0, 6.5))):
        _, (axes,) = canvas()
        axes.set_ylim(low, high)
        widen(axes)
        assert axes.get_ylim() == pytest.approx(expected)


def test_external_runs_are_in_no_figure_of_the_test_split(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "propl", split="external", options={"leave_out": ["busi"]})
    assert make_figures(read_comparisons(tmp_path / "runs", resamples=100), tmp_path / "out") == ([], [])


def test_labels_at_one_fraction_alone_are_no_figure(tmp_path: Path) -> None:
    for name in ("propl", "supervised"):
        write_run(tmp_path / "runs", name)
    written, _ = make_figures(read_comparisons(tmp_path / "runs", resamples=100), tmp_path / "out")
    assert "figure-labels" not in {path.stem for path in written} >= {"figure-memory"}


def test_looks_differ_in_more_than_colour(runs: Path) -> None:
    for looks in (COLOURS, MARKERS, HATCHES, DASHES):
        assert len(set(looks)) == 8
    cell = next(iter(read_comparisons(runs, resamples=100)["short"].cells.values()))
    with matplotlib.rc_context(STYLE):
        _, (axes,) = canvas()
        for number in range(2):
            dots(axes, [1.0], [cell], number)
    assert axes.lines[0].get_marker() != axes.lines[-1].get_marker()


# --- panels


def panel(name: str = "best", **masks: np.ndarray) -> Panel:
    square = np.zeros((20, 30), dtype=bool)
    square[5:15, 0:12] = True  # touches the border
    predictions = {"ProPL": square} | masks
    return Panel(
        name,
        np.linspace(0, 1, 600).reshape(20, 30),
        square,
        predictions,
        dict.fromkeys(predictions, 0.5) | {"ProPL": 1.0},
    )


def test_panels_have_a_column_a_case_and_a_row_a_prediction() -> None:
    empty = panel(other=np.zeros((20, 30)))
    figure = draw_panels([empty, panel("worst", other=np.ones((20, 30)))])
    assert len(figure.axes) == 3 * 2
    assert [axes.get_title() for axes in figure.axes[:2]] == ["best", "worst"]
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == ["image", "ProPL", "other"]
    told = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert told == [[], [], ["1.00"], ["1.00"], ["0.50, nothing predicted"], ["0.50"]]
    assert not figure.axes[0].collections  # the picture as it is
    reference, prediction = figure.axes[2].collections
    assert not np.allclose(reference.get_edgecolor(), prediction.get_edgecolor())
    (outline, *_) = [path for path in reference.get_paths() if len(path.vertices)]
    low, high = outline.vertices.min(0), outline.vertices.max(0)
    # Pixels 0-11 and 5-14: the edge lies half a pixel outside their centres, also at the border.
    assert list(low) == [-0.5, 4.5] and list(high) == [11.5, 14.5]


def test_panels_refuse_what_does_not_fit() -> None:
    with pytest.raises(ProPLError, match="none to draw"):
        draw_panels([])
    with pytest.raises(ProPLError, match="one shape"):
        draw_panels([panel(other=np.zeros((20, 31)))])
    with pytest.raises(ProPLError, match="give those of"):
        draw_panels([panel(), panel(other=np.zeros((20, 30)))])


def test_cases_are_chosen_by_rank() -> None:
    frame = pd.DataFrame({"task": "breast cancer", "case": list("abcde"), "dice": [0.5, 0.9, 0.1, 0.9, 0.7]})
    assert best_median_worst(frame, "BC") == {"best": "b", "median": "e", "worst": "c"}
    assert best_median_worst(frame[:4], "BC") == {"best": "b", "median": "a", "worst": "c"}
    with pytest.raises(ProPLError, match="has no case"):
        best_median_worst(frame, "FH")
