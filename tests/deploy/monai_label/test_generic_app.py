"""What MONAI Label's generic app `monaibundle` does with the configs, done here without MONAI Label.

It reads one inference.json and one train.json, gives labelled items of `image` and `label` alone, a device as text and the
choice of the task; it runs preprocessing, inferer and postprocessing one by one, and neither evaluator nor handlers.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from label_tools import BUNDLE, phantom_items, write_bundle
from monai.bundle import ConfigParser
from monai.bundle import run as run_bundle
from monai.transforms import LoadImaged

from propl_monai.deploy.monai_label.lib.served import Served
from propl_monai.errors import ProPLError
from propl_monai.model.weights import WEIGHTS, load_network
from propl_monai.tasks import NAMES, find


@pytest.fixture
def generic(served_folder: Path, tmp_path: Path) -> Path:
    """The bundle as the generic app is to find it."""
    target = tmp_path / "propl_us_segmentation"
    write_bundle(BUNDLE, served_folder / "models", target, "compact")
    return target


def test_the_configs_say_what_the_weights_are(generic: Path, served_folder: Path) -> None:
    for name in ("train.json", "inference.json"):
        config = json.loads((generic / "configs" / name).read_text())
        assert (config["encoder"], config["spatial_size"], config["normalisation"]) == (
            "test_efficientnet",
            [32, 32],
            "half",
        )
    train = json.loads((generic / "configs" / "train.json").read_text())
    assert train["optimizer"]["_target_"] == "torch.optim.AdamW"
    assert (generic / "models" / WEIGHTS).read_bytes() == (served_folder / "models" / WEIGHTS).read_bytes()


def test_an_existing_folder_is_not_overwritten(generic: Path, served_folder: Path) -> None:
    with pytest.raises(ProPLError, match="exists"):
        write_bundle(BUNDLE, served_folder / "models", generic, None)
    with pytest.raises(ProPLError, match=r"nothing\.json: does not exist"):
        write_bundle(BUNDLE, served_folder / "models", generic / "new", "nothing")


def test_task_as_a_choice(generic: Path, phantoms: Path) -> None:
    parser = ConfigParser()
    parser.read_config(str(generic / "configs" / "inference.json"))
    parser.config["bundle_root"] = str(generic)
    network = parser.get_parsed_content("network_def", instantiate=True)
    network.load_state_dict(torch.load(generic / "models" / "model.pt", weights_only=True))
    choices = parser.get_parsed_content("displayable_configs", instantiate=True)["task"]
    assert sorted(choices) == sorted(NAMES) and choices[0] == parser.config["tasks"][0]
    image = phantom_items(phantoms, "LV", 1)[0]["image"]
    served = Served(generic)
    masks = {}
    for choice in [choices, *NAMES]:  # the whole list when the viewer chose nothing
        parser["displayable_configs"].update({"task": choice})
        parser.parse()
        pipeline = parser.get_parsed_content("preprocessing").transforms
        assert isinstance(pipeline[0], LoadImaged)
        data = {"image": image, "device": "cpu"}
        for transform in pipeline:
            data = transform(data)
        with torch.no_grad():
            data["pred"] = parser.get_parsed_content("inferer")(data["image"][None], network.eval())[0]
        for transform in parser.get_parsed_content("postprocessing").transforms:
            data = transform(data)
        name = choice if isinstance(choice, str) else choice[0]
        mask = np.asarray(data["pred"])
        assert mask.dtype == np.uint8
        assert np.array_equal(mask.T > 0, served.mask(image, find(name))), name
        masks[name] = mask.tobytes()
    assert len(set(masks.values())) > 1  # the choice matters


def given(items: list[dict]) -> list[dict]:
    """Items as MONAI Label gives them."""
    return [{"image": item["image"], "label": item["label"]} for item in items]


@pytest.mark.parametrize("validation", [1, 0])
def test_training_on_given_items(
    generic: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, validation: int
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # the run installs its own
    monkeypatch.chdir(tmp_path)
    items = given(phantom_items(phantoms, "LA", 4))
    before = load_network(generic / "models" / WEIGHTS)[0].state_dict()
    config = json.loads((generic / "configs" / "train.json").read_text())
    loader = {
        "_target_": "CheckpointLoader",
        "load_path": str(generic / "models" / "model.pt"),
        "load_dict": {"model": "$@network"},
        "strict": False,
    }
    run_bundle(
        run_id="run",
        init_id=None,
        final_id=None,
        meta_file=str(generic / "configs" / "metadata.json"),
        config_file=str(generic / "configs" / "train.json"),
        **{
            "bundle_root": str(generic),
            "train#trainer#max_epochs": 1,
            "train#dataset#data": items[validation:],
            "validate#dataset#data": items[:validation],
            "device": "cpu",
            "train#handlers": [loader, *config["train"]["handlers"]],
            "displayable_configs": {"task": "left atrium"},
        },
    )
    after, header = load_network(generic / "models" / WEIGHTS)
    assert header["epoch"] == 1 and (header["validation_mdice"] is not None) == bool(validation)
    assert not all(torch.equal(value, before[name]) for name, value in after.state_dict().items())
    assert sorted(path.name for path in (generic / "models" / "previous" / "1").iterdir()) == ["model.pt", WEIGHTS]
    lines = (generic / "runs" / "train" / "metrics.jsonl").read_text().splitlines()
    assert ("validation" in json.loads(lines[0])) == bool(validation)
    if validation:
        assert list(json.loads(lines[0])["validation_tasks"]) == ["left atrium"]


def test_without_given_items_the_missing_folder_is_told(tmp_path: Path) -> None:
    from propl_monai.datasets.cohort import training_cohort

    cohort = training_cohort("nowhere", None, str(tmp_path), ["left atrium"])
    assert cohort.unlabelled == [] and cohort.sha256 is None
    for items in ("labelled", "validation"):
        with pytest.raises(ProPLError, match="nowhere: is not a folder; give --dataset_dir"):
            getattr(cohort, items)


def test_weights_are_taken_anew_when_they_change(served_folder: Path, tmp_path: Path) -> None:
    from propl_monai.model.weights import save_weights

    folder = tmp_path / "copy"
    shutil.copytree(served_folder, folder)
    served = Served(folder)
    first = served.loaded()
    assert served.loaded() is first
    network, header = load_network(folder / "models" / WEIGHTS)
    about = {key: header[key] for key in ("spatial_size", "normalisation")}
    save_weights(network, folder / "models", {**about, "note": "new"})
    second = served.loaded()
    assert second is not first and second.header["note"] == "new"


def test_weights_that_cannot_be_served_are_refused(served_folder: Path, tmp_path: Path) -> None:
    from propl_monai.model.weights import save_weights

    with pytest.raises(ProPLError, match=r"holds no models/model\.safetensors"):
        Served(tmp_path)
    network, _ = load_network(served_folder / "models" / WEIGHTS)
    save_weights(network, tmp_path / "models", {"normalisation": "half"})
    with pytest.raises(ProPLError, match="without a valid preprocessing"):
        Served(tmp_path)


def test_weights_with_one_decoder_are_served_but_not_taught(served_folder: Path, tmp_path: Path) -> None:
    from propl_monai.model.weights import save_safetensors

    network, header = load_network(served_folder / "models" / WEIGHTS)
    network.keep_decoder("pd")
    about = {key: header[key] for key in ("spatial_size", "normalisation")}
    save_safetensors(network, tmp_path / "models" / WEIGHTS, about)
    served = Served(tmp_path)
    assert served.loaded().predictor.decoder == "pd"
    train = pytest.importorskip("propl_monai.deploy.monai_label.lib.train")
    with pytest.raises(train.MONAILabelException) as caught:
        train.TaskTrain(served, served.tasks[0])({}, None)
    assert "model.safetensors: these weights hold decoder pd alone, not sd; use the full" in caught.value.msg


def test_uncertainty_is_repeatable_and_between_its_bounds(served_folder: Path, phantoms: Path) -> None:
    served = Served(served_folder)
    image = phantom_items(phantoms, "TN", 1)[0]["image"]
    torch.manual_seed(1)
    first = served.uncertainty(image, find("TN"))
    state = torch.get_rng_state()
    assert served.uncertainty(image, find("TN")) == first
    assert torch.equal(state, torch.get_rng_state())
    assert 0 < first <= 0.25
