"""A bundle with weights, small enough to be trained here, and a server for it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from label_tools import BUNDLE, ENVIRONMENT, ROOT, Server, phantom_items, wait_for, write_bundle
from PIL import Image

SIZE = (32, 32)
ABOUT = {"spatial_size": list(SIZE), "normalisation": "half", "preset": "test"}


@pytest.fixture(scope="session")
def served_folder(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `models/`: weights that a short training on all eight tasks has written. Copy it to change it."""
    from factories import build_training

    from propl_monai.model.weights import save_weights
    from propl_monai.tasks import NAMES

    folder = tmp_path_factory.mktemp("served")
    training = build_training(phantoms, folder, epochs=8, labelled_fraction="1/1", tasks=NAMES)
    training.trainer.run()
    save_weights(training.network.eval(), folder / "models", ABOUT)
    return folder


@pytest.fixture
def served_network(served_folder: Path) -> Any:
    """The network of that folder, to be changed, and the header of its weights."""
    from propl_monai.model.weights import WEIGHTS, load_network

    return load_network(served_folder / "models" / WEIGHTS)


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
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
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
def app(tmp_path: Path) -> Path:
    """A folder with the app."""
    folder = tmp_path / "apps" / "propl"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "propl_monai" / "deploy" / "monai_label" / "main.py", folder)
    return folder
