"""The release: the same bytes twice, every check of the zoo, and a download that runs without this package."""

from __future__ import annotations

import configparser
import functools
import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import ROOT, TINY_ENCODER
from monai.bundle import download_large_files

import propl_monai
from propl_monai.common.marked_text import FIGURES, marked, replace_marked
from propl_monai.datasets.phantoms.write_phantoms import write_phantoms
from propl_monai.deploy.release import Release, assemble, fit_configs, pack, release
from propl_monai.deploy.zoo_checks import check_files
from propl_monai.deploy.zoo_rehearsal import rehearse
from propl_monai.errors import ProPLError
from propl_monai.model.network import ProPL
from propl_monai.model.weights import load_network, save_safetensors, save_weights

BUNDLE = ROOT / "bundle"
SHIPPED = BUNDLE / "models" / "model.safetensors"
NAME = "propl_us_segmentation"
ADDRESS = "https://example.org/propl"
ABOUT = {"preset": "compact", "spatial_size": [32, 32], "normalisation": "half", "validation_mdice": 0.5, "epoch": 3}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    save_weights(ProPL(TINY_ENCODER), folder, ABOUT)
    return folder / "model.safetensors"


def test_weights_with_one_decoder_are_not_released(weights: Path, tmp_path: Path) -> None:
    slim = tmp_path / "slim.safetensors"
    network, header = load_network(weights)
    network.keep_decoder("pd")
    save_safetensors(network, slim, {key: header[key] for key in ABOUT})
    with pytest.raises(
        ProPLError, match=r"slim.safetensors: these weights hold decoder pd alone, not sd; use the full"
    ):
        assemble(BUNDLE, slim, tmp_path / NAME, ADDRESS)
    assert not (tmp_path / NAME).exists()


@pytest.fixture(scope="module")
def built(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return release(BUNDLE, weights, tmp_path_factory.mktemp("built"), url=ADDRESS)


@pytest.fixture(scope="module")
def assembled(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that is packed. Read it, do not change it."""
    folder = tmp_path_factory.mktemp("assembled") / NAME
    assemble(BUNDLE, weights, folder, ADDRESS)
    return folder


@pytest.fixture
def folder(assembled: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(assembled, tmp_path / NAME))


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(read(path) | values, indent=4) + "\n", encoding="utf-8")


def test_the_zip_holds_one_folder_with_all_that_is_needed(built: Release) -> None:
    assert built.path.name == f"{NAME}_v{propl_monai.__version__}.zip"
    assert built.sha256 == hashlib.sha256(built.path.read_bytes()).hexdigest()
    with zipfile.ZipFile(built.path) as archive:
        entries = archive.infolist()
    names = [entry.filename for entry in entries]
    assert {name.split("/")[0] for name in names} == {NAME}
    inside = {name.removeprefix(f"{NAME}/") for name in names}
    assert {"LICENSE", "large_files.yml", "configs/metadata.json", "configs/logging.conf", "docs/README.md"} <= inside
    assert {"docs/data_license.txt", "docs/weights_license.txt"} <= inside
    assert [n for n in inside if n.endswith((".safetensors", ".pt")) and "prompt_bank" not in n] == [
        "models/model.safetensors"
    ]
    assert {n for n in inside if n.startswith("models/")} == {"models/model.safetensors", "models/model.sha256"}
    assert {"propl_monai/__init__.py", "propl_monai/model/prompt_bank_compact.safetensors"} <= inside
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc") or "/runs/" in name]
    assert names == sorted(names)
    assert {(entry.date_time, entry.external_attr >> 16) for entry in entries} == {((1980, 1, 1, 0, 0, 0), 0o100644)}


def test_the_bundle_inside_an_installed_package_is_not_packed(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "propl_monai"
    for path in ("__init__.py", "bundle/models/model.safetensors", "model/network.py"):
        (package / path).parent.mkdir(parents=True, exist_ok=True)
        (package / path).write_text("")
    monkeypatch.setattr(propl_monai, "__file__", str(package / "__init__.py"))
    assemble(BUNDLE, weights, tmp_path / NAME, ADDRESS)
    assert sorted(path.name for path in (tmp_path / NAME / "propl_monai").iterdir()) == ["__init__.py", "model"]


def test_two_builds_are_the_same_bytes(built: Release, weights: Path, tmp_path: Path) -> None:
    """Whatever the times and permissions of the files, and the order in which they were made."""
    copied = tmp_path / "copy"
    for path in sorted((p for p in BUNDLE.rglob("*") if p.is_file() and "models" not in p.parts), reverse=True):
        if "runs" not in path.relative_to(BUNDLE).parts:
            target = copied / path.relative_to(BUNDLE)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
            target.chmod(0o600)
            os.utime(target, (1_000_000_000, 1_000_000_000))
    assemble(copied, weights, tmp_path / NAME, ADDRESS)
    assert hashlib.sha256(pack(tmp_path / NAME)).hexdigest() == built.sha256


def test_the_catalogue_has_the_checksum_and_the_address(built: Release) -> None:
    sha1 = hashlib.sha1(built.path.read_bytes()).hexdigest()
    entry = {"checksum": sha1, "source": f"{ADDRESS}/{built.path.name}"}
    assert read(built.catalogue) == {built.path.stem: entry}


def test_a_version_is_built_once(built: Release, weights: Path, tmp_path: Path) -> None:
    shutil.copy(built.catalogue, tmp_path)
    table = tmp_path / "table.md"
    table.write_text("| task |\n| --- |\n")
    with pytest.raises(
        ProPLError, match=r"model_info\.json: lists propl_us_segmentation_v.* with other content; raise"
    ):
        release(BUNDLE, weights, tmp_path, url=ADDRESS, results=table)
    assert not (tmp_path / built.path.name).exists()


def test_the_main_configs_are_those_of_the_weights(assembled: Path) -> None:
    train, inference, metadata = (read(assembled / "configs" / f"{n}.json") for n in ("train", "inference", "metadata"))
    compact = read(BUNDLE / "configs" / "compact.json")
    assert train["optimizer"] == compact["optimizer"] and train["flip"] == compact["flip"]
    for config in (train, inference):
        assert config["encoder"] == TINY_ENCODER  # what the weights say goes before their preset
        assert config["spatial_size"] == [32, 32]
        assert config["normalisation"] == "half"
    assert "optimizer" not in inference
    assert metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] == [32, 32]
    assert metadata["network_data_format"]["outputs"]["pred"]["spatial_shape"] == [32, 32]
    assert metadata["eval_metrics"] == {"validation_mean_dice": 0.5}


def test_the_card_tells_what_the_weights_are(weights: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    table.write_text("| task | n |\n| --- | ---: |\n| fetal head | 63 |\n")
    assemble(BUNDLE, weights, tmp_path / NAME, ADDRESS, table)
    card = (tmp_path / NAME / "docs" / "README.md").read_text(encoding="utf-8")
    own = (BUNDLE / "docs" / "README.md").read_text(encoding="utf-8")
    assert card.startswith(replace_marked(own, FIGURES, "", "card"))  # its figures are of the shipped weights
    assert f"| sha256 of models/model.safetensors | {hashlib.sha256(weights.read_bytes()).hexdigest()} |" in card
    assert "| licence of the weights | docs/weights_license.txt |" in card
    assert "| preset | compact |" in card and "| epoch | 3 |" in card
    assert card.endswith("## Results\n\n| task | n |\n| --- | ---: |\n| fetal head | 63 |\n")


def test_figures_of_these_weights_stay_and_those_of_others_go(weights: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(BUNDLE, tmp_path / "bundle", ignore=shutil.ignore_patterns("models", "runs")))
    own = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    for name, sha256 in (("same", hashlib.sha256(weights.read_bytes()).hexdigest()), ("other", "0" * 64)):
        (bundle / "docs" / "README.md").write_text(replace_marked(own, FIGURES, f"| sha256 | {sha256} |", "card"))
        assemble(bundle, weights, tmp_path / name / NAME, ADDRESS)
        card = (tmp_path / name / NAME / "docs" / "README.md").read_text(encoding="utf-8")
        assert marked(card, FIGURES) == (f"| sha256 | {sha256} |" if name == "same" else "")


def test_the_line_in_the_docs_makes_a_flat_state_dict(assembled: Path, tmp_path: Path) -> None:
    """For MONAI's tools; the line is run as it stands there."""
    found = re.search(
        r'`python -c "(from propl_monai.+?)"`', (ROOT / "docs" / "release.md").read_text(encoding="utf-8")
    )
    assert found
    (tmp_path / "models").mkdir()
    shutil.copy(assembled / "models" / "model.safetensors", tmp_path / "models")
    command, environment = [sys.executable, "-c", found[1]], os.environ | {"PYTHONPATH": str(assembled)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    network, _ = load_network(assembled / "models" / "model.safetensors")
    flat = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert flat.keys() == network.state_dict().keys()
    assert all(torch.equal(value, flat[name]) for name, value in network.state_dict().items())


def test_hashes_of_the_weights_are_checked_after_a_download(folder: Path) -> None:
    download_large_files(bundle_path=str(folder))
    with (folder / "models" / "model.safetensors").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(Exception, match="hash check of existing file failed"):
        download_large_files(bundle_path=str(folder))


def test_a_sound_folder_has_no_findings(assembled: Path) -> None:
    assert check_files(assembled) == []
    assert "TorchScript" in (assembled / "docs" / "README.md").read_text(), "the zoo cannot script it; the card says so"
    for path in (assembled / "configs").glob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert text == json.dumps(json.loads(text), indent=4) + "\n", f"{path.name}: the zoo's formatter indents by 4"


def test_the_metadata_lists_all_required_packages_in_exact_versions() -> None:
    """Whoever downloads the bundle installs these."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = [line for line in setup["options"]["install_requires"].splitlines() if line and not line.startswith("#")]
    required = {re.split(r"[<>=]", line)[0] for line in lines}
    metadata = read(BUNDLE / "configs" / "metadata.json")
    named = {name: metadata[f"{key}_version"] for name, key in (("monai", "monai"), ("torch", "pytorch"))}
    named |= metadata["required_packages_version"]
    # `propl` alone needs typer, rich and ONNX Runtime, and `propl prompts` transformers
    assert required - {"typer", "rich", "onnxruntime", "transformers"} == named.keys() & required
    assert all(re.fullmatch(r"\d+(\.\d+)*((a|b|rc|\.post)\d+)?", version) for version in named.values())
    assert not any(name.startswith("propl") for name in named), "the package itself is in the zip, not on PyPI"


def test_folders_of_a_preset_are_those_of_one_training(weights: Path, tmp_path: Path) -> None:
    assemble(BUNDLE, weights, tmp_path / NAME, ADDRESS, preset="quickstart")
    train, before = read(tmp_path / NAME / "configs" / "train.json"), read(BUNDLE / "configs" / "train.json")
    assert train["epochs"] == read(BUNDLE / "configs" / "quickstart.json")["epochs"]
    assert [train[key] for key in ("dataset_dir", "output_dir", "model_dir")] == [
        before[key] for key in ("dataset_dir", "output_dir", "model_dir")
    ]


def rename(folder: Path) -> Path:
    return folder.rename(folder.with_name("Ultrasound_v1"))


def no_licence(folder: Path) -> None:
    (folder / "LICENSE").unlink()


def broken_config(folder: Path) -> None:
    (folder / "configs" / "compact.json").write_text("{")


def other_version(folder: Path) -> None:
    change(folder / "configs" / "metadata.json", version="9.0.0")


def no_task(folder: Path) -> None:
    content = read(folder / "configs" / "metadata.json")
    del content["task"]
    (folder / "configs" / "metadata.json").write_text(json.dumps(content, indent=4) + "\n")


def changed_weights(folder: Path) -> None:
    with (folder / "models" / "model.safetensors").open("ab") as stream:
        stream.write(b"x")


def way_out(folder: Path) -> None:
    path = folder / "large_files.yml"
    path.write_text(path.read_text().replace('path: "models/', 'path: "../models/').replace("https:", "ftp:"))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (rename, {"name": "Ultrasound_v1: is no name for a bundle; choose one of the form"}),
        (no_licence, {"files": "LICENSE: does not exist"}),
        (broken_config, {"files": "configs/compact.json: is not valid JSON"}),
        (other_version, {"version": "9.0.0, propl_monai/__init__.py another"}),
        (no_task, {"metadata": "'task' is a required property"}),
        (changed_weights, {"large files": "models/model.safetensors: has another sha256"}),
        (way_out, {"large files": "../models/model.safetensors: lies outside of the bundle"}),
        (way_out, {"large files": "has no https address"}),
    ],
)
def test_every_fault_is_found(folder: Path, spoil: Callable[[Path], Path | None], said: dict[str, str]) -> None:
    findings = check_files(spoil(folder) or folder)
    for check, words in said.items():
        assert any(one.code == check and words in str(one) for one in findings), findings


def test_a_published_version_is_found(assembled: Path, built: Release) -> None:
    assert [one.code for one in check_files(assembled, built.catalogue)] == ["version"]


def test_the_rehearsal_finds_what_does_not_fit(folder: Path, tmp_path: Path) -> None:
    metadata = read(folder / "configs" / "metadata.json")
    metadata["network_data_format"]["outputs"]["pred"]["num_channels"] = 2
    change(folder / "configs" / "metadata.json", **metadata)
    other = ProPL(TINY_ENCODER, prompt_mode="onehot")
    save_weights(other, folder / "models", ABOUT)
    found = {one.code: one.fact for one in rehearse(folder)}
    assert "output channel number" in found["network"]
    assert "prompt_mode" in found["weights"]


def test_a_release_with_findings_is_not_written(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match=r"fails 1 checks: \[name\] Ultrasound is no name"):
        release(BUNDLE, weights, tmp_path / "out", name="Ultrasound", url=ADDRESS)
    assert not (tmp_path / "out").exists()


# --- as a stranger meets it


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every installed package but this one. It is used with `python -S`, where no .pth file is obeyed."""
    folder = tmp_path_factory.mktemp("packages")
    for place in sys.path:
        if Path(place).name in ("site-packages", "dist-packages"):
            for entry in Path(place).iterdir():
                target = folder / entry.name
                if "propl" not in entry.name.lower() and entry.suffix != ".pth" and not target.exists():
                    target.symlink_to(entry)
    return folder


@pytest.fixture(scope="module")
def phantom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_phantoms(folder, cases_per_task=12, size=64)
    return folder


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server on this machine that gives the files of a folder."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("which", ["small", pytest.param("shipped", marks=pytest.mark.exhaustive)])
def test_a_download_runs_where_this_package_is_not_installed(
    which: str, request: pytest.FixtureRequest, packages: Path, phantom_folder: Path, tmp_path: Path
) -> None:
    if which == "shipped" and not SHIPPED.is_file():
        pytest.skip("the shipped weights are not in this checkout")
    weights = SHIPPED if which == "shipped" else request.getfixturevalue("weights")
    built = (
        release(BUNDLE, weights, tmp_path / "dist", url=ADDRESS)
        if which == "shipped"
        else request.getfixturevalue("built")
    )
    environment = os.environ | {"PYTHONPATH": str(packages), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def alone(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-S", *map(str, arguments)]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500, check=False
        )

    where = ("-c", "import propl_monai; print(propl_monai.__file__)")
    assert "No module named 'propl_monai'" in alone(tmp_path, *where).stderr
    with served(built.path.parent) as address:
        bundle = ("-m", "monai.bundle")
        url = f"{address}/{built.path.name}"
        done = alone(tmp_path, *bundle, "download", "--name", NAME, "--url", url, "--bundle_dir", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / NAME
    assert Path(alone(folder, *where).stdout.strip()) == folder / "propl_monai" / "__init__.py"

    run = (*bundle, "run")
    images = phantom_folder / "TN" / "PHANTOM" / "images"
    inference = ("--config_file", "configs/inference.json", "--dataset_dir", images, "--output_dir", tmp_path / "masks")
    done = alone(folder, *run, "inference", "--bundle_root", ".", *inference, "--tasks", "['thyroid nodule']")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    code = f"from propl_monai import Predictor; Predictor()('{next(images.iterdir())}', 'TN')"  # checks the hash
    assert (done := alone(folder, "-c", code)).returncode == 0, done.stderr[-3000:]
    masks = sorted(path.name for path in (tmp_path / "masks").glob("*.png"))
    assert masks == sorted(f"{path.stem}_thyroid_nodule.png" for path in images.iterdir())

    training = (
        "--config_file",
        "configs/train.json",
        "--dataset_dir",
        phantom_folder,
        "--output_dir",
        tmp_path / "run",
    )
    small = ("--epochs", "1", "--encoder_weights", "none", "--labelled_batch_size", "4", "--unlabelled_batch_size", "4")
    done = alone(folder, *run, "training", "--bundle_root", ".", *training, *small)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    record = read(tmp_path / "run" / "run.json")
    assert (record["status"], record["results"]["epochs"]) == ("finished", 1)
    assert record["versions"]["propl_monai"] == propl_monai.__version__
    assert read_spatial_size(tmp_path / "run" / "models" / "model.safetensors") == read_spatial_size(weights)
    assert (folder / "models" / "model.safetensors").read_bytes() == weights.read_bytes()  # untouched by the training
    assert list((folder / "propl_monai").rglob("__pycache__/trainer.*.pyc")), "the vendored code was not what ran"


def read_spatial_size(weights: Path) -> list[int]:
    return load_network(weights)[1]["spatial_size"]


def test_configs_of_another_network_build_it(tmp_path: Path) -> None:
    """Training names it by its own config, below the method's; for inference the weights describe it."""
    configs = tmp_path / "configs"
    shutil.copytree(BUNDLE / "configs", configs)
    of_network = {"network": "film", "encoder": TINY_ENCODER, "decoder_block": "light"}
    fit_configs(configs, {"architecture": of_network, "preset": "fixmatch", "spatial_size": [32, 32]})
    train, inference = (json.loads((configs / f"{name}.json").read_text()) for name in ("train", "inference"))
    assert train["network_def"]["_target_"] == "propl_monai.Film"
    assert train["method_def"]["_target_"] == "propl_monai.FixMatchMethod" and train["confidence"] == 0.95
    assert inference["network_def"]["_target_"].endswith(".described_network")
    assert train["encoder"] == inference["encoder"] == TINY_ENCODER and inference["decoder_block"] == "light"
