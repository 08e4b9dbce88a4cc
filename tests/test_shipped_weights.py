"""The trained weights in this checkout. Skipped where they are not there, as in a checkout without large files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from propl_monai import Predictor, tasks
from propl_monai.common.files import file_sha256
from propl_monai.datasets.phantoms.phantom import make_phantom
from propl_monai.inference.engines.graph_file import find_graph
from propl_monai.model.bundle_folder import shipped_sha256, shipped_weights
from propl_monai.model.encoder import PACKAGED_WEIGHTS
from propl_monai.model.network import BOTH
from propl_monai.model.prompts import PromptBank
from propl_monai.model.weights import read_header

WEIGHTS = shipped_weights()
LARGEST = 16_000_000  # bytes, as git keeps every version for ever
LARGEST_GRAPH = 500_000
pytestmark = pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"{WEIGHTS.name} is not in this checkout")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(device="cpu")


def test_they_are_small_and_what_their_hash_says() -> None:
    assert WEIGHTS.stat().st_size <= LARGEST
    assert shipped_sha256(WEIGHTS) == file_sha256(WEIGHTS)


def test_the_header_is_complete() -> None:
    header = read_header(WEIGHTS)
    assert header["architecture"]["encoder"] in PACKAGED_WEIGHTS and header["architecture"]["tasks"] == list(
        tasks.NAMES
    )
    assert "decoders" not in header["architecture"]  # both
    assert header["prompt_bank_sha256"] == PromptBank.load().sha256
    assert {"spatial_size", "normalisation", "preset", "epoch", "validation_mdice", "datalist_sha256"} <= header.keys()
    halved, training = header["halved"], header["training"]
    assert set(halved["mean_dice"]) == set(tasks.NAMES)
    assert all(row["difference"] > -0.002 for row in halved["mean_dice"].values())
    assert halved["full_weights_sha256"] != file_sha256(WEIGHTS)
    assert len(training["run_sha256"]) == 64 and training["options"]["tasks"] == list(tasks.NAMES)
    assert not [value for value in training["options"].values() if isinstance(value, str) and value.startswith("/")]


def test_both_decoders_are_stored_in_half_precision() -> None:
    with safe_open(str(WEIGHTS), framework="pt") as opened:
        kinds = {name: opened.get_tensor(name).dtype for name in opened.keys() if name.endswith("weight")}
        sizes = {name: opened.get_slice(name).get_shape() for name in kinds}
    for decoder in BOTH:
        own = {name for name in kinds if name.startswith(f"decoder_{decoder}.") and len(sizes[name]) > 1}
        assert own and {kinds[name] for name in own} == {torch.float16}


@pytest.mark.parametrize(("anatomy", "name"), [("obstetric", "fetal head"), ("heart", "left ventricle")])
def test_a_phantom_gets_a_mask(predictor: Predictor, anatomy: str, name: str) -> None:
    """Phantoms are no patients, so nothing is said about how good it is."""
    image = make_phantom(anatomy, 0, 0).image
    found = predictor(image, name)
    assert found.mask.shape == image.shape[:2] and found.mask.dtype == np.bool_
    assert np.isfinite(found.probability).all() and found.probability.std() > 0.01


def test_their_onnx_form_is_small_and_gives_the_same_masks(predictor: Predictor) -> None:
    graph = find_graph(WEIGHTS, shipped_sha256(WEIGHTS))
    assert graph is not None and graph.path.parent == WEIGHTS.parent
    assert len(graph.content) < LARGEST_GRAPH and graph.decoder == read_header(WEIGHTS)["decoder"]
    by_torch = Predictor(device="cpu", engine="torch")
    assert (predictor.engine_of(), by_torch.engine_of()) == ("onnx", "torch")
    image = make_phantom("heart", 0, 0).image
    for one, other in zip(*(each(image, ["LA", "LV", "MD"]) for each in (predictor, by_torch)), strict=True):
        assert np.count_nonzero(one.mask != other.mask) <= 5


def test_the_command_finds_them_from_any_folder(tmp_path: Path) -> None:
    Image.fromarray(make_phantom("small parts", 0, 0).image).save(tmp_path / "picture.png")
    command = [sys.executable, "-m", "propl_monai.cli", "predict", "picture.png", "-t", "thyroid nodule"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "masks" / "picture_thyroid_nodule.png").is_file()
