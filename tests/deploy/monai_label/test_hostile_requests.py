"""Hostile requests to the real MONAI Label server with our app: nothing is read, written or run outside the study.

Of the published advisories of MONAI Label 0.8.5, path traversal in `PUT /datastore` among them.
"""

from __future__ import annotations

import io
import json
import pickle
import shutil
import socket
import subprocess
import tarfile
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from label_tools import ENVIRONMENT, ROOT, Server, multipart, with_server
from PIL import Image

pytestmark = with_server
MODEL = "left_atrium"


@pytest.fixture
def files(study: Path, tmp_path: Path) -> Path:
    """A folder with what is uploaded: a picture, and files of other kinds."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    shutil.copy(study / "heart0.png", folder / "good.png")
    (folder / "page.png").write_text("<html><script>alert(1)</script></html>")
    for suffix in ("py", "html", "json", "sh", "png.exe", "pt", "zip"):
        (folder / f"evil.{suffix}").write_text("{}")
    return folder


def everything(folder: Path) -> dict[str, bytes]:
    """Content of every file but logs and what Python has compiled."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in paths
        if path.suffix not in (".log", ".pyc", ".lock") and "logs" not in path.parts
    }


def upload(server: Server, path: str, file: Path, field: str, params: object = None, **query: str) -> int:
    body, kind = multipart({"params": json.dumps(params or {})}, {field: file})
    return server.answer("PUT", f"{path}?{urllib.parse.urlencode(query)}", body, kind)[0]


def infer(server: Server, image: str, route: str = "/infer", /, **params: object) -> tuple[int, bytes]:
    body, kind = multipart({"params": json.dumps(params)})
    query = urllib.parse.urlencode({"image": image, "output": "image"})
    return server.answer("POST", f"{route}/{MODEL}?{query}", body, kind)


@pytest.fixture
def server(start: Callable[..., Server], app: Path, bundle: Path, study: Path) -> Server:
    return start(app, study, bundle=bundle)


def test_nothing_leaves_the_study(server: Server, study: Path, files: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    shutil.copy(study / "heart1.png", outside)
    good = files / "good.png"
    before = everything(tmp_path)

    for name in (
        "../escaped",
        "../../apps/propl/main",
        str(tmp_path / "absolute"),
        "a/b",
        "a\\b",
        "..",
        ".hidden",
        "x" * 300,
    ):
        for path in ("/datastore/image", "/datastore/"):
            assert upload(server, path, good, "file", image=name) == 400, (path, name)
        assert upload(server, "/datastore/label", good, "label", image="heart0", tag=name) == 400, name
        assert infer(server, "heart0", save_label=True, label_tag=name)[0] == 400, name
    for file in files.iterdir():
        if file != good:
            assert upload(server, "/datastore/image", file, "file", image="datastore_v2") == 400, file.name
            assert upload(server, "/datastore/image", file, "file") == 400, file.name
            assert upload(server, "/datastore/label", file, "label", image="heart0", tag="final") == 400, file.name
    assert upload(server, "/datastore/label", good, "label", ["no object"], image="heart0", tag="final") == 400

    for image in (str(outside), "../outside.png", "/etc/hostname", str(tmp_path)):
        assert infer(server, image)[0] == 400, image
        assert infer(server, "heart0", image=image)[0] == 400, image
        assert infer(server, image, "/infer/wsi")[0] >= 400, image
    for image in ("../outside", str(outside)):
        query = urllib.parse.urlencode({"image": image})
        assert server.answer("GET", f"/datastore/image?{query}")[0] == 404, image
        assert server.answer("DELETE", "/datastore/image?" + urllib.parse.urlencode({"id": image}))[0] >= 400, image
    for extension in ("/../../escaped.png", ".png/../x", "." + "x" * 300):
        assert infer(server, "heart0", result_extension=extension)[0] == 500, extension
    for path in ("/ohif/../../../../etc/passwd", "/ohif/..%2f..%2f..%2fetc%2fpasswd", "/static/..%2f..%2fapp.py"):
        assert b"root:" not in server.answer("GET", path)[1]
    assert server.answer("GET", "/proxy/dicom/etc/passwd")[0] == 500

    assert everything(tmp_path) == before


def test_a_picture_and_its_label_are_taken(server: Server, study: Path, files: Path, tmp_path: Path) -> None:
    assert upload(server, "/datastore/image", files / "good.png", "file", image="new one") == 200
    assert (study / "new one.png").read_bytes() == (files / "good.png").read_bytes()
    assert upload(server, "/datastore/label", tmp_path / "heart0_mask.png", "label", image="new one", tag=MODEL) == 200
    assert (study / "labels" / MODEL / "new one.png").is_file()
    status, content = infer(server, "new one")
    assert status == 200 and Image.open(io.BytesIO(content)).size == (90, 70)
    body, kind = multipart({"params": "{}"}, {"file": files / "good.png"})  # beside the study, for one answer
    status, other = server.answer("POST", f"/infer/{MODEL}?output=image", body, kind)
    assert status == 200 and np.array_equal(Image.open(io.BytesIO(other)), Image.open(io.BytesIO(content)))


def test_no_archive_is_unpacked_and_no_weights_are_taken(server: Server, bundle: Path, tmp_path: Path) -> None:
    archive = tmp_path / "session.tar"
    with tarfile.open(archive, "w") as packed:
        entry = tarfile.TarInfo("../../../../../../../../" + str(tmp_path / "escaped.png").lstrip("/"))
        packed.addfile(entry, io.BytesIO())
    weights = tmp_path / "model.pt"
    weights.write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    before = everything(tmp_path)
    body, kind = multipart({}, {"files": archive})
    assert server.answer("PUT", "/session/?uncompress=true", body, kind)[0] == 406
    assert server.answer("GET", "/session/x")[0] == server.answer("DELETE", "/session/x")[0] == 406
    body, kind = multipart({}, {"file": weights})
    assert server.answer("PUT", f"/model/{MODEL}", body, kind)[0] == 500
    assert server.answer("GET", f"/model/{MODEL}")[0] == server.answer("DELETE", f"/model/{MODEL}")[0] == 404
    assert infer(server, "heart0")[0] == 200
    assert everything(tmp_path) == before


class Canary:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_a_training_runs_no_code_of_a_request(server: Server, tmp_path: Path) -> None:
    """MONAI Label adds `bundle_path` of a request to the module search path of the training."""
    evil = tmp_path / "evil"
    evil.mkdir()
    for name in ("sitecustomize", "usercustomize"):
        (evil / f"{name}.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    server.submit("heart0", MODEL, tmp_path / "heart0_mask.png")
    server.submit("heart1", "final", tmp_path / "heart1_mask.png", label_info="no list")
    server.train(MODEL, bundle_path=str(evil), max_epochs=1, steps_per_epoch=1, batch_size=1)
    assert not (tmp_path / "canary").exists()


def started(app: Path, study: Path, bundle: Path, *options: str) -> tuple[int, str, int]:
    """Exit code and output of a server that does not start, and its port."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    command = [f"{ENVIRONMENT}/bin/python", "-m", "monailabel.main", "start_server", "--app", str(app)]
    command += ["--studies", str(study), "--conf", "bundle", str(bundle), "--port", str(port), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=ROOT, check=False)
    return done.returncode, done.stdout + done.stderr, port


@pytest.mark.parametrize("options", [(), ("--host", "0.0.0.0"), ("-i", "::"), ("--host=192.168.0.1",)])
def test_it_starts_on_loopback_only(app: Path, study: Path, bundle: Path, options: tuple[str, ...]) -> None:
    code, output, port = started(app, study, bundle, *options)
    assert code != 0 and "would let other machines in without a password; give --host 127.0.0.1" in output
    with socket.socket() as trial:
        assert trial.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize(
    "entry",
    [
        {"objects": {"../outside": {"image": {"ext": ".png"}}}},
        {"objects": {"heart0": {"image": {"ext": "/../../outside.png"}}}},
        {"objects": {"heart0": {"image": {"ext": ".png"}, "labels": {"../..": {"ext": ".png"}}}}},
        {"images_dir": "/etc"},
        {"labels_dir": "../.."},
    ],
)
def test_a_study_that_points_elsewhere_is_refused(app: Path, study: Path, bundle: Path, entry: dict) -> None:
    content = {
        "name": "a study",
        "description": "from elsewhere",
        "images_dir": ".",
        "labels_dir": "labels",
        "objects": {},
    }
    (study / "datastore_v2.json").write_text(json.dumps(content | entry))
    code, output, _ = started(app, study, bundle, "--host", "127.0.0.1")
    assert code != 0 and "datastore_v2.json: names files outside of its folder" in output
