"""The report of a made-up run: what the page says, that it is whole and safe, and what is refused."""

from __future__ import annotations

import io
import json
import re
import shutil
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from monai.metrics import CalibrationErrorMetric
from PIL import Image
from report_samples import NASTY_CASE, NASTY_PROMPT, NASTY_SOURCE, SIZE, TASKS, make_datalist, make_run

from propl_monai.common.files import file_sha256
from propl_monai.data.transforms import evaluation
from propl_monai.datasets.cohort import evaluation_items
from propl_monai.errors import ProPLError
from propl_monai.evaluation.report.charts import curves, overlay
from propl_monai.evaluation.report.collect import Shown, ranks_to_show
from propl_monai.evaluation.report.failures import LISTED, LOWEST, failure_grids
from propl_monai.evaluation.report.page import render
from propl_monai.evaluation.report.run_files import find_input, read_run_files
from propl_monai.evaluation.report.write import write_report
from propl_monai.images import write_mask
from propl_monai.model.network import ProPL
from propl_monai.model.weights import load_network, save_weights


class Page(HTMLParser):
    """Tags, ids, and text of a page."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> in line {self.getpos()[0]} closes something else"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, phantoms: Path) -> Path:
    return make_run(tmp_path_factory.mktemp("run") / "a <b>run</b>", phantoms)


@pytest.fixture(scope="module")
def made(run: Path, phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_report(run, tmp_path_factory.mktemp("out") / "report.html", data=phantoms)


@pytest.fixture(scope="module")
def page(made: list[Path]) -> Page:
    return Page(made[0])


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A run to break."""
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


def change(path: Path, **parts: Any) -> None:
    """Update parts of a run.json; a dict is merged into what is there."""
    content = json.loads(path.read_text())
    for key, value in parts.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(content))


# --- the page


def test_names_and_prompts_are_text_and_nothing_else(page: Page) -> None:
    for words in (NASTY_CASE, NASTY_PROMPT, NASTY_SOURCE, "a <b>run</b>", "</td><script>document.title='set'</script>"):
        assert words in page.text
    assert "phantoms & <b>others</b>" in page.text
    assert not page.named("script") and not page.named("b") and not page.open
    assert not [attributes for _, attributes in page.tags if any(name.startswith("on") for name in attributes)]


def test_the_page_needs_nothing_else(page: Page) -> None:
    for _, attributes in page.tags:
        for key in ("href", "xlink:href"):
            assert (attributes.get(key) or "#").startswith("#")
        assert (attributes.get("src") or "data:image/png;base64,").startswith("data:image/png;base64,")
    assert not page.named("link") and "@import" not in page.source
    (policy,) = [one["content"] for one in page.named("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:;") and "script" not in policy


def test_every_reference_has_its_target(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = {one[key] for _, one in page.tags for key in ("href", "xlink:href", "aria-labelledby") if one.get(key)}
    assert {str(name).removeprefix("#") for name in wanted} <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", page.source)) <= set(ids)


def test_the_page_can_be_heard(page: Page) -> None:
    assert page.named("html") == [{"lang": "en"}] and len(page.named("main")) == len(page.named("h1")) == 1
    assert [tag for tag, _ in page.tags if tag in ("header", "nav", "main", "footer")] == [
        "header",
        "nav",
        "main",
        "footer",
    ]
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert {one.get("scope") for one in page.named("th")} == {"col", "row"}
    assert len(page.named("caption")) == len(page.named("table")) > 5
    assert len(page.named("figcaption")) == len(page.named("figure")) == len(page.named("img")) + len(page.named("svg"))
    assert all(one["alt"] for one in page.named("img"))
    assert all(one["role"] == "img" and one["aria-label"] for one in page.named("svg"))
    assert page.named("a")[0] == {"class": "skip", "href": "#content"}
    scrolled = [one for one in page.named("div") if one.get("class") == "scroll"]
    assert all(one["tabindex"] == "0" and one["role"] == "region" and one["aria-label"] for one in scrolled)


def test_letters_stand_out(page: Page) -> None:
    """WCAG 2 asks for a contrast of 4.5."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    colours = dict(re.findall(r"--(ink|quiet|blue|soft): (#\w{6})", page.source))
    for ink in ("ink", "quiet", "blue"):
        for paper in ("#ffffff", colours["soft"]):
            assert (luminance(paper) + 0.05) / (luminance(colours[ink]) + 0.05) >= 4.5


def test_numbers_are_those_of_the_evaluation(run: Path, page: Page) -> None:
    table = pd.read_csv(run / "test" / "table.csv").set_index("task")
    assert f"{table.loc['mean', 'dice'] * 100:.1f} %" in page.text
    assert "test split: 6 pictures of 6 patients or videos" in page.text
    assert f"{table.loc['thyroid nodule', 'iou'] * 100:.1f}" in page.text
    for line in (run / "test" / "table.md").read_text().splitlines():
        assert not line.startswith("- ") or line[2:] in page.text
    assert "60.0" in page.text and "validation mDice of pd, %" in page.text  # epoch 1 of decoder sd


def test_provenance(run: Path, page: Page, phantoms: Path) -> None:
    for file in (run / "models" / "model.safetensors", run / "datalist.json"):
        assert file_sha256(file) in page.text
    assert make_datalist(phantoms).sha256 in page.text and torch.__version__.split("+")[0] in page.text
    assert json.loads((run / "run.json").read_text())["started"] in page.text


def test_best_median_and_worst_of_each_task(page: Page) -> None:
    pictures = page.named("img")
    assert len(pictures) == 3 * len(TASKS)
    words = [str(one["alt"]).split(",")[0] for one in pictures]
    assert words == [f"{rank} case of {task}" for task in TASKS for rank in ("best", "median", "worst")]
    with Image.open(io.BytesIO(b64decode(str(pictures[0]["src"]).partition(",")[2]))) as picture:
        assert picture.size == (480, 480)


def test_the_same_run_gives_the_same_page(run: Path, phantoms: Path, made: list[Path], tmp_path: Path) -> None:
    again = write_report(run, tmp_path / "again.html", data=phantoms)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in made]


def test_without_data_the_page_says_what_is_missing(run: Path, tmp_path: Path) -> None:
    (written,) = write_report(run, tmp_path / "report.html")
    page = Page(written)
    assert not page.named("img") and page.text.count("was not given the folder of the pictures") == 2
    assert len(page.named("svg")) == 3


def test_pictures_can_be_left_out(run: Path, phantoms: Path, tmp_path: Path) -> None:
    page = Page(write_report(run, tmp_path / "report.html", data=phantoms, pictures=False)[0])
    assert not page.named("img") and "Left out of this page" in page.text and NASTY_PROMPT in page.text
    assert len(page.named("svg")) == 3 + 1 + len(TASKS)


# --- calibration


def test_calibration_is_monais_at_the_size_of_the_pictures(run: Path, phantoms: Path, made: list[Path]) -> None:
    content = json.loads(made[1].read_text())
    network, _ = load_network(run / "models" / "model.safetensors")
    for task in TASKS:
        logits, masks = [], []
        for item in evaluation_items(make_datalist(phantoms), "test", [task]):
            loaded = evaluation(SIZE, "half")(item)
            with torch.no_grad():
                grid = network(loaded["image"][None], task=task)
            logits.append(torch.nn.functional.interpolate(grid, (64, 64), mode="bilinear"))
            masks.append(loaded["label"][None])
        metric = CalibrationErrorMetric(num_bins=15)
        metric(torch.cat(logits, 2).sigmoid(), (torch.cat(masks, 2) > 0).float())
        assert content["tasks"][task]["images"] == 3
        assert content["tasks"][task]["plain"]["expected_error"] == pytest.approx(metric.aggregate().item(), abs=1e-5)
    assert content["fitted_images"] == 4 and content["fitted_on"] == "validation"


def with_inverted_masks(phantoms: Path, folder: Path, split: str) -> Path:
    """A copy of the pictures in which every mask of a split shows the background."""
    shutil.copytree(phantoms, folder)
    for case in make_datalist(phantoms).cases:
        if case.split == split and case.mask:
            write_mask(folder / case.mask, ~(np.asarray(Image.open(folder / case.mask)) > 0))
    return folder


def test_temperature_comes_from_validation_alone(run: Path, phantoms: Path, made: list[Path], tmp_path: Path) -> None:
    true = json.loads(made[1].read_text())
    found = {}
    for split in ("train", "validation", "test"):
        data = with_inverted_masks(phantoms, tmp_path / split, split)
        written = write_report(run, tmp_path / f"{split}.html", data=data, pictures=False)
        found[split] = json.loads(written[1].read_text())
    assert found["train"] == true
    assert found["test"]["temperature"] == true["temperature"]
    assert found["test"]["tasks"] != true["tasks"]
    assert found["validation"]["temperature"] != pytest.approx(true["temperature"], rel=1e-3)
    plain = [content["tasks"]["all tasks"]["plain"] for content in (found["validation"], true)]
    assert plain[0] == plain[1]


def test_no_temperature_where_validation_is_what_is_evaluated(phantoms: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", phantoms, split="validation")
    page, content = write_report(run, tmp_path / "report.html", data=phantoms)
    assert json.loads(content.read_text())["temperature"] is None
    assert "No temperature:" in Page(page).text and "at T" not in Page(page).text


# --- drawings


def test_an_overlay_outlines_both_masks() -> None:
    picture = np.full((40, 80), 120, np.uint8)
    left, right = np.zeros((40, 80), bool), np.zeros((40, 80), bool)
    left[10:30, 10:30] = True
    right[10:30, 50:70] = True

    def colours(shown: Shown) -> np.ndarray:
        with Image.open(io.BytesIO(b64decode(overlay(shown).partition(",")[2]))) as drawn:
            assert drawn.size == (480, 240)
            return np.asarray(drawn.convert("RGB")).astype(int)

    drawn = colours(Shown("left atrium", "best", "a", 0.0, picture, right, left))
    white, orange = (drawn.min(2) > 220), ((drawn[..., 0] - drawn[..., 2]) > 120)
    # Six pixels of the page a pixel of the picture; the edge of left lies at columns 10 and 30, that of right at 50 and 70.
    assert white[:, :200].any() and not white[:, 280:].any()
    assert orange[:, 280:].any() and not orange[:, :200].any()
    assert white[120, 52:68].any() and (drawn[120, 120] == 120).all()
    empty = colours(Shown("left atrium", "best", "a", 0.0, picture, np.zeros_like(left), left))
    assert not ((empty[..., 0] - empty[..., 2]) > 120).any()


def test_curves_are_drawn_of_what_there_is() -> None:
    epochs = [
        {"epoch": 1, "loss": 2.0, "validation": {"sd": 0.5, "best_decoder": "sd"}, "validation_tasks": {"<x>": 0.5}},
        {"epoch": 2, "loss": 1.0},
        {"epoch": 3, "loss": 0.5, "validation": {"sd": 0.75, "best_decoder": "sd"}},
    ]
    drawn = curves(epochs, 3)
    assert len(drawn) == 2
    assert "sd 50 first, 75 last" in drawn[0].svg and "loss 2 first, 0.5 last" in drawn[1].svg
    assert "epoch 3, whose weights were kept" in drawn[0].caption and "kept" not in drawn[1].caption
    assert curves([], None) == []


# --- failures


def test_failures_are_listed_worst_first() -> None:
    rows = [("a", "missed", 0.0, 10, 0), ("b", "missed", 0.0, 90, 0), ("c", "false alarm", 0.0, 0, 7)]
    rows += [(f"d{number:03d}", "ok", 0.5 + number / 1000, 50, 60) for number in range(LOWEST + 5)]
    rows += [("e", "both empty", 1.0, 0, 0)]
    columns = ["case", "status", "dice", "reference_pixels", "predicted_pixels"]
    cases = pd.DataFrame(rows, columns=columns).assign(task="left atrium", source="A", group="1")
    missed, alarms, lowest = failure_grids(cases)
    assert [row[0] for row in missed.rows] == ["b", "a"] and "(2)" in missed.title
    assert alarms.rows == [["c", "left atrium", "A", "0.0", "0", "7"]]
    assert [row[0] for row in lowest.rows] == [f"d{number:03d}" for number in range(LOWEST)]
    assert f"20 cases where both masks hold something ({LOWEST} shown)" in lowest.title
    many = pd.DataFrame([("a", "missed", 0.0, 10, 0)] * (LISTED + 1), columns=columns).assign(task="x", source="A")
    assert (
        len(failure_grids(many)[0].rows) == LISTED
        and f"({LISTED + 1}; the {LISTED} largest" in failure_grids(many)[0].title
    )


def test_kinds_without_a_case_are_shown_as_none(page: Page, run: Path) -> None:
    empty = sum(not grid.rows for grid in failure_grids(read_run_files(run).cases))
    assert len([one for one in page.named("td") if one.get("class") == "none"]) == empty >= 1


# --- what does not belong together


def test_warnings(copy: Path) -> None:
    assert "Before you believe" not in render(read_run_files(copy))
    change(copy / "run.json", status="failed", findings=[{"path": "p<i>", "message": "disk full"}])
    change(copy / "test" / "run.json", results={"about": {"same datalist as training": "no", "epoch": 1, "seed": 3}})
    text = render(read_run_files(copy))
    assert "The training is not finished but failed." in text and "training: p&lt;i&gt;: disk full" in text
    assert "evaluated cases may have been trained on" in text
    assert "of epoch 1, those that this training kept of 2" in text and "of seed" not in text


def test_a_changed_mask_is_noticed(run: Path, phantoms: Path, tmp_path: Path) -> None:
    data = with_inverted_masks(phantoms, tmp_path / "data", "test")
    with pytest.raises(ProPLError, match=r"in cases\.csv; its weights, picture or mask were changed since"):
        write_report(run, tmp_path / "report.html", data=data)


def test_other_weights_are_refused(copy: Path, phantoms: Path, tmp_path: Path) -> None:
    weights = copy / "models" / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept + b" ")
    change(copy / "test" / "run.json", inputs=[{"path": str(weights), "sha256": file_sha256(copy / "datalist.json")}])
    with pytest.raises(ProPLError, match=r"not the file that was evaluated .*--weights"):
        write_report(copy, tmp_path / "report.html", data=phantoms)
    with pytest.raises(ProPLError, match=r"names no \.json file"):
        find_input(read_run_files(copy), ".json", [], None, "--datalist")


def test_other_cases_are_refused(copy: Path, phantoms: Path, tmp_path: Path) -> None:
    path = copy / "test" / "cases.csv"
    frame = pd.read_csv(path)
    frame.assign(case=frame["case"].replace(NASTY_CASE, "other")).to_csv(path, index=False)
    with pytest.raises(ProPLError, match=r"holds 6 cases of the test split, cases\.csv 6, or others"):
        write_report(copy, tmp_path / "report.html", data=phantoms)


@pytest.mark.parametrize(
    ("about", "spoilt", "message"),
    [
        ({"normalisation": "half"}, False, "without a valid preprocessing .spatial_size None"),
        ({"normalisation": "half", "spatial_size": SIZE}, True, "logits that are not finite"),
    ],
)
def test_weights_that_cannot_be_used(
    copy: Path, phantoms: Path, tmp_path: Path, about: dict[str, Any], spoilt: bool, message: str
) -> None:
    weights = copy / "models" / "model.safetensors"
    network, _ = load_network(weights)
    if spoilt:
        torch.nn.init.constant_(next(network.decoder_sd.parameters()), 3e38)  # finite, but no sum of it is
    save_weights(network, weights.parent, about)
    inputs = [{"path": str(path), "sha256": file_sha256(path)} for path in (weights, copy / "datalist.json")]
    change(copy / "test" / "run.json", inputs=inputs)
    with pytest.raises(ProPLError, match=message):
        write_report(copy, tmp_path / "report.html", data=phantoms)


def test_a_network_that_is_not_asked_in_words_has_no_prompts() -> None:
    assert ProPL("test_efficientnet", prompt_mode="onehot").sentences == {}


def test_inputs_are_found_where_the_user_says(copy: Path, tmp_path: Path) -> None:
    moved = (copy / "datalist.json").rename(tmp_path / "moved.json")
    change(copy / "test" / "run.json", inputs=[{"path": "gone/datalist.json", "sha256": file_sha256(moved)}])
    files = read_run_files(copy)
    assert find_input(files, ".json", [copy / "datalist.json"], moved, "--datalist") == moved
    assert find_input(files, ".json", [tmp_path / "no.json", moved], None, "--datalist") == moved
    with pytest.raises(ProPLError, match="--datalist"):
        find_input(files, ".json", [copy / "datalist.json"], None, "--datalist")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("run.json", "{", "cannot be read as JSON"),
        ("run.json", "[]", "holds no JSON object"),
        ("metrics.jsonl", '{"epoch": 1}\n{"epo', "metrics.jsonl, line 2.*no epoch"),
        ("test/cases.csv", "case,task\na,LA\n", "has no column"),
        ("test/cases.csv", "", "is empty"),
        ("test/cases.csv", 'a,b\n"', "no table of cases"),
    ],
)
def test_broken_files_are_named(copy: Path, file: str, content: str, message: str) -> None:
    (copy / file).write_text(content)
    with pytest.raises(ProPLError, match=message):
        read_run_files(copy)


def test_broken_cases_are_named(copy: Path) -> None:
    path = copy / "test" / "cases.csv"
    good = pd.read_csv(path)
    for column, value, message in (
        ("dice", 1.5, "not from 0 to 1"),
        ("dice", None, "no finite dice"),
        ("status", "k", "status"),
    ):
        good.assign(**{column: value}).to_csv(path, index=False)
        with pytest.raises(ProPLError, match=message):
            read_run_files(copy)
    good[:-1].to_csv(path, index=False)
    with pytest.raises(ProPLError, match=r"counts 6 cases, cases\.csv beside it 5"):
        read_run_files(copy)


def test_a_case_may_be_called_na(copy: Path) -> None:
    path = copy / "test" / "cases.csv"
    pd.read_csv(path).assign(case=["NA", "null", "1", "2", "3", "nan"]).to_csv(path, index=False)
    assert list(read_run_files(copy).cases["case"]) == ["NA", "null", "1", "2", "3", "nan"]


def test_a_folder_that_is_no_run(copy: Path, run: Path, tmp_path: Path) -> None:
    for training, evaluated, message in (
        (tmp_path / "no", None, "holds no run.json"),
        (run, tmp_path / "no", "--evaluation"),
        (run / "test", None, "verb 'evaluate', not 'train'"),
        (run, run, "verb 'train', not 'evaluate'"),
    ):
        with pytest.raises(ProPLError, match=message):
            read_run_files(training, evaluated)
    change(copy / "test" / "run.json", status="running")
    with pytest.raises(ProPLError, match="of an evaluation that is running"):
        read_run_files(copy)


def test_a_training_without_numbers_of_epochs(copy: Path) -> None:
    (copy / "metrics.jsonl").unlink()
    assert "The training left no numbers of its epochs." in render(read_run_files(copy))


def test_external_data_are_named(copy: Path) -> None:
    change(copy / "test" / "run.json", options={"external": ["CAMUS", "HC18/a*"]})
    assert read_run_files(copy).measured_on == "external data, CAMUS, HC18/a*"


def test_output_must_be_a_page(run: Path, tmp_path: Path) -> None:
    for name in ("report", "run.json"):
        with pytest.raises(ProPLError, match=r"ends in \.html"):
            write_report(run, tmp_path / name)
    with pytest.raises(ProPLError, match="is not a folder"):
        write_report(run, tmp_path / "report.html", data=tmp_path / "no")


def test_one_case_of_a_task_is_all_ranks(run: Path) -> None:
    files = read_run_files(run)
    one = replace(files, cases=files.cases[files.cases["task"] == "left atrium"][:1])
    assert list(ranks_to_show(one).values()) == ["best and median and worst"]
