"""The real MONAI Label server on loopback: the app of this package, and the generic app with our bundle.

labelling/make_environment.sh /some/folder
PROPL_LABEL_ENV=/some/folder pytest -m label
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from label_tools import BUNDLE, ROOT, phantom_items, write_bundle
from monai.bundle import run as run_bundle
from PIL import Image

import propl_monai.deploy.monai_label
from propl_monai.deploy.monai_label.lib.served import Served
from propl_monai.tasks import TASKS, find

ENVIRONMENT = os.environ.get("PROPL_LABEL_ENV") and os.path.abspath(os.environ["PROPL_LABEL_ENV"])
pytestmark = [
    pytest.mark.label,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not ENVIRONMENT, reason="PROPL_LABEL_ENV names no environment (labelling/make_environment.sh)"),
]
PATIENCE = 400  # seconds for whatever the server is asked for
LEFT_ATRIUM = find("LA")


class Server:
    """A running server, and its HTTP interface."""

    def __init__(self, process: subprocess.Popen, port: int, log: Path) -> None:
        self.process, self.address, self.log = process, f"http://127.0.0.1:{port}", log

    def call(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        request = urllib.request.Request(self.address + path, body, {"Content-Type": kind}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read()!r}\n{self.told()}") from error

    def ask(self, method: str, path: str, **params: Any) -> Any:
        return json.loads(self.call(method, path, json.dumps(params).encode() if method == "POST" else None))

    def infer(self, model: str, image: str, **params: Any) -> np.ndarray:
        """The mask that comes back, bool (H, W)."""
        body, kind = multipart({"params": json.dumps(params)})
        query = urllib.parse.urlencode({"image": image, "output": "image"})
        picture = Image.open(BytesIO(self.call("POST", f"/infer/{model}?{query}", body, kind)))
        assert picture.format == "PNG"
        values = np.asarray(picture)
        assert set(np.unique(values)) <= {0, 1}
        return values > 0

    def submit(self, image: str, tag: str, label: Path, **params: Any) -> None:
        body, kind = multipart({"params": json.dumps(params)}, {"label": label})
        self.call("PUT", "/datastore/label?" + urllib.parse.urlencode({"image": image, "tag": tag}), body, kind)

    def train(self, model: str, **params: Any) -> None:
        """Start a training and wait for its end."""
        self.ask("POST", f"/train/{model}", **params)
        end = time.monotonic() + PATIENCE
        while (status := self.ask("GET", "/train/"))["status"] in ("SUBMITTED", "RUNNING"):
            assert time.monotonic() < end, self.told()
            time.sleep(1)
        assert status["status"] == "DONE", "\n".join(status["details"])

    def told(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]


def multipart(fields: dict[str, str], files: dict[str, Path] | None = None) -> tuple[bytes, str]:
    mark = uuid4().hex
    parts = [(f'name="{name}"', value.encode()) for name, value in fields.items()]
    parts += [(f'name="{name}"; filename="{path.name}"', path.read_bytes()) for name, path in (files or {}).items()]
    body = b"".join(
        f"--{mark}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + value + b"\r\n"
        for head, value in parts
    )
    return body + f"--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server for an app and a study; all are stopped in the end."""
    running: list[subprocess.Popen] = []

    def begin(app: Path, study: Path, **conf: object) -> Server:
        with socket.socket() as trial:
            trial.bind(("127.0.0.1", 0))
            port = trial.getsockname()[1]
        command = [f"{ENVIRONMENT}/bin/python", "-m", "monailabel.main", "start_server"]
        command += ["--app", str(app), "--studies", str(study), "--host", "127.0.0.1", "--port", str(port)]
        for name, value in conf.items():
            command += ["--conf", name, str(value)]
        log = tmp_path / f"server{len(running)}.log"
        # One thread, as here: sums in another order could move a pixel on the edge.
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with log.open("w") as stream:
            process = subprocess.Popen(command, stdout=stream, stderr=stream, cwd=tmp_path, env=environment)
        running.append(process)
        server = Server(process, port, log)
        wait_for(server)
        return server

    yield begin
    for process in running:
        process.terminate()
        process.wait(timeout=30)


def wait_for(server: Server) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert server.process.poll() is None, server.told()
        try:
            with urllib.request.urlopen(server.address + "/info/", timeout=PATIENCE):
                return
        except urllib.error.URLError:
            time.sleep(0.5)
    raise AssertionError(f"the server does not answer\n{server.told()}")


@pytest.fixture
def study(phantoms: Path, tmp_path: Path) -> Path:
    """Four pictures of the heart; one is a JPEG, and none is square."""
    folder = tmp_path / "study"
    folder.mkdir()
    for number, item in enumerate(phantom_items(phantoms, "LA", 4)):
        picture = Image.open(item["image"]).convert("L").resize((90, 70))
        picture.save(folder / f"heart{number}.{'jpg' if number == 3 else 'png'}")
        label = Image.open(item["label"]).convert("L").resize((90, 70), Image.Resampling.NEAREST)
        label.save(tmp_path / f"heart{number}_mask.png")
    return folder


@pytest.fixture
def bundle(served_folder: Path, tmp_path: Path) -> Path:
    """The bundle with the small weights."""
    target = tmp_path / "apps" / "model" / "propl_us_segmentation"
    write_bundle(BUNDLE, served_folder / "models", target, "compact")
    return target


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
    start: Callable[..., Server], bundle: Path, study: Path, own_masks: dict, phantoms: Path, tmp_path: Path
) -> None:
    app = tmp_path / "apps" / "propl"
    app.mkdir()
    shutil.copy(Path(propl_monai.deploy.monai_label.__path__[0]) / "main.py", app)
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


def test_a_bad_request_is_told(start: Callable[..., Server], bundle: Path, study: Path, tmp_path: Path) -> None:
    app = tmp_path / "apps" / "propl"
    app.mkdir()
    shutil.copy(Path(propl_monai.deploy.monai_label.__path__[0]) / "main.py", app)
    (study / "broken.png").write_text("no picture")
    server = start(app, study, bundle=bundle)
    with pytest.raises(AssertionError, match="500"):
        server.infer(LEFT_ATRIUM.slug, "broken")
    assert "broken.png: is plain text" in server.told()
    server.ask("POST", f"/train/{LEFT_ATRIUM.slug}", max_epochs=1)
    while (status := server.ask("GET", "/train/"))["status"] in ("SUBMITTED", "RUNNING"):
        time.sleep(1)
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
