"""What every registered network must do: each task its own mask, come back from a file, be predicted with and exported."""

from __future__ import annotations

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import ABOUT, TINY_ENCODER, speckle, tiny_network
from safetensors.torch import load_file, save_file

from propl_monai.deploy.export import export
from propl_monai.errors import ProPLError
from propl_monai.inference.predictor import Predictor
from propl_monai.model.network import ProPL
from propl_monai.model.networks.base import Segmenter
from propl_monai.model.networks.registry import NETWORKS
from propl_monai.model.weights import (
    described_network,
    load_network,
    load_weights,
    read_header,
    save_weights,
    start_from,
)

TASKS = ["left atrium", "fetal head"]
WITHOUT_FEATURES = {"uniseg", "meduniseg", "meduniseg_star"}  # that a method could perturb
every_network = pytest.mark.parametrize("name", NETWORKS)
newcomers = pytest.mark.parametrize("name", [name for name in NETWORKS if name != "propl"])


def make(name: str, seed: int = 0) -> Any:
    """Random weights, none of them 0, so that every part has an effect."""
    torch.manual_seed(seed)
    network = tiny_network(name)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return network.eval()


@pytest.fixture(scope="module")
def networks() -> dict[str, Segmenter]:
    """One of each. Read them, do not change them."""
    return {name: make(name) for name in NETWORKS}


@pytest.fixture(scope="module")
def folders(networks: dict[str, Segmenter], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights of each."""
    folder = tmp_path_factory.mktemp("networks")
    for name, network in networks.items():
        save_weights(network, folder / name, ABOUT)
    return {name: folder / name for name in networks}


@every_network
def test_each_image_of_a_batch_is_segmented_by_its_own_task(networks: dict[str, Segmenter], name: str) -> None:
    """In double precision: what acts in the deepest map alone is little in a random network, and is no rounding."""
    network, image = copy.deepcopy(networks[name]).double(), torch.rand(2, 1, 40, 33).double()
    with torch.no_grad():
        both = network(image, task=TASKS)
        each = [network(image[n : n + 1], task=task) for n, task in enumerate(TASKS)]
        other = network(image, task=TASKS[::-1])
        by_number = network(image, task=torch.tensor([network.task_names.index(task) for task in TASKS]))
    assert both.shape == (2, 1, 40, 33) and bool(both.isfinite().all())
    torch.testing.assert_close(both, torch.cat(each), rtol=1e-9, atol=1e-9)
    assert (both - other).abs().max() > 1e-5
    assert torch.equal(both, by_number)


@every_network
def test_features_decode_to_the_same_logits(networks: dict[str, Segmenter], name: str) -> None:
    network, image = networks[name], torch.rand(2, 1, 64, 64)
    if name in WITHOUT_FEATURES:
        for asked in (partial(network.features, image), partial(network.logits, None)):
            with pytest.raises(ProPLError, match=f"network '{name}': (gives|takes) no features"):
                asked(TASKS)
        return
    with torch.no_grad():
        features = network.features(image, TASKS)
        assert torch.equal(network.logits(features, TASKS), network(image, task=TASKS))
        other = network.features(image, TASKS[::-1])
    assert torch.equal(features.v4, other.v4) is network.encodes_once


@every_network
def test_weights_come_back_and_predict(
    networks: dict[str, Segmenter], folders: dict[str, Path], name: str, tmp_path: Path
) -> None:
    found, header = load_network(folders[name] / "model.safetensors")
    assert header["architecture"]["network"] == name and type(found) is NETWORKS[name]
    image = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(found(image, task=TASKS), networks[name](image, task=TASKS))
    again = make(name, seed=1)
    load_weights(again, folders[name] / "model.safetensors")
    assert all(map(torch.equal, again.state_dict().values(), networks[name].state_dict().values()))
    predictor = Predictor.from_bundle(folders[name], device="cpu")
    two = predictor(speckle(50, 40), list(TASKS))
    one = predictor(speckle(50, 40), TASKS[1])
    assert [each.mask.shape for each in two] == [(50, 40)] * 2
    torch.testing.assert_close(
        torch.from_numpy(two[1].probability), torch.from_numpy(one.probability), rtol=0, atol=1e-4
    )


@every_network
def test_the_header_rebuilds_what_evaluation_loads_into(folders: dict[str, Path], name: str) -> None:
    weights = folders[name] / "model.safetensors"
    encoder = read_header(weights)["architecture"]["encoder"]
    settings = {"encoder": encoder, "prompt_mode": "text", "prompt_padding": "zero", "decoder_block": "unetr"}
    network = described_network(weights, None, "fetal head", **settings)
    assert load_weights(network, weights, {"normalisation": "half"})["preset"] == "test"
    with torch.no_grad():
        assert network.eval()(torch.rand(1, 1, 32, 32)).shape == (1, 1, 32, 32)  # by the default task


@newcomers
def test_mirrored_pictures_and_uncertainty(networks: dict[str, Segmenter], name: str) -> None:
    network = copy.deepcopy(networks[name])
    plain, mirrored = (Predictor(network, (32, 32), "half", device="cpu", tta=tta) for tta in (False, True))
    picture = speckle(32, 32)
    either = [plain(shown, TASKS[0]).probability for shown in (picture, picture[:, ::-1].copy())]
    mean = (either[0] + either[1][:, ::-1]) / 2
    assert mirrored(picture, TASKS[0]).probability == pytest.approx(mean, abs=1e-4)
    assert plain(picture, TASKS[0], uncertainty=True).uncertainty is not None  # of views, which any network has
    passes = Predictor(network, (32, 32), "half", device="cpu", uncertainty_of="dropout")
    with pytest.raises(ProPLError, match=f"uncertainty: network '{name}' gives none"):
        passes(picture, TASKS[0], uncertainty=True)
    with pytest.raises(ProPLError, match=f"network '{name}' has no decoder pd"):
        Predictor(network, (32, 32), "half", device="cpu", decoder="pd")


# the first two have tests of their own here or elsewhere, exports of the others take minutes
LONG = ("propl", "film", "meduniseg", "meduniseg_star")


@pytest.mark.parametrize(
    "name",
    ["film", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in NETWORKS if name not in LONG)],
)
def test_onnx_gives_the_same_masks(folders: dict[str, Path], name: str, tmp_path: Path) -> None:
    record = export(folders[name], tmp_path / "net.onnx")
    assert record["network"] == name and record["parity"]["inputs"] == 50
    assert record["parity"]["mask_disagreement"] <= record["parity"]["limit_of_disagreement"]


@newcomers
def test_weights_of_one_network_are_refused_by_another(folders: dict[str, Path], name: str) -> None:
    weights = folders[name] / "model.safetensors"
    with pytest.raises(ProPLError, match=f"holds network '{name}', where 'propl' is wanted; use the config of {name}"):
        start_from(ProPL(TINY_ENCODER), str(weights))
    with pytest.raises(ProPLError, match=f"holds network 'propl', where '{name}' is wanted"):
        load_weights(make(name), folders["propl"] / "model.safetensors")


@every_network
def test_unknown_tasks_are_refused(networks: dict[str, Segmenter], name: str) -> None:
    image = torch.rand(2, 1, 32, 32)
    for task, told in (("spleen", "spleen"), (None, "none was given"), (TASKS * 2, "4 tasks for 2 images")):
        with pytest.raises(ProPLError, match=told):
            networks[name](image, task=task)


def test_a_network_that_this_version_does_not_know_is_refused_by_name(folders: dict[str, Path], tmp_path: Path) -> None:
    state, header = (
        load_file(folders["propl"] / "model.safetensors"),
        read_header(folders["propl"] / "model.safetensors"),
    )
    for found, fact in (("unheard", "unknown network"), (["propl"], "does not say what network it holds")):
        header["architecture"]["network"] = found
        save_file(state, str(tmp_path / "other.safetensors"), {"propl": json.dumps(header)})
        with pytest.raises(ProPLError, match=fact):
            load_network(tmp_path / "other.safetensors")


def test_weights_from_before_there_were_networks_are_of_propl(folders: dict[str, Path], tmp_path: Path) -> None:
    state, header = (
        load_file(folders["propl"] / "model.safetensors"),
        read_header(folders["propl"] / "model.safetensors"),
    )
    del header["architecture"]["network"]
    save_file(state, str(tmp_path / "old.safetensors"), {"propl": json.dumps(header)})
    found, read = load_network(tmp_path / "old.safetensors")
    assert isinstance(found, ProPL) and read["architecture"]["network"] == "propl"


@every_network
def test_another_network_has_the_encoder_and_a_start_of_its_own(networks: dict[str, Segmenter], name: str) -> None:
    first, second = networks[name], networks[name].another()
    ours, theirs = first.state_dict(), second.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if key.startswith("encoder."))
    assert any(not torch.equal(ours[key], theirs[key]) for key in ours if "decoder" in key)
    assert second.task_names == first.task_names and second.prompt_bank_sha256 == first.prompt_bank_sha256
