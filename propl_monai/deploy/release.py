"""A bundle, its weights and this package as one zip that `python -m monai.bundle download` fetches and MONAI runs."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import propl_monai
from propl_monai.common.files import file_sha256, require_file, write_atomically
from propl_monai.common.marked_text import FIGURES, marked, replace_marked
from propl_monai.common.packaged_bundle import KNOWN
from propl_monai.deploy.sbom import sbom
from propl_monai.deploy.zoo_checks import check_files
from propl_monai.deploy.zoo_rehearsal import rehearse
from propl_monai.errors import ProPLError, first_line
from propl_monai.inference.engines.graph_file import SUFFIX, find_graph
from propl_monai.inference.known import read_known
from propl_monai.model.bundle_folder import write_checksum
from propl_monai.model.weights import WEIGHTS, load_network

NAME = "propl_us_segmentation"
HOME = (
    "https://huggingface.co/MONAI/{name}/resolve/{version}"  # where the zoo keeps its bundles, one git tag per version
)
CATALOGUE = "model_info.json"
NOT_ON_CARD = ("architecture", "halved", "training")  # entries of a header that hold many more
TIME = (1980, 1, 1, 0, 0, 0)  # of every file in the zip: the earliest of the format
PERMISSIONS = stat.S_IFREG | 0o644


class Release(NamedTuple):
    """The zip's path, its sha256, and the paths of `model_info.json` and the parts list beside it."""

    path: Path
    sha256: str
    catalogue: Path
    parts: Path


def release(
    bundle: Path | str,
    weights: Path | str,
    output_dir: Path | str,
    name: str = NAME,
    url: str | None = None,
    results: Path | str | None = None,
    published: Path | str | None = None,
) -> Release:
    """Build `<name>_v<version>.zip`, reproducible byte for byte, and check it before it is written.

    The zip holds one folder `<name>` with the configs, fitted to the weights; the documents, with the facts of the
    weights in the model card; the weights, once; `large_files.yml` with their hash; the licences; and this package, so
    that everything else can be installed from PyPI.

    Args:
        bundle: the folder with configs, docs and LICENSE.
        weights: the model.safetensors of a training.
        output_dir: where the zip, `model_info.json` and the parts list (SBOM) go.
        name: of the bundle, such as organ_us_segmentation.
        url: the address below which the files will be found; None for the zoo's own on Hugging Face.
        results: a table in Markdown for the model card, such as the table.md of an evaluation.
        published: the zoo's `model_info.json`, to check that the version is new.
    """
    bundle, output_dir = Path(bundle), Path(output_dir)
    version = _read(bundle / "configs" / "metadata.json").get("version")
    if not isinstance(version, str):
        raise ProPLError(bundle / "configs" / "metadata.json", "has no version", "add one, such as 0.1.0")
    address = (url or HOME.format(name=name, version=version)).rstrip("/")
    path, catalogue = output_dir / f"{name}_v{version}.zip", output_dir / CATALOGUE
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / name
        assemble(bundle, Path(weights), folder, address, Path(results) if results else None)
        content = pack(folder)  # before the checks, which run it
        entries = _catalogue(catalogue, path, content, f"{address}/{path.name}")
        findings = check_files(folder, published) or rehearse(folder)
    if findings:
        fact = f"fails {len(findings)} checks: " + "; ".join(f"[{one.code}] {one.where} {one.fact}" for one in findings)
        raise ProPLError(bundle, fact, "fix them, and build again")
    write_atomically(path, content)
    _write_json(catalogue, entries)
    parts = path.with_suffix(".cdx.json")  # not in the zip, whose bytes do not depend on what is installed
    write_atomically(parts, sbom())
    return Release(path, hashlib.sha256(content).hexdigest(), catalogue, parts)


def assemble(
    bundle: Path,
    weights: Path,
    folder: Path,
    address: str,
    results: Path | None = None,
    preset: str | None = None,
) -> None:
    """Write the folder that is packed; see `release` and, for `preset`, `fit_configs`."""
    network, header = load_network(weights)
    network.require_decoder("mean", str(weights))  # the bundle's training needs both decoders
    for path in [bundle / "LICENSE", *(bundle / "configs").glob("*"), *(bundle / "docs").glob("*")]:
        if path.is_file():
            _copy(path, folder / path.relative_to(bundle))
    package = Path(propl_monai.__file__).parent
    for path in package.rglob("*"):
        parts = path.relative_to(package).parts
        skipped = parts[0] == "bundle" or any(part == "__pycache__" or part.startswith(".") for part in parts)
        if path.is_file() and not skipped:  # a wheel has the bundle inside, weights included
            _copy(path, folder.joinpath(package.name, *parts))
    _copy(weights, folder / "models" / WEIGHTS)
    if read_known(weights, file_sha256(weights)):
        _copy(weights.with_name(KNOWN), folder / "models" / KNOWN)
    fit_configs(folder / "configs", header, preset)
    entry = {"path": f"models/{WEIGHTS}", "url": f"{address}/models/{WEIGHTS}"}
    entry |= {"hash_val": file_sha256(folder / "models" / WEIGHTS), "hash_type": "sha256"}
    write_checksum(folder / "models" / WEIGHTS, entry["hash_val"])
    if graph := find_graph(weights, entry["hash_val"]):
        write_atomically(folder / "models" / (Path(WEIGHTS).stem + SUFFIX), graph.content)
    lines = "\n    ".join(f'{key}: "{value}"' for key, value in entry.items())
    write_atomically(folder / "large_files.yml", f"large_files:\n  - {lines}\n".encode())
    card = folder / "docs" / "README.md"
    require_file(card)
    text = card.read_text(encoding="utf-8")
    if entry["hash_val"] not in (marked(text, FIGURES) or entry["hash_val"]):
        text = replace_marked(text, FIGURES, "", card)  # measured with other weights
    text += _weights_card(folder.name, header, entry["hash_val"], results)
    write_atomically(card, text.encode())


def fit_configs(configs: Path, header: Mapping[str, Any], preset: str | None = None) -> None:
    """Write the preset of the weights into train.json and inference.json, and their size into metadata.json.

    MONAI Label, the zoo's checks and `monai.bundle.load` read these three files and no preset.

    Args:
        configs: folder, changed in place.
        header: of the weights.
        preset: the config with the settings of training; None for the one in the header, if the folder has it.
    """
    file = configs / f"{preset or header.get('preset')}.json"
    settings = _read(file) if preset or file.is_file() else {}
    if (name := header["architecture"]["network"]) != "propl":  # its config bears its name, and stands below the preset
        settings = _read(configs / f"{name}.json") | settings
    values = {key: value for key, value in settings.items() if not key.endswith("_dir")}  # folders are of one training
    network = header["architecture"]
    of_network = ("encoder", "prompt_mode", "prompt_padding", "decoder_block")
    values |= {key: network[key] for key in of_network if key in network}
    values |= {key: header[key] for key in ("spatial_size", "normalisation", "preset") if key in header}
    referred = json.dumps(values)
    for name, wanted in (("train.json", set(values)), ("inference.json", set(values) - {"network_def"})):
        config = _read(configs / name)  # for inference the weights describe the network
        own = {key for key in wanted if name == "train.json" and f'"@{key}"' in referred}  # options of the method alone
        config |= {key: value for key, value in values.items() if key in (wanted & config.keys()) | own}
        _write_json(configs / name, config)
    metadata = _read(configs / "metadata.json")
    shapes = metadata.get("network_data_format", {})
    for side, tensor in (("inputs", "image"), ("outputs", "pred")):
        if "spatial_size" in header and tensor in shapes.get(side, {}):
            shapes[side][tensor]["spatial_shape"] = header["spatial_size"]
    if header.get("validation_mdice") is not None:
        metadata["eval_metrics"] = {"validation_mean_dice": round(header["validation_mdice"], 4)}
    _write_json(configs / "metadata.json", metadata)


def pack(folder: Path) -> bytes:
    """A folder as the only top folder of a zip whose bytes depend on names and content alone.

    Nothing is compressed: weights hardly shrink, and the bytes would depend on the version of zlib.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
            if path.is_file():
                entry = zipfile.ZipInfo(f"{folder.name}/{path.relative_to(folder).as_posix()}", TIME)
                entry.create_system = 3  # Unix, wherever it is built
                entry.external_attr = PERMISSIONS << 16
                archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def _read(path: Path) -> dict[str, Any]:
    require_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ProPLError(path, f"is not valid JSON ({first_line(error)})", "fix it") from error
    if not isinstance(content, dict):
        raise ProPLError(path, "holds no JSON object", "fix it")
    return content


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Indented as the zoo's formatter does it."""
    write_atomically(path, (json.dumps(content, indent=4) + "\n").encode())


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _catalogue(file: Path, path: Path, content: bytes, source: str) -> dict[str, Any]:
    """The entries of a `model_info.json` with that of this release; MONAI expects a SHA-1."""
    entries = _read(file) if file.is_file() else {}
    checksum = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    if entries.get(path.stem, {}).get("checksum", checksum) != checksum:
        cure = "raise the version in propl_monai/__init__.py and configs/metadata.json, or delete the entry"
        raise ProPLError(file, f"lists {path.stem} with other content", cure)
    entries[path.stem] = {"checksum": checksum, "source": source}
    return dict(sorted(entries.items()))


def _weights_card(name: str, header: Mapping[str, Any], sha256: str, results: Path | None) -> str:
    """The part of the model card about these weights, in Markdown."""
    facts = {**header["architecture"], **{key: value for key, value in header.items() if key not in NOT_ON_CARD}}
    rows = [f"| {key} | {value if isinstance(value, str) else json.dumps(value)} |" for key, value in facts.items()]
    rows += [f"| sha256 of models/{WEIGHTS} | {sha256} |", "| licence of the weights | docs/weights_license.txt |"]
    commands = (
        f"cd {name}\n"
        "python -m monai.bundle download_large_files --bundle_path .  # checks the hashes\n"
        "python -m monai.bundle run inference --bundle_root . --config_file configs/inference.json "
        "--dataset_dir IMAGES --output_dir MASKS --tasks \"['thyroid nodule']\"\n"
        "python -m monai.bundle run training --bundle_root . --config_file configs/train.json "
        "--dataset_dir ROOT --output_dir RUN\n"
    )
    parts = [
        "## This release",
        "The package propl_monai is in this folder; start every command here, so that Python finds it. The main "
        "configs fit these weights; no preset is needed.",
        f"```\n{commands}```",
        "\n".join(["| fact | value |", "| --- | --- |", *rows]),
    ]
    if results:
        require_file(results)
        parts += ["## Results", results.read_text(encoding="utf-8").strip()]
    return "\n" + "\n\n".join(parts) + "\n"
