"""Training, evaluation and inference through `python -m monai.bundle run`, and what bad input gets for an answer."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path

import apart
import jsonschema
import numpy as np
import pytest
from bundle_tools import BUNDLE, ROOT, SMALL, BundleRun
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from propl_monai.inference.predictor import Predictor
from propl_monai.model.tensor_file import read_header

pytestmark = pytest.mark.slow
RUN_SCHEMA = json.loads((ROOT / "propl_monai" / "common" / "run.schema.json").read_text())
COMPACT = ("train", "compact")


def read_record(folder: Path) -> dict:
    record = json.loads((folder / "run.json").read_text())
    jsonschema.validate(record, RUN_SCHEMA)
    return record


def test_training_leaves_a_model_and_its_papers(trained: Path) -> None:
    record = read_record(trained)
    assert (record["verb"], record["status"]) == ("train", "finished")
    assert record["results"]["epochs"] == 1
    assert record["inputs"][0]["path"].endswith("datalist.json")
    assert record["options"]["spatial_size"] == [32, 32]
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1]
    assert set(lines[0]["validation"]) == {"sd", "pd", "mean", "best_decoder"}
    assert sorted(path.name for path in (trained / "models").iterdir()) == ["model.pt", "model.safetensors"]
    curves = [EventAccumulator(str(path)).Reload() for path in (trained / "tensorboard").iterdir()]
    drawn = {tag: len(each.Scalars(tag)) for each in curves for tag in each.Tags()["scalars"]}
    assert drawn == {"train_loss": lines[0]["iteration"], "mdice": 1}


def test_evaluation_writes_a_row_a_case_and_a_line_a_task(
    bundle_run: BundleRun, trained: Path, phantom_folder: Path, tmp_path: Path
) -> None:
    done = bundle_run(
        "evaluating",
        ("train", "evaluate"),  # no preset: the header of the weights has encoder, size and normalisation
        dataset_dir=phantom_folder,
        model_dir=trained / "models",
        output_dir=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record = read_record(tmp_path)
    assert record["results"]["about"]["same datalist as training"] == "yes"
    with (tmp_path / "cases.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    datalist = json.loads((trained / "datalist.json").read_text())
    assert {row["case"] for row in rows} == {c["case_id"] for c in datalist["cases"] if c["split"] == "test"}
    assert rows[0]["height"] == "64"  # metrics are taken at the original resolution
    table = record["results"]["table"]
    assert [line["task"] for line in table][-1] == "mean"
    by_hand = np.mean([float(row["dice"]) for row in rows if row["task"] == "fetal head"])
    assert next(line for line in table if line["task"] == "fetal head")["dice"] == pytest.approx(by_hand)
    assert "HD95" in (tmp_path / "table.md").read_text()


@pytest.fixture(scope="module")
def mixed_folder(tmp_path_factory: pytest.TempPathFactory, phantom_folder: Path) -> Path:
    """Two good images of odd sizes, one of them deeper down, and three that cannot be read."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "deep er").mkdir()
    source = sorted((phantom_folder / "TN" / "PHANTOM" / "images").iterdir())[0]
    Image.open(source).resize((101, 77)).save(folder / "a.png")
    Image.open(source).convert("RGB").resize((50, 120)).save(folder / "deep er" / "b (1).jpg")
    (folder / "empty.png").write_bytes(b"")
    (folder / "page.png").write_text("<html>not found</html>")
    (folder / "cut.png").write_bytes(source.read_bytes()[:200])
    return folder


def test_inference_on_a_folder(bundle_run: BundleRun, trained: Path, mixed_folder: Path, tmp_path: Path) -> None:
    done = bundle_run(
        "inference",
        ("inference",),
        dataset_dir=mixed_folder,
        weights=trained / "models" / "model.safetensors",
        output_dir=tmp_path,
        tasks="['thyroid nodule','TG']",
        probability=True,
        uncertainty=True,
        overlay=True,
    )
    assert done.returncode == 3, done.stderr[-3000:]
    record = read_record(tmp_path)
    assert record["status"] == "partial"
    assert {Path(finding["path"]).name for finding in record["findings"]} == {"empty.png", "page.png", "cut.png"}
    assert "HTML" in next(f["message"] for f in record["findings"] if f["path"].endswith("page.png"))
    mask = np.asarray(Image.open(tmp_path / "deep er" / "b (1)_thyroid_nodule.png"))
    assert mask.shape == (120, 50)
    assert set(np.unique(mask)) <= {0, 255}
    probability = np.asarray(Image.open(tmp_path / "a_thyroid_gland_probability.png"))
    mask = np.asarray(Image.open(tmp_path / "a_thyroid_gland.png"))
    assert probability.dtype == np.uint16
    assert np.array_equal(mask > 0, probability > 65535 / 2)
    assert np.asarray(Image.open(tmp_path / "a_thyroid_gland_uncertainty.png")).max() > 0
    assert np.asarray(Image.open(tmp_path / "a_overlay.png")).shape == (77, 101, 3)
    assert len(record["outputs"]) == len(list(tmp_path.rglob("*.png"))) == 2 * (2 * 3 + 1)


def test_torchrun_trains(bundle_run: BundleRun, phantom_folder: Path, tmp_path: Path) -> None:
    """What its ranks compute: `test_ranks.py`."""
    done = bundle_run(
        "training",
        (*COMPACT, "multi_gpu_train"),
        launcher=("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"),
        dataset_dir=phantom_folder,
        output_dir=tmp_path,
        model_dir=tmp_path / "models",
        # BatchNorm cannot take the 1 × 1 deepest map of 32 px from one image alone, the share of a rank at the end.
        **SMALL | {"spatial_size": "[64,64]"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record = read_record(tmp_path)
    assert record["status"] == "finished"
    assert record["results"]["skipped_steps"] == 0
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1
    assert (tmp_path / "models" / "model.safetensors").exists()


def broken_mask_folder(folder: Path, phantom_folder: Path) -> Path:
    shutil.copytree(phantom_folder / "BC", folder / "BC")
    mask = sorted((folder / "BC" / "PHANTOM" / "masks").iterdir())[0]
    Image.open(mask).resize((32, 32)).save(mask)
    sorted((folder / "BC" / "PHANTOM" / "images").iterdir())[1].unlink()
    return folder


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tasks": "['thyroid nodle']"}, ["thyroid nodle", "did you mean 'thyroid nodule'?"]),
        ({"labeled_fraction": "1/4"}, ["--labeled_fraction", "unknown config key", "labelled_fraction"]),
        ({"dataset_dir": "nowhere"}, ["nowhere", "is not a folder", "--dataset_dir"]),
        ({"output_dir": __file__ + "/run"}, ["cannot be written", "choose another folder"]),
    ],
    ids=["unknown task", "unknown key", "no data", "no write permission"],
)
def test_bad_options_end_in_a_message(
    bundle_run: BundleRun, phantom_folder: Path, tmp_path: Path, options: dict, said: list[str]
) -> None:
    given = {"dataset_dir": phantom_folder, "output_dir": tmp_path, "model_dir": tmp_path, **SMALL, **options}
    done = bundle_run("training", COMPACT, **given)
    assert done.returncode == 2
    assert all(words in done.stderr for words in said), done.stderr[-1500:]
    assert "Traceback" not in done.stderr


def test_every_fault_of_the_files_is_told_at_once(bundle_run: BundleRun, phantom_folder: Path, tmp_path: Path) -> None:
    folder = broken_mask_folder(tmp_path / "data", phantom_folder)
    done = bundle_run("training", COMPACT, dataset_dir=folder, output_dir=tmp_path / "run", **SMALL)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert ".png" in done.stderr


def test_an_empty_datalist_is_refused(bundle_run: BundleRun, phantom_folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "datalist.json"
    empty.write_text('{"format": "propl-datalist/1", "name": "empty", "cases": []}')
    done = bundle_run(
        "training", COMPACT, dataset_dir=phantom_folder, datalist_file=empty, output_dir=tmp_path / "run", **SMALL
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "datalist.json" in done.stderr or "empty" in done.stderr


def test_weights_of_another_network_are_refused(
    bundle_run: BundleRun, trained: Path, mixed_folder: Path, tmp_path: Path
) -> None:
    done = bundle_run(
        "inference",
        ("inference",),
        dataset_dir=mixed_folder,
        weights=trained / "models" / "model.safetensors",
        output_dir=tmp_path,
        encoder="convnext_tiny",
        spatial_size="[64,64]",
    )
    assert done.returncode == 2
    assert "spatial_size [32, 32] there, [64, 64] here" in done.stderr
    assert "encoder 'tf_efficientnet_lite0' there, 'convnext_tiny' here" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_line_propl(elsewhere: Path) -> None:
    def propl(*arguments: str) -> subprocess.CompletedProcess:
        return apart.run("propl_monai.cli", arguments, elsewhere)

    listed = json.loads(propl("info", "--json").stdout)
    assert len(listed["tasks"]) == 8
    assert "torch" in listed["versions"]
    made = propl("phantoms", "made", "--cases", "2", "--size", "64")
    assert made.returncode == 0
    assert len(list((elsewhere / "made").rglob("*.png"))) == 2 * 8 * 2
    refused = propl("phantoms", str(BUNDLE))
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ")


@pytest.mark.exhaustive
def test_a_training_on_cut_pictures_is_evaluated_and_used_on_cut_pictures(
    bundle_run: BundleRun, phantom_folder: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(phantom_folder, data)
    for path in data.glob("*/PHANTOM/*/*.png"):  # a wide border around each picture and mask
        Image.fromarray(np.pad(np.asarray(Image.open(path)), ((40, 0), (0, 60)))).save(path)
    run = tmp_path / "run"
    places = {"dataset_dir": data, "model_dir": run / "models"}
    done = bundle_run("training", COMPACT, **places, output_dir=run, **SMALL, crop_sector=True)
    assert done.returncode == 0, done.stderr[-3000:]
    weights = run / "models" / "model.safetensors"
    assert read_header(weights)["crop_sector"] is True
    done = bundle_run("evaluating", ("train", "evaluate"), **places, output_dir=tmp_path / "test")
    assert done.returncode == 0, done.stderr[-3000:]
    with (tmp_path / "test" / "cases.csv").open() as stream:
        cases = list(csv.DictReader(stream))
    assert {(case["height"], case["width"]) for case in cases} == {("104", "124")}
    predictor, found = Predictor.from_bundle(run, device="cpu"), {}
    for case in json.loads((run / "datalist.json").read_text())["cases"]:
        if case["split"] == "test":
            mask = np.asarray(Image.open(data / case["mask"])) > 0
            predicted = predictor(data / case["image"], case["task"]).mask
            found[case["case_id"]] = 2 * (mask & predicted).sum() / max(1, mask.sum() + predicted.sum())
    assert {case["case"]: float(case["dice"]) for case in cases} == pytest.approx(found, abs=0.01)
