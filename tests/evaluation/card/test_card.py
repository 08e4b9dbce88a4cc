"""The card as a whole, of a small network and phantoms: its figures are those of the evaluation, and it refuses leaks."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from factories import ABOUT, small_network

from propl_monai.common.files import file_sha256
from propl_monai.common.marked_text import FIGURES, marked, replace_marked
from propl_monai.data.datalist import as_items
from propl_monai.datasets.phantoms.write_phantoms import write_phantoms
from propl_monai.datasets.sources.registry import read_source
from propl_monai.errors import ProPLError
from propl_monai.evaluation.card.write import write_card
from propl_monai.images import read_mask
from propl_monai.inference.measurements import measure
from propl_monai.inference.predictor import Predictor
from propl_monai.model.weights import save_weights

EMPTY = "# Card\n<!-- figures: begin, written by a program -->\n<!-- figures: end -->\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms whose fetal heads have published circumferences: 7 mm more than their masks."""
    folder = tmp_path_factory.mktemp("card") / "data"
    write_phantoms(folder, cases_per_task=12, size=64)
    manifest = folder / "FH" / "PHANTOM" / "manifest.csv"
    rows = list(csv.DictReader(manifest.open()))
    for row in rows:
        mask = read_mask(manifest.parent / "masks" / f"{row['name']}.png")
        side = float(row["pixel_size_mm"])
        row["hc_mm"] = str(measure(mask, (side, side), "FH").head_circumference + 7)
    with manifest.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def weights(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    save_weights(small_network(), folder, {**ABOUT, "datalist_sha256": read_source("folder", data).sha256})
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other phantoms, of one task."""
    made = tmp_path_factory.mktemp("other")
    write_phantoms(made / "all", cases_per_task=12, size=64, seed=5)
    shutil.copytree(made / "all" / "BC", made / "external" / "BC")
    return made / "external"


@pytest.fixture(scope="module")
def made(
    data: Path, weights: Path, elsewhere: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The output folder, with the card in it, and card.json."""
    output = tmp_path_factory.mktemp("made")
    (output / "README.md").write_text(EMPTY)
    content = write_card(weights, data, output, external=elsewhere, card=output / "README.md")
    assert json.loads((output / "card.json").read_text()) == json.loads(json.dumps(content))
    return output, content


def test_the_table_is_that_of_the_test_split(made: tuple[Path, dict[str, Any]], data: Path, weights: Path) -> None:
    output, content = made
    items = as_items([c for c in read_source("folder", data).cases if c.mask and c.split == "test"], data)
    predictor = Predictor.from_bundle(weights, device="cpu")
    expected: dict[str, list[float]] = {}
    for item in items:
        mask, reference = predictor(item["image"], item["task"]).mask, read_mask(item["label"])
        total = mask.sum() + reference.sum()
        expected.setdefault(item["task"], []).append(2 * (mask & reference).sum() / total if total else 1.0)
    *rows, mean = content["test"]["table"]
    # a pixel whose probability rounds to 0.5 may fall on either side
    assert {row["task"]: row["dice"] for row in rows} == pytest.approx(
        {t: np.mean(d) for t, d in expected.items()}, abs=1e-4
    )
    assert mean["n"] == len(items) == len(pd.read_csv(output / "test.csv"))
    assert sum(row["test"] for row in content["data"]["tasks"]) == len(items)
    (other, _) = content["external"]["table"]
    assert (other["task"], other["n"]) == ("breast cancer", len(list((output / "external.csv").open())) - 1)


def test_circumferences_areas_and_calibration(made: tuple[Path, dict[str, Any]]) -> None:
    _, content = made
    reference = content["head_circumference"]["reference"]
    assert reference["bias"] == pytest.approx(-7) and reference["sd"] == pytest.approx(0, abs=1e-6)
    assert content["left_ventricle_area"]["n"] > 0
    table = {row["task"]: row["dice"] for row in content["test"]["table"]}
    assert [row["task"] for row in content["positions"]] == ["left atrium", "left ventricle", "myocardium"]
    assert all(row["dice"] == pytest.approx(table[row["task"]], abs=1e-4) for row in content["positions"])
    calibration = content["calibration"]
    assert calibration["measured_on"] == "test split" and calibration["fitted_images"] > 0
    assert all(part["scaled"] for part in calibration["tasks"].values())


def test_the_markdown_stands_between_the_markers_and_names_the_weights(
    made: tuple[Path, dict[str, Any]], weights: Path
) -> None:
    output, content = made
    inside = marked((output / "README.md").read_text(), FIGURES)
    assert inside == (output / "card.md").read_text().strip()
    assert replace_marked((output / "README.md").read_text(), FIGURES, "", "x") == EMPTY
    assert file_sha256(weights) in inside and content["data"]["datalist_sha256"] in inside
    for title in (
        "Weights",
        "Data",
        "Results",
        "Calibration",
        "Head circumference",
        "Hearts in both positions",
        "Left-ventricular area",
        "Failures",
    ):
        assert inside.count(f"### {title}\n") == 1


def test_leaks_and_other_data_are_refused_before_anything_is_measured(
    data: Path, weights: Path, elsewhere: Path, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(elsewhere, mixed)
    for kind in ("images", "masks"):
        shutil.copy(next((data / "BC" / "PHANTOM" / kind).iterdir()), mixed / "BC" / "PHANTOM" / kind / "copied.png")
    with pytest.raises(ProPLError, match=r"shares 1 pictures with the data of the training, first BC/PHANTOM/copied"):
        write_card(weights, data, tmp_path / "out", external=mixed)
    with pytest.raises(ProPLError, match=r"the weights were trained with .*; give the datalist of that training"):
        write_card(weights, elsewhere, tmp_path / "out")
    (tmp_path / "card.md").write_text("no markers")
    with pytest.raises(ProPLError, match=r"card\.md: has no place for figures; add the two lines"):
        write_card(weights, data, tmp_path / "out", card=tmp_path / "card.md")
    assert not (tmp_path / "out").exists()
