"""The tables of made-up runs: every number is where it should be, and what is missing or foreign says so."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_runs import cases, write_run

from propl_monai.errors import ProPLError
from propl_monai.evaluation.lab.comparison import read_comparisons
from propl_monai.evaluation.lab.statistics import holm
from propl_monai.evaluation.lab.tables import make_tables
from propl_monai.evaluation.lab.variants import (
    ABLATION,
    CURVES,
    LABELS,
    MEMORY,
    METHOD_ROWS,
    PASSES,
    PERTURBATIONS,
    PROMPTING,
    TEXT_AGAINST_ONEHOT,
    UPPER_BOUND,
    variants,
)

SEEDS = (0, 1, 2)
EVIL = "<script>alert('x')</script> | & co"
FILES = ["tables.md", "tables.html", "controls.csv", "differences.csv", *(f"table-{n}.csv" for n in range(1, 7))]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of seven runs in two budgets; the folder of budget short."""
    folder = tmp_path_factory.mktemp("lab")
    for seed in SEEDS:
        write_run(folder / "runs", "propl", seed=seed)
        write_run(folder / "runs", "supervised", seed=seed)
        write_run(folder / "runs", "supervised-all", "1", seed=seed)
    write_run(folder / "runs", "prompt-none", images_seen={"labelled": 4000, "unlabelled": 2000})
    write_run(folder / "runs", "cutmix", options={"title": EVIL}, seconds_training=None, parameters=None)
    write_run(folder / "runs", "propl", budget="long", cases=cases(0.0, groups=12))
    written = make_tables(read_comparisons(folder / "runs", resamples=100), folder / "out")
    assert sorted(written) == sorted(folder / "out" / budget / name for budget in ("short", "long") for name in FILES)
    assert all(path.is_file() for path in written)
    return folder / "out" / "short"


def read(made: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(made / f"{name}.csv").set_index("variant", drop=False)


def test_means_are_those_of_the_cases(made: Path) -> None:
    row = read(made, "table-2").loc["propl"]
    frame = pd.concat([pd.DataFrame(cases(0.012, seed)) for seed in SEEDS])
    means = frame.groupby("task")["dice"].mean()
    assert row["mdice"] == pytest.approx(means.mean())
    assert row["LA_dice"] == pytest.approx(means["left atrium"])
    assert row["mdice_low"] < row["mdice"] < row["mdice_high"]
    # 5 sources of 12 patients each; the three tasks of the heart share theirs.
    assert (row["n"], row["groups"], row["seeds"]) == (8 * 12 * 2, 5 * 12, 3)
    assert row["missed"] == (frame["status"] == "missed").sum() and row["ok"] + row["missed"] == len(frame)
    per_seed = [pd.DataFrame(cases(0.012, seed)).groupby("task")["dice"].mean().mean() for seed in SEEDS]
    assert row["seed_spread"] == pytest.approx(np.std(per_seed, ddof=1))


def test_differences_are_paired_and_corrected(made: Path) -> None:
    table = read(made, "table-2")
    expected = table.loc["propl", "mdice"] - table.loc["supervised", "mdice"]
    assert table.loc["propl", "difference"] == pytest.approx(expected)
    assert np.isnan(table.loc["supervised", "difference"])
    known = table["p"].dropna()
    assert len(known) == 2 and list(table.loc[known.index, "p_holm"]) == pytest.approx(holm(list(known)))


def test_a_single_training_has_a_difference_and_no_p(made: Path) -> None:
    """A p over patients would take the luck of one training for a property of the method."""
    row = read(made, "controls").loc["prompt-none"]
    first = [pd.DataFrame(cases(gain, 0)).groupby("task")["dice"].mean().mean() for gain in (-0.18, 0.0)]
    assert row["difference"] == pytest.approx(first[0] - first[1]) and row["difference_seeds"] == 1
    assert np.isnan(row["p"]) and np.isnan(row["p_holm"]) and np.isnan(row["difference_spread"])
    per_seed = [
        np.subtract(*(pd.DataFrame(cases(gain, seed)).groupby("task")["dice"].mean().mean() for gain in (0.012, 0.0)))
        for seed in SEEDS
    ]
    assert read(made, "controls").loc["propl", "difference_spread"] == pytest.approx(np.std(per_seed, ddof=1))


def test_the_same_training_used_in_two_ways_has_a_p(tmp_path: Path) -> None:
    for name in ("propl", "asked-wrong", "uplc-off"):
        write_run(tmp_path, name, cases=cases({"propl": 0.0, "asked-wrong": -0.3, "uplc-off": 0.1}[name]))
    comparison = read_comparisons(tmp_path, "propl", resamples=100)["short"]
    same, other = (comparison.difference(name, "1/8") for name in ("asked-wrong", "uplc-off"))
    assert same is not None and same.p is not None and same.p < 0.001
    assert other is not None and other.p is None and set(other.task_p.values()) == {None}


def test_a_run_can_be_traced_and_understood(made: Path) -> None:
    row = read(made, "controls").loc["propl"]
    assert row["commits"] == "c" * 40 and len(row["runs"].split()) == 3 and row["runs"].endswith("seed-2/run.json")
    assert row["decoder"] == "pd" and row["variance"] == pytest.approx(2e-5)
    text = (made / "tables.md").read_text()
    assert "(encoder tf_efficientnet_lite0, images of 128 x 128 pixels, fp32, 500 steps; one model for all" in text
    assert "| 4,000 | 4,000 | 2e-05 | pd | ccccccc |" in text


def test_costs_are_those_of_the_runs(made: Path) -> None:
    table = read(made, "controls")
    assert list(table.loc["propl", ["images_labelled", "images_unlabelled"]]) == [4000, 4000]
    assert table.loc["propl", "seconds_training"] == 510 and table.loc["propl", "peak_memory_mb"] == 2160
    assert np.isnan(table.loc["cutmix", "seconds_training"]) and table.loc["cutmix", "origin"] == "run"


def test_the_controls_list_every_variant_run_or_not(made: Path) -> None:
    table = read(made, "controls")
    assert list(table.index) == list(variants())
    run = set(table.index[table["origin"] == "run"])
    assert run == {"propl", "supervised", "prompt-none", "supervised-all", "cutmix"}
    assert table.loc["supervised-all", "labelled_fraction"] == "1"


def test_tables_of_the_paper_have_its_rows_marked(made: Path) -> None:
    for number in range(1, 7):
        table = read(made, f"table-{number}")
        paper = table[table["origin"] == "paper"]
        assert len(paper) == (21 if number <= 3 else 4)
        assert paper["comparable"].str.startswith("no: ").all()
        ours = METHOD_ROWS if number <= 3 else tuple(ABLATION.values())
        assert tuple(table["variant"][table["origin"] != "paper"]) == ours
    assert read(made, "table-2").loc["ProPL", "mdice"] == pytest.approx(0.8335)
    assert set(read(made, "table-6")["origin"]) == {"not run", "paper"}


def test_a_row_run_at_another_fraction_stands_in_its_table(tmp_path: Path) -> None:
    """No table of all controls shows it there."""
    write_run(tmp_path / "runs", "supervised", "1/16")
    write_run(tmp_path / "runs", "cutmix", "1/16")
    make_tables(read_comparisons(tmp_path / "runs", resamples=100), tmp_path)
    ours = [read(tmp_path / "short", f"table-{number}") for number in (1, 2)]
    assert ours[0].loc["cutmix", "origin"] == "run" and "cutmix" not in ours[1].index


def test_all_labels_stand_in_every_table(made: Path) -> None:
    assert read(made, "table-1").loc["supervised-all", "origin"] == "run"


def test_notes_tell_what_is_not_equal(made: Path) -> None:
    text = (made / "tables.md").read_text()
    assert "The rows did not see equally many images: 6000 to 8000 in training." in text
    assert "No differences: supervised has not been run at 1/16." in text
    assert "Trained with all labels, not 1/8: supervised-all." in text


def test_differences_of_tasks(made: Path) -> None:
    table = pd.read_csv(made / "differences.csv")
    assert set(table["variant"]) == {"propl", "prompt-none", "supervised-all", "cutmix"}
    known = table.dropna(subset="p")
    assert len(table) == 4 * 8 and set(known["variant"]) == {"propl", "supervised-all"}
    assert len(known) == 2 * 8 and (known["p_holm"] >= known["p"]).all()
    line = table[(table["variant"] == "prompt-none") & (table["task"] == "fetal head")].iloc[0]
    assert line["dice_high"] < -0.15


def test_markdown_keeps_foreign_text_in_its_cell(made: Path) -> None:
    lines = (made / "tables.md").read_text().splitlines()
    assert not [line for line in lines if "<script" in line]
    tables = [line.replace("\\|", "") for line in lines if line.startswith("|")]
    widths = [line.count("|") for line in tables]
    heads = [place for place, line in enumerate(tables) if line.startswith("| ---")]
    for place, following in zip(heads, [*heads[1:], len(tables) + 1], strict=True):
        assert len(set(widths[place - 1 : following - 1])) == 1
    assert any("not run" in line for line in tables)


class Page(HTMLParser):
    """Collects tags and checks that they close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attributes)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_whole_self_contained_and_escaped(made: Path) -> None:
    text = (made / "tables.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    tags = {tag for tag, _ in page.seen}
    assert not tags & {"script", "img", "link", "iframe"} and "&lt;script&gt;" in text and "url(" not in text
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in page.seen if tag == "th")
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.seen
    assert sum(tag == "h2" for tag, _ in page.seen) == 7
    links = [attributes["href"] for tag, attributes in page.seen if tag == "a"]
    places = [f"#{attributes['id']}" for tag, attributes in page.seen if tag == "section"]
    assert links == places and len(places) == 7  # they lead to the tables, and nowhere else


def test_tables_come_out_the_same_again(made: Path) -> None:
    folder = made.parent.parent
    make_tables(read_comparisons(folder / "runs", resamples=100), folder / "again")
    for name in FILES:
        assert (folder / "again" / "short" / name).read_bytes() == (made / name).read_bytes()


def of_the_thyroid_gland() -> dict[str, list[object]]:
    """The cases of one task alone."""
    whole = cases(0.0)
    kept = [place for place, task in enumerate(whole["task"]) if task == "thyroid gland"]
    return {name: [values[place] for place in kept] for name, values in whole.items()}


def test_external_data_never_share_a_table_with_the_test_split(tmp_path: Path) -> None:
    changes = {"split": "external", "cases": of_the_thyroid_gland()}
    for name in ("propl", "supervised"):
        write_run(tmp_path / "runs", name)
        write_run(tmp_path / "runs", name, options={"leave_out": ["TG3K/sweep0*"]}, **changes)
    write_run(tmp_path / "runs", "propl", options={"leave_out": ["DDTI"]}, **changes)
    written = make_tables(read_comparisons(tmp_path / "runs", resamples=100), tmp_path / "out")
    homes = {path.parent.name for path in written}
    (sweeps,) = homes - {"short", "short-without-DDTI"}
    assert sweeps.startswith("short-without-TG3K-sweep0-")
    names = {path.name for path in written if path.parent.name == sweeps}
    assert names == {"tables.md", "tables.html", "differences.csv", "external-1-8.csv"}
    table = pd.read_csv(tmp_path / "out" / sweeps / "external-1-8.csv").set_index("variant")
    assert list(table.index) == ["propl", "supervised"] and set(table["n"]) == {24} and set(table["groups"]) == {12}
    assert table.loc["propl", "TG_dice"] == pytest.approx(table.loc["propl", "mdice"]) and "LA_dice" not in table
    text = (tmp_path / "out" / sweeps / "tables.md").read_text()
    assert text.startswith("# Comparison, budget short, external data TG3K/sweep0*")
    assert "myocardium" not in text and "the paper" not in text
    assert pd.read_csv(tmp_path / "out" / "short" / "table-2.csv")["n"].dropna().unique() == [192]


def test_a_task_of_few_groups_leaves_the_others_their_interval(tmp_path: Path) -> None:
    for name in ("propl", "supervised"):
        few = cases(0.02 if name == "propl" else 0.0)
        for place, task in enumerate(few["task"]):
            if task == "thyroid gland":
                few["source"][place], few["group"][place] = "tg3k", f"video {place % 4}"
        for seed in range(4 if name == "propl" else 3):
            write_run(tmp_path / "runs", name, seed=seed, cases=few)
    make_tables(read_comparisons(tmp_path / "runs", resamples=100), tmp_path / "out")
    row = read(tmp_path / "out" / "short", "table-2").loc["propl"]
    assert np.isnan(row["mdice_low"]) and np.isnan(row["difference_low"]) and row["sure_tasks"] == 7
    expected = row[[f"{code}_dice" for code in ("BC", "FH", "LA", "LV", "MD", "OT", "TN")]].mean()
    assert row["sure_mdice"] == pytest.approx(expected) and row["sure_mdice_low"] < expected < row["sure_mdice_high"]
    assert row["p"] <= 1 and row["sure_difference_low"] < row["sure_difference"] < row["sure_difference_high"]
    text = (tmp_path / "out" / "short" / "tables.md").read_text()
    assert "mean of 7 tasks % [95 %]" in text and "7 tasks against supervised [95 %]" in text and "(3 seeds)" in text
    assert "Without an interval, as they have fewer than 10 groups: thyroid gland." in text
    assert "Rows of 3 to 4 seeds stand side by side" in text


def test_pooled_dice_stands_beside_that_of_the_images(tmp_path: Path) -> None:
    counted = cases(0.0)
    for name, pixels in (("reference_pixels", 100), ("predicted_pixels", 60), ("intersection_pixels", 40)):
        counted[name] = [pixels] * len(counted["case"])
    write_run(tmp_path / "runs", "propl", cases=counted)
    write_run(tmp_path / "runs", "supervised")
    make_tables(read_comparisons(tmp_path / "runs", resamples=100), tmp_path / "out")
    table = read(tmp_path / "out" / "short", "table-2")
    assert table.loc["propl", "LA_pooled"] == table.loc["propl", "mpooled"] == 0.5
    assert np.isnan(table.loc["supervised", "mpooled"])  # its run kept no counts
    text = (tmp_path / "out" / "short" / "tables.md").read_text()
    line = next(line for line in text[text.index("**Pooled Dice") :].splitlines() if line.startswith("| propl:"))
    assert line.count("| 50.0 (") == 9 and f"50.0 ({100 * table.loc['propl', 'mdice']:.1f})" in line


def test_against_must_be_known(tmp_path: Path) -> None:
    write_run(tmp_path, "propl")
    with pytest.raises(ProPLError, match="did you mean 'supervised'"):
        read_comparisons(tmp_path, against="superviced")


def test_against_another_row(tmp_path: Path) -> None:
    write_run(tmp_path, "propl")
    write_run(tmp_path, "prompt-none")
    comparison = read_comparisons(tmp_path, "propl", 100)["short"]
    assert comparison.difference("propl", "1/8") is None and comparison.difference("supervised", "1/8") is None
    found = comparison.difference("prompt-none", "1/8")
    assert found is not None and found.table.loc["mean", "dice"] < -0.15


def test_layout_names_variants_that_exist() -> None:
    groups = (METHOD_ROWS, ABLATION.values(), PROMPTING, PASSES, PERTURBATIONS)
    more = (TEXT_AGAINST_ONEHOT, CURVES, LABELS, MEMORY, [UPPER_BOUND])
    assert {name for group in (*groups, *more) for name in group} <= set(variants())


def test_layout_says_what_the_variants_do() -> None:
    told = {name: variants()[name].train for name in ABLATION.values()}
    for (prompting, uplc), name in ABLATION.items():
        assert (told[name].get("prompt_mode") == "none") != prompting
        assert ("passes" in told[name]) != uplc
    for name, passes in PASSES.items():
        assert variants()[name].train.get("passes", 2) == passes
