"""Which engine answers, where its ONNX form lies, and what it may import."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from factories import ROOT, small_network, speckle
from PIL import Image
from typer.testing import CliRunner

from propl_monai import Predictor
from propl_monai.cli import app
from propl_monai.deploy import onnx_graph
from propl_monai.errors import ProPLError
from propl_monai.inference.engines import choice
from propl_monai.inference.engines.graph_file import find_graph, places, write_graph
from propl_monai.model.bundle_folder import Described, describe_bundle

NEVER = {"monai", "ignite", "transformers", "pandas", "tensorboard"}
NOT_BY_ONNX = NEVER | {"torch", "torchvision", "timm"}


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """As if packages were not installed."""
    right = choice.find_spec
    monkeypatch.setattr(choice, "find_spec", lambda name: None if name in packages else right(name))


@pytest.fixture
def plain(described: Described, tmp_path: Path) -> Described:
    """The same weights without their graph."""
    folder = tmp_path / "plain"
    folder.mkdir()
    shutil.copy(described.weights, folder)
    return describe_bundle(folder)


def test_auto_takes_what_there_is(described: Described, plain: Described, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Predictor(described, device="cpu").engine_of() == "onnx"
    assert Predictor(described, device="cpu", engine="torch").engine_of() == "torch"
    assert Predictor(described, device="cpu", decoder="sd").engine_of() == "torch"
    assert Predictor(plain, device="cpu").engine_of() == "torch"
    assert Predictor(small_network(), (32, 32), "half", device="cpu").engine_of() == "torch"
    without(monkeypatch, "onnxruntime")
    assert Predictor(described, device="cpu").engine_of() == "torch"


def test_uncertainty_is_by_torch(described: Described) -> None:
    onnx, by_torch = Predictor(described, device="cpu"), Predictor(described, device="cpu", engine="torch")
    assert (onnx.engine_of(), onnx.engine_of(uncertainty=True)) == ("onnx", "torch")
    one, other = (predictor(speckle(40, 30), "LA", uncertainty=True) for predictor in (onnx, by_torch))
    assert one.uncertainty is not None and other.uncertainty is not None
    assert (one.uncertainty == other.uncertainty).all() and (one.probability == other.probability).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "tensorflow"}, "engine: unknown engine 'tensorflow'"),
        ({"engine": "onnx", "device": "cuda"}, "engine onnx: runs on the CPU alone, not on 'cuda'; give --device cpu"),
        ({"engine": "onnx", "decoder": "sd"}, "holds decoder 'pd', not 'sd'; leave --decoder out"),
    ],
)
def test_what_the_graph_cannot_do_is_refused_by_name(described: Described, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ProPLError, match=said):
        Predictor(described, **options)


def test_other_refusals(described: Described, plain: Described, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProPLError, match="uncertainty: is not in the ONNX form; leave it out, or use the engine torch"):
        Predictor(described, engine="onnx", device="cpu")(speckle(9, 9), "LA", uncertainty=True)
    with pytest.raises(ProPLError, match="engine onnx: needs a file of weights"):
        Predictor(small_network(), (32, 32), "half", engine="onnx")
    with pytest.raises(ProPLError, match=r"has no ONNX form.*; `propl predict --engine onnx` makes it, once"):
        Predictor(plain, engine="onnx", device="cpu")
    monkeypatch.setattr(choice, "_has_gpu", lambda: True)
    assert choice.choose_graph("auto", described, None, None) is None
    with pytest.raises(ProPLError, match="there is a GPU, which torch uses; give --device cpu"):
        choice.choose_graph("onnx", described, None, None)
    without(monkeypatch, "onnxruntime")
    with pytest.raises(ProPLError, match="onnxruntime is not installed; pip install onnxruntime"):
        Predictor(described, engine="onnx", device="cpu")


def test_without_torch_what_needs_it_is_named(
    described: Described, plain: Described, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "torch")
    predictor = Predictor(described)
    assert predictor.engine_of() == "onnx" and predictor(speckle(9, 9), "LA").mask.shape == (9, 9)
    cure = "needs torch, which is not installed; this installation only predicts"
    for what, call in (
        ("uncertainty", lambda: predictor(speckle(9, 9), "LA", uncertainty=True)),
        ("the engine torch", lambda: Predictor(described, engine="torch")),
        ("the engine torch", lambda: predictor.network),
        ("holds decoder 'pd', not 'sd'", lambda: Predictor(described, decoder="sd")),
        ("has no ONNX form", lambda: Predictor(plain)),
        ("runs on the CPU alone", lambda: Predictor(described, device="cuda")),
    ):
        with pytest.raises(ProPLError, match=f"{what}.*{cure}"):
            call()


# --- the file


def test_it_belongs_to_its_weights_alone(described: Described, plain: Described) -> None:
    graph = find_graph(described.weights, described.weights_sha256)
    assert graph is not None
    beside = places(plain.weights, plain.weights_sha256)[0]
    for damaged in (b"", b"{", graph.content[:-1], graph.content[1:], graph.content.replace(b"Conv", b"Conw", 1)):
        beside.write_bytes(damaged)
        assert find_graph(plain.weights, plain.weights_sha256) is None
    beside.write_bytes(graph.content)
    assert find_graph(plain.weights, "0" * 64) is None
    assert find_graph(plain.weights, plain.weights_sha256) is not None


def test_a_folder_that_cannot_be_written_to_falls_back_to_the_cache(
    described: Described, plain: Described, cache: Path
) -> None:
    graph = find_graph(described.weights, described.weights_sha256)
    assert graph is not None
    beside = plain.weights.with_name("model.graph.onnx")
    beside.mkdir()  # in its way
    kept = write_graph(plain.weights, plain.weights_sha256, graph.content)
    assert kept == cache / f"{plain.weights_sha256}.graph.onnx" and [*cache.iterdir()] == [kept]
    assert Predictor(plain, device="cpu").engine_of() == "onnx"


def test_neither_here_nor_there(plain: Described, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain.weights.with_name("model.graph.onnx").mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ProPLError, match="cannot be written"):
        write_graph(plain.weights, plain.weights_sha256, b"x")


def test_the_command_makes_it_once_and_says_which_engine_answered(
    described: Described, plain: Described, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = find_graph(described.weights, described.weights_sha256)
    made: list[Path] = []

    def make(of: Described) -> bytes:
        made.append(of.weights)
        assert graph is not None
        return graph.content

    monkeypatch.setattr(onnx_graph, "graph_of", make)
    monkeypatch.setattr(choice, "_has_gpu", lambda: False)
    Image.fromarray(speckle(20, 31)).save(tmp_path / "a.png")
    for number in range(2):
        words = ["predict", str(tmp_path / "a.png"), "-t", "LA", "-o", str(tmp_path / f"out{number}")]
        done = CliRunner().invoke(app, [*words, "--weights", str(plain.weights)])
        assert done.exit_code == 0 and "(engine onnx, cpu)" in done.output, done.output
        assert ("its ONNX form is made, once" in done.output) == (number == 0)
        assert '"engine": "onnx"' in (tmp_path / f"out{number}" / "run.json").read_text()
    assert made == [plain.weights]


def test_auto_goes_on_without_a_form_that_cannot_be_made(
    plain: Described, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Described) -> Path:
        raise ProPLError("encoder 'x'", "cannot be exported to ONNX", "use torch")

    assert Predictor(plain, device="cpu", make_graph=fail).engine_of() == "torch"
    assert "encoder 'x': cannot be exported to ONNX; use torch; torch predicts" in caplog.text
    with pytest.raises(ProPLError, match="cannot be exported to ONNX"):
        Predictor(plain, device="cpu", engine="onnx", make_graph=fail)
    without(monkeypatch, "onnxscript")
    assert Predictor(plain, device="cpu", make_graph=fail).engine_of() == "torch"
    with pytest.raises(
        ProPLError, match="has no ONNX form, which torch and the extra `export` make; install onnxscript"
    ):
        Predictor(plain, device="cpu", engine="onnx", make_graph=fail)


# --- what is loaded


@pytest.mark.parametrize(("engine", "never"), [("onnx", NOT_BY_ONNX), ("torch", NEVER)])
def test_a_prediction_loads_no_more_than_it_needs(
    described: Described, tmp_path: Path, engine: str, never: set[str]
) -> None:
    """Measurements, an overlay and a format for the whole folder come from NumPy and SciPy alone."""
    Image.fromarray(speckle(40, 40)).save(tmp_path / "a.png")
    words = ["predict", "a.png", "-t", "FH", "-o", "out", "--weights", str(described.weights), "--engine", engine]
    words += ["--device", "cpu", "--measure", "--overlay", "--format", "png,yolo"]
    code = f"import sys; from propl_monai.cli import app; app({words!r}, standalone_mode=False); print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert (tmp_path / "out" / "a_fetal_head.png").is_file(), done.stderr
    assert (tmp_path / "out" / "measurements.csv").is_file()
    loaded = set(done.stdout.split())
    assert {"numpy", "scipy", engine if engine == "torch" else "onnxruntime"} <= loaded
    assert not never & loaded
