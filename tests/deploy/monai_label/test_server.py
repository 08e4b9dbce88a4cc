"""The real MONAI Label server on loopback: the app of this package, and the generic app with our bundle.

labelling/make_environment.sh /some/folder
PROPL_LABEL_ENV=/some/folder pytest -m label
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from label_tools import ENVIRONMENT, Server, with_server
from monai.bundle import run as run_bundle
from PIL import Image

from propl_monai.deploy.monai_label.lib.served import Served
from propl_monai.tasks import TASKS, find

pytestmark = with_server
LEFT_ATRIUM = find("LA")


@pytest.fixture
def own_masks(
    bundle: Path, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[tuple[str, str], np.ndarray]:
    """By image and task, what the bundle's own inference writes."""
    output = tmp_path / "own"
    monkeypatch.setattr("sys.excepthook", lambda *_: None)  # the run installs its own
    pictures = tmp_path / "pictures"
    shutil.copytree(study, pictures)  # before the server adds a folder of labels
    names = [task.name for task in TASKS]
    config = str(bundle / "configs" / "inference.json")
    run_bundle(
        run_id="inference",
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=config,
        **{"bundle_root": str(bundle), "dataset_dir": str(pictures), "output_dir": str(output), "tasks": names},
    )
    return {
        (path.stem, task.slug): np.asarray(Image.open(output / f"{path.stem}_{task.slug}.png")) > 0
        for path in pictures.iterdir()
        for task in TASKS
    }


def test_the_app(
    start: Callable[..., Server], app: Path, bundle: Path, study: Path, own_masks: dict, phantoms: Path, tmp_path: Path
) -> None:
    server = start(app, study, bundle=bundle, reference=phantoms)

    about = server.ask("GET", "/info/")
    assert {name: model["labels"] for name, model in about["models"].items()} == {
        task.slug: {task.name: 1} for task in TASKS
    }
    assert all(model["dimension"] == 2 for model in about["models"].values())
    assert set(about["trainers"]) == {task.slug for task in TASKS}

    for task in TASKS:
        for image in ("heart0", "heart3"):
            assert np.array_equal(server.infer(task.slug, image), own_masks[image, task.slug]), (task, image)
    assert any(mask.any() and not mask.all() for mask in own_masks.values())

    weights = bundle / "models" / "model.safetensors"
    before = weights.read_bytes()
    for number in (0, 1):
        server.submit(f"heart{number}", LEFT_ATRIUM.slug, tmp_path / f"heart{number}_mask.png")
    # Weights of eight short epochs are too weak to learn a task without harm to the others, hence the tolerance.
    server.train(LEFT_ATRIUM.slug, max_epochs=3, steps_per_epoch=6, batch_size=2, learning_rate=5e-4, tolerance=1)

    (record,) = (bundle / "runs" / "monai_label").glob("*/run.json")
    content = json.loads(record.read_text())
    dice = content["results"]["dice"]
    assert content["status"] == "finished" and content["results"]["labels"] == 2
    assert set(dice) == {task.name for task in TASKS}
    assert dice["fetal head"]["compared_with"] == "validation masks of the reference folder"
    assert all(0 <= row["before"] <= 1 and 0 <= row["after"] <= 1 for row in dice.values())
    assert content["results"]["epoch"] and weights.read_bytes() != before
    assert dice["left atrium"]["after"] > dice["left atrium"]["before"]
    assert (bundle / "models" / "previous" / "1" / "model.safetensors").read_bytes() == before

    served = Served(bundle)  # the new weights
    image = study / "heart2.png"
    new = server.infer(LEFT_ATRIUM.slug, "heart2")
    assert np.array_equal(new, served.mask(image, LEFT_ATRIUM))
    assert not np.array_equal(new, own_masks["heart2", LEFT_ATRIUM.slug])

    scores = {name: served.uncertainty(study / name, LEFT_ATRIUM) for name in ("heart2.png", "heart3.jpg")}
    first = Path(max(scores, key=lambda name: scores[name])).stem
    asked = [server.ask("POST", f"/activelearning/uncertainty_{LEFT_ATRIUM.slug}")["id"] for _ in range(2)]
    assert asked == [first, {"heart2": "heart3", "heart3": "heart2"}[first]]


def test_a_bad_request_is_reported(start: Callable[..., Server], app: Path, bundle: Path, study: Path) -> None:
    (study / "broken.png").write_text("no picture")
    server = start(app, study, bundle=bundle)
    with pytest.raises(AssertionError, match="500"):
        server.infer(LEFT_ATRIUM.slug, "broken")
    assert "broken.png: is plain text" in server.last_lines()
    server.ask("POST", f"/train/{LEFT_ATRIUM.slug}", max_epochs=1)
    status = server.end_of_training()
    assert status["status"] == "ERROR" and "has no label to learn from" in "\n".join(status["details"])


def test_the_generic_app(
    start: Callable[..., Server], bundle: Path, study: Path, own_masks: dict, tmp_path: Path
) -> None:
    tool = [f"{ENVIRONMENT}/bin/python", "-m", "monailabel.main", "apps", "--download", "--name", "monaibundle"]
    subprocess.run([*tool, "--output", str(tmp_path / "generic")], check=True, capture_output=True)
    app = tmp_path / "generic" / "monaibundle"
    (app / "model").mkdir(exist_ok=True)
    model = shutil.copytree(bundle, app / "model" / bundle.name)
    server = start(app, study, models=bundle.name, zoo_source="local", sam2="false")

    choices = server.ask("GET", "/info/")["models"][bundle.name]["config"]["task"]
    assert sorted(choices) == sorted(task.name for task in TASKS)
    for task in TASKS:
        for image in ("heart0", "heart3"):
            mask = server.infer(bundle.name, image, task=task.name, result_extension=".png")
            assert np.array_equal(mask, own_masks[image, task.slug]), (task, image)

    before = (model / "models" / "model.pt").read_bytes()
    for number in (0, 1, 3):
        server.submit(f"heart{number}", "final", tmp_path / f"heart{number}_mask.png")
    server.train(bundle.name, max_epochs=1, val_split=0.34, task=LEFT_ATRIUM.name, device="cpu")
    assert (model / "models" / "model.pt").read_bytes() != before
    changed = server.infer(bundle.name, "heart2", task=LEFT_ATRIUM.name)
    assert np.array_equal(changed, Served(model).mask(study / "heart2.png", LEFT_ATRIUM))
    assert server.ask("POST", "/activelearning/first")["id"] == "heart2"
