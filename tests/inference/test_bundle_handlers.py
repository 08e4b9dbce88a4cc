"""The bundle's inference: which files are read, what is written, and what run.json says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose
from PIL import Image

from propl_monai.common.files import lock_folder
from propl_monai.data import transforms
from propl_monai.errors import EXIT_BAD_INPUT, EXIT_OK, EXIT_PARTIAL, ProPLError
from propl_monai.inference import output_folder, postprocess
from propl_monai.inference.bundle_handlers import InputImages, SavePredictions
from propl_monai.inference.inferer import PromptInferer
from propl_monai.model.network import ProPL
from propl_monai.model.weights import save_weights

Check = Callable[[Path], dict[str, Any]]
TWO = ["left atrium", "thyroid nodule"]


def picture(path: Path, height: int, width: int, colour: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3) if colour else (height, width))
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def read(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.array(opened)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Grey, colour, odd and nested."""
    folder = tmp_path / "in"
    picture(folder / "grey.png", 40, 61)
    picture(folder / "deep" / "colour.bmp", 33, 97, colour=True)
    picture(folder / "tall.tif", 131, 17)
    return folder


def inputs(data: Path, output_dir: Path | str) -> InputImages:
    return InputImages(str(data), str(output_dir), transforms.inference((32, 32), "half", keep_picture=True), (32, 32))


def refusals(found: InputImages) -> dict[str, str]:
    """Name of each file that is refused -> why."""
    items = [found[index] for index in range(len(found))]
    return {Path(item["image_path"]).name: item["refused"] for item in items if item["refused"]}


def names(found: InputImages) -> list[str]:
    return [item["name"] for item in found.items]


def test_names_follow_the_folder(images: Path, tmp_path: Path) -> None:
    found = inputs(images, tmp_path / "out")
    assert names(found) == ["deep/colour", "grey", "tall"] and refusals(found) == {}
    assert found.items[1]["image"] == found.items[1]["image_path"] == str(images / "grey.png")


def test_one_file(images: Path, tmp_path: Path) -> None:
    assert names(inputs(images / "grey.png", tmp_path / "out")) == ["grey"]


def test_names_that_differ_in_suffix_only_stay_apart(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("v1.0/a.png", "v1.0/a.jpg", "v1.0/a_png.png", "v1.0/b.c.png", "a.png"):
        picture(folder / name, 8, 9)
    found = inputs(folder, tmp_path / "out")
    assert len(set(names(found))) == 5
    by_file = {Path(item["image"]).relative_to(folder).as_posix(): item["name"] for item in found.items}
    assert by_file["a.png"] == "a" and by_file["v1.0/b.c.png"] == "v1.0/b.c"
    assert all(Path(name).parent == Path(file).parent for file, name in by_file.items())


def test_results_inside_the_input_folder_are_not_read_again(images: Path) -> None:
    picture(images / "out" / "grey_left_atrium.png", 8, 8)
    picture(images / "out" / "deep" / "x.png", 8, 8)
    assert names(inputs(images, images / "out")) == ["deep/colour", "grey", "tall"]
    assert len(names(inputs(images, images / "elsewhere"))) == 5


def test_hidden_and_other_files_are_passed_over(images: Path, tmp_path: Path) -> None:
    (images / "notes.txt").write_text("x")
    picture(images / ".hidden.png", 8, 8)
    assert len(inputs(images, tmp_path / "out").items) == 3


def test_bad_files_become_findings(images: Path, tmp_path: Path) -> None:
    (images / "empty.png").touch()
    (images / "page.png").write_text("<html>")
    found = inputs(images, tmp_path / "out")
    refused = refusals(found)
    assert len(found) - len(refused) == 3
    assert set(refused) == {"empty.png", "page.png"}
    assert (
        "is empty (0 bytes); copy or download it again" in refused["empty.png"]
        and "an HTML page" in refused["page.png"]
    )


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match="nowhere: does not exist; name an image or a folder"):
        inputs(tmp_path / "nowhere", "out")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ProPLError, match="holds no picture; supported: PNG"):
        inputs(tmp_path, "out")


def predict(network: ProPL, found: InputImages, saver: SavePredictions, passes: int = 0, workers: int = 0) -> int:
    """As `bundle/configs/inference.json` wires it."""
    tasks = [task.name for task in saver.tasks]
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(found, batch_size=2, num_workers=workers),
        network=network,
        inferer=PromptInferer(tasks, uncertainty_passes=passes),
        postprocessing=Compose([postprocess.RestoreSized("pred"), postprocess.Probabilitiesd("pred", len(tasks))]),
        val_handlers=[saver],
    )
    return saver.run(evaluator)


def test_a_folder_through_monais_evaluator(network: ProPL, images: Path, tmp_path: Path, check_run_json: Check) -> None:
    out = tmp_path / "out"
    save_weights(network, tmp_path / "weights", {})
    weights = str(tmp_path / "weights" / "model.safetensors")
    found = inputs(images, out)
    saver = SavePredictions(str(out), found, TWO, True, True, True, {"passes": 3}, weights)
    assert predict(network, found, saver, passes=3) == EXIT_OK
    sizes = {"grey": (40, 61), "deep/colour": (33, 97), "tall": (131, 17)}
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    kinds = [
        f"_{task}{kind}" for task in ("left_atrium", "thyroid_nodule") for kind in ("", "_probability", "_uncertainty")
    ]
    assert written == {f"{name}{kind}.png" for name in sizes for kind in [*kinds, "_overlay"]} | {"run.json"}
    for name, size in sizes.items():
        mask, probability, uncertainty = (read(out / f"{name}{kind}.png") for kind in kinds[:3])
        assert mask.shape == probability.shape == uncertainty.shape == size
        assert mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 255}
        assert probability.dtype == uncertainty.dtype == np.uint16
        sure = abs(probability / 65535 - 0.5) > 1e-4
        assert np.array_equal((mask > 0)[sure], (probability > 65535 / 2)[sure])
        assert read(out / f"{name}_overlay.png").shape == (*size, 3)
    record = check_run_json(out / "run.json")
    assert (record["verb"], record["status"]) == ("predict", "finished")
    assert record["results"] == {"files": 3, "skipped": 0, "refused": 0, "pictures": 3} and record["findings"] == []
    assert len(record["outputs"]) == 21 and all(Path(path).is_file() for path in record["outputs"])
    assert record["inputs"][0]["path"] == weights and len(record["inputs"]) == 4


def test_only_masks_by_default_and_no_more_tasks_than_asked(network: ProPL, images: Path, tmp_path: Path) -> None:
    found = inputs(images / "grey.png", tmp_path / "out")
    assert predict(network, found, SavePredictions(str(tmp_path / "out"), found, "TN")) == EXIT_OK
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["grey_thyroid_nodule.png", "run.json"]


def test_a_bad_file_does_not_stop_the_rest_and_the_exit_code_says_so(
    network: ProPL, images: Path, tmp_path: Path, check_run_json: Check
) -> None:
    (images / "broken.png").write_bytes((images / "grey.png").read_bytes()[:200])
    found = inputs(images, tmp_path / "out")
    assert predict(network, found, SavePredictions(str(tmp_path / "out"), found, "LA"), workers=1) == EXIT_PARTIAL == 3
    record = check_run_json(tmp_path / "out" / "run.json")
    assert record["status"] == "partial" and record["results"] == {
        "files": 3,
        "skipped": 0,
        "refused": 1,
        "pictures": 3,
    }
    assert record["findings"][0]["path"] == str(images / "broken.png") and record["findings"][0]["message"]
    assert len(record["outputs"]) == 3


def test_a_name_too_long_for_its_results_is_refused_by_name(
    network: ProPL, images: Path, tmp_path: Path, check_run_json: Check
) -> None:
    long = picture(images / ("n" * 246 + ".png"), 8, 8)
    found = inputs(images, tmp_path / "out")
    assert predict(network, found, SavePredictions(str(tmp_path / "out"), found, "LA")) == EXIT_PARTIAL
    record = check_run_json(tmp_path / "out" / "run.json")
    assert record["results"] == {"files": 3, "skipped": 0, "refused": 1, "pictures": 3}
    assert record["findings"][0]["path"] == str(long) and "File name too long" in record["findings"][0]["message"]


@pytest.mark.parametrize("error", [ProPLError("disk", "is full", "make room"), KeyboardInterrupt(), MemoryError()])
def test_whatever_stops_the_run_stands_in_run_json(
    network: ProPL,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    check_run_json: Check,
    error: BaseException,
) -> None:
    found = inputs(images, tmp_path / "out")
    saver = SavePredictions(str(tmp_path / "out"), found, "LA")

    def stop(*_: Any) -> None:
        raise error

    monkeypatch.setattr(output_folder, "write_predictions", stop)
    with pytest.raises(type(error)):
        predict(network, found, saver)
    record = check_run_json(tmp_path / "out" / "run.json")
    assert record["status"] == "failed" and type(error).__name__ in record["findings"][0]["message"]


def test_two_processes_in_one_folder(network: ProPL, images: Path, tmp_path: Path) -> None:
    found = inputs(images, tmp_path / "out")
    with lock_folder(tmp_path / "out"), pytest.raises(ProPLError, match="is being written to by another process"):
        predict(network, found, SavePredictions(str(tmp_path / "out"), found, "LA"))


def test_results_of_earlier_runs_are_no_inputs(network: ProPL, images: Path) -> None:
    found = inputs(images, images / "first")
    assert predict(network, found, SavePredictions(str(images / "first"), found, "LA")) == EXIT_OK
    assert names(inputs(images, images / "second")) == ["deep/colour", "grey", "tall"]


def test_what_is_not_its_own_is_not_overwritten(network: ProPL, images: Path, tmp_path: Path) -> None:
    found = inputs(images, tmp_path / "out")
    drawn, run = tmp_path / "out" / "grey_left_atrium.png", tmp_path / "run" / "run.json"
    for path, content in ((drawn, "drawn by hand"), (run, '{"verb": "train"}')):
        path.parent.mkdir()
        path.write_text(content)
        with pytest.raises(ProPLError, match=r"would be overwritten|holds the run\.json of `propl train`"):
            predict(network, found, SavePredictions(str(path.parent), found, "LA"))
        assert path.read_text() == content and len(list(path.parent.iterdir())) == 1


def test_nothing_readable_at_all(network: ProPL, tmp_path: Path, check_run_json: Check) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").touch()
    found = inputs(tmp_path / "in", tmp_path / "out")
    assert predict(network, found, SavePredictions(str(tmp_path / "out"), found, "LA")) == EXIT_BAD_INPUT
    assert check_run_json(tmp_path / "out" / "run.json")["results"] == {
        "files": 0,
        "skipped": 0,
        "refused": 1,
        "pictures": 0,
    }
