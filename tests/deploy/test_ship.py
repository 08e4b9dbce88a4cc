"""Weights to ship: half as large, with what that costs and where they are from; everything else as before."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import ABOUT, small_network
from safetensors.torch import load_file

from propl_monai.common.files import file_sha256
from propl_monai.common.run_record import RunRecord
from propl_monai.datasets.sources.registry import read_source
from propl_monai.deploy import ship as module
from propl_monai.deploy.export import export
from propl_monai.deploy.ship import ship
from propl_monai.errors import ProPLError
from propl_monai.inference.engines.graph_file import write_graph
from propl_monai.model.bundle_folder import Described
from propl_monai.model.weights import load_network, read_header, save_weights

OPTIONS = {
    "encoder": "x",
    "dataset_dir": "/anna/data",
    "prompts": "/anna/bank",
    "encoder_weights": "/anna/x.pth",
}


def write_run(folder: Path, datalist_sha256: str, record_in: str = ".") -> Path:
    save_weights(small_network(), folder / "models", {**ABOUT, "datalist_sha256": datalist_sha256})
    record = RunRecord(folder / record_in / "run.json", "train", OPTIONS)
    record.write("finished", results={"cases": {"labelled": 3}})
    return folder


@pytest.fixture(scope="module", autouse=True)
def graph() -> Iterator[None]:
    """Making an ONNX form is tested with the engines; here it is a file of one word."""

    def make(described: Described) -> Path:
        return write_graph(described.weights, described.weights_sha256, b"graph")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "make_graph", make)
        yield


@pytest.fixture(scope="module")
def digest(phantoms: Path) -> str:
    return read_source("folder", phantoms).sha256


@pytest.fixture(scope="module")
def made(phantoms: Path, digest: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """The folder of a training, the output folder, and what `ship` returns."""
    run = write_run(tmp_path_factory.mktemp("run"), digest)
    output = tmp_path_factory.mktemp("shipped")
    return run, output, ship(run, phantoms, output)


def test_kernels_are_halved_and_the_rest_keeps_its_bits(made: tuple[Path, Path, dict[str, Any]]) -> None:
    run, output, facts = made
    full, half = (load_file(str(place / "model.safetensors")) for place in (run / "models", output))
    assert full.keys() == half.keys() and any(name.startswith("decoder_sd.") for name in full)
    for name, value in full.items():
        if value.ndim >= 2 and not name.startswith("prompts."):
            assert half[name].dtype == torch.float16 and torch.equal(half[name], value.half()), name
        else:
            assert half[name].dtype == value.dtype and torch.equal(half[name], value), name
    assert facts["bytes"] == (output / "model.safetensors").stat().st_size
    assert facts["bytes"] < 0.75 * (run / "models" / "model.safetensors").stat().st_size


def test_the_header_says_what_it_costs_and_where_they_are_from(made: tuple[Path, Path, dict[str, Any]]) -> None:
    run, output, facts = made
    weights = output / "model.safetensors"
    before, header = read_header(run / "models" / "model.safetensors"), read_header(weights)
    assert {key: header[key] for key in before} == before
    assert header["halved"] == facts["halved"] and header["training"] == facts["training"]
    halved, training = header["halved"], header["training"]
    assert halved["full_weights_sha256"] == file_sha256(run / "models" / "model.safetensors")
    assert 0 < halved["largest_probability_difference"] < 0.01
    assert 0 < halved["largest_probability_difference_on_noise"] < 0.01
    assert len(halved["mean_dice"]) >= 6  # tasks with a validation case
    assert all(row["difference"] == row["half"] - row["full"] for row in halved["mean_dice"].values())
    assert re.fullmatch(r"validation split, \d+ cases", halved["measured_on"])
    assert training["run_sha256"] == file_sha256(run / "run.json") and training["options"] == {"encoder": "x"}
    assert training["cases"] == {"labelled": 3} and training["status"] == "finished"
    assert facts["graph"] == output / "model.graph.onnx" and facts["graph"].read_bytes() == b"graph"
    assert (output / "model.sha256").read_text() == f"{file_sha256(weights)}  model.safetensors\n"
    network, _ = load_network(weights)
    assert network.chosen_decoder == "pd" and {value.dtype for value in network.parameters()} == {torch.float32}


def test_what_is_made_of_them_does_not_say_that_it_is_halved(
    made: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    export(made[1], tmp_path / "one.safetensors")
    assert "halved" not in read_header(tmp_path / "one.safetensors")


def test_earlier_weights_are_kept_and_a_record_of_the_quick_start_is_found(
    phantoms: Path, digest: str, tmp_path: Path
) -> None:
    run, output = write_run(tmp_path / "run", digest, "train"), tmp_path / "models"
    output.mkdir()
    (output / "model.safetensors").write_bytes(b"earlier")
    ship(run, phantoms, output)
    assert (output / "previous" / "1" / "model.safetensors").read_bytes() == b"earlier"


def test_too_great_a_loss_is_refused(
    phantoms: Path, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST_LOSS", -1.0)
    with pytest.raises(ProPLError, match=r"in half precision .* loses -?0\.\d+ Dice.*, where -1.0 is allowed"):
        ship(write_run(tmp_path / "run", digest), phantoms, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_data_no_record_and_its_own_folder_are_refused(phantoms: Path, digest: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "0" * 64)
    with pytest.raises(ProPLError, match=rf"has sha256 {digest}, the weights were trained with 0+; give the datalist"):
        ship(run, phantoms, tmp_path / "out")
    with pytest.raises(ProPLError, match="is the file that is halved; choose another output folder"):
        ship(run, phantoms, run / "models")
    (run / "run.json").write_text(json.dumps({"verb": "evaluate"}))
    with pytest.raises(ProPLError, match=r"run\.json: is not the run.json of a training"):
        ship(run, phantoms, tmp_path / "out")
    (run / "run.json").unlink()
    with pytest.raises(ProPLError, match=r"run\.json: cannot be read as JSON .*; name the folder of a training"):
        ship(run, phantoms, tmp_path / "out")
