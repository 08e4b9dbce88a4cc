"""A bundle with its ONNX form, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import write_small_bundle

from propl_monai.deploy.onnx_graph import make_graph
from propl_monai.model.bundle_folder import Described, describe_bundle


@pytest.fixture(scope="session")
def described(tmp_path_factory: pytest.TempPathFactory) -> Described:
    """Small weights, `mean` of two decoders, with their graph beside them. Read them, do not change them."""
    bundle = write_small_bundle(tmp_path_factory.mktemp("graphed"))
    found = describe_bundle(bundle)
    assert make_graph(found) == bundle / "models" / "model.graph.onnx"
    return found


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "propl_monai"
