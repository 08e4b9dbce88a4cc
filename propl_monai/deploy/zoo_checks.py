"""What the MONAI model zoo's checks before a merge would say of a bundle folder, found here first, and offline.

Source: `ci/verify_bundle.py` and the pre-commit settings of the zoo (October 2024). Not run here: the zoo's own formatters,
its TorchScript export by scripting (our task is text, so the card must say that export traces), and its GPU runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from monai.bundle import ConfigParser

from propl_monai.common.files import file_sha256
from propl_monai.deploy.imported_packages import unnamed_packages
from propl_monai.errors import ProPLError
from propl_monai.model.weights import FLAT_WEIGHTS

SCHEMA = "meta_schema_20240725.json"
LARGEST_FILE = 1024 * 1024  # bytes, of files that `large_files.yml` does not list
TEXT_SUFFIXES = (".json", ".md", ".txt", ".conf", ".yml", ".py")
# MONAI Label takes the kind of a model from such words, and MONAI cuts names at "_v" and a digit.
NAME = re.compile(r"(?!.*(deepedit|deepgrow|detection|classification|_v\d))[a-z][a-z0-9_]*_segmentation")
EXACT_VERSION = re.compile(r"\d+(\.\d+)*((a|b|rc|\.post)\d+)?")


class Finding(NamedTuple):
    """One thing that a check would refuse.

    Attributes:
        check: the check, in a word.
        message: what is wrong, with the file.
    """

    check: str
    message: str


def premerge(folder: Path | str, published: Path | str | None = None) -> list[Finding]:
    """Run every check on a bundle folder that can be run without the bundle's code; `rehearsal` runs the rest.

    Args:
        folder: of the bundle, with its weights; its name is the bundle's.
        published: the zoo's `model_info.json`, to see that the version is new.
    """
    folder = Path(folder)
    found = list(_files(folder))
    if found:
        return found  # the other checks read these files
    metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    found += _name_and_version(folder, metadata, Path(published) if published else None)
    found += _schema(metadata)
    found += _packages(folder, metadata)
    found += _large_files(folder)
    found += _texts(folder)
    return found


def _files(folder: Path) -> Iterator[Finding]:
    needed = ["LICENSE", "configs/metadata.json", "configs/inference.json", "configs/train.json", "docs/README.md"]
    for name in [*needed, f"models/{FLAT_WEIGHTS}", "large_files.yml"]:
        if not (folder / name).is_file():
            yield Finding("files", f"{name} does not exist")
    for path in sorted((folder / "configs").glob("*.json")):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            yield Finding("files", f"configs/{path.name} is no JSON ({error})")


def _name_and_version(folder: Path, metadata: dict[str, Any], published: Path | None) -> Iterator[Finding]:
    if not NAME.fullmatch(folder.name):
        yield Finding(
            "name", f"'{folder.name}' is not of the form organ_us_segmentation, in lower case, without version"
        )
    version = metadata.get("version")
    if not version:
        yield Finding("version", "'version' is missing in configs/metadata.json")
        return
    if version not in metadata.get("changelog", {}):
        yield Finding("version", f"version {version} is missing in 'changelog' of configs/metadata.json")
    code = folder / "propl_monai" / "__init__.py"
    if code.is_file() and f'__version__ = "{version}"' not in code.read_text(encoding="utf-8"):
        yield Finding("version", f"version {version} of configs/metadata.json is not that of propl_monai/__init__.py")
    if published and f"{folder.name}_v{version}" in json.loads(published.read_text(encoding="utf-8")):
        yield Finding("version", f"version {version} is already published, as {published} says")


def _schema(metadata: dict[str, Any]) -> Iterator[Finding]:
    try:
        from jsonschema.validators import validator_for
    except ModuleNotFoundError as error:
        raise ProPLError("jsonschema", "is not installed", "pip install 'propl-monai[release]'") from error
    schema = json.loads(resources.files("propl_monai.deploy").joinpath(SCHEMA).read_text(encoding="utf-8"))
    if not str(metadata.get("schema", "")).endswith(SCHEMA):
        yield Finding("metadata", f"'schema' of configs/metadata.json does not name {SCHEMA}")
    for fault in validator_for(schema)(schema).iter_errors(metadata):
        yield Finding("metadata", f"configs/metadata.json: {fault.message[:200]}")


def _packages(folder: Path, metadata: dict[str, Any]) -> Iterator[Finding]:
    """Only exact versions of PyPI packages can be installed; and all that the bundle's code imports must be there."""
    named = {
        "monai": str(metadata.get("monai_version")),
        "torch": str(metadata.get("pytorch_version")),
        "numpy": str(metadata.get("numpy_version")),
        **metadata.get("required_packages_version", {}),
    }
    for name, version in named.items():
        if not EXACT_VERSION.fullmatch(version):
            yield Finding("packages", f"'{name}' has no exact version: '{version}'")
        if name.replace("_", "-").startswith("propl"):
            yield Finding("packages", f"'{name}' is vendored, and not on PyPI")
    for package, module in unnamed_packages(folder, named):
        yield Finding("packages", f"{module} imports '{package}', which required_packages_version does not name")


def large_files(folder: Path) -> list[dict[str, str]]:
    """The entries of a bundle's `large_files.yml`."""
    return ConfigParser.load_config_file(str(folder / "large_files.yml")).get("large_files") or []


def _large_files(folder: Path) -> Iterator[Finding]:
    listed = set()
    for entry in large_files(folder):
        path = (folder / entry.get("path", "")).resolve()
        listed.add(path)
        if folder.resolve() not in path.parents:
            yield Finding("large files", f"{entry.get('path')} lies outside of the bundle")
        elif entry.get("hash_type") != "sha256" or not entry.get("hash_val"):
            yield Finding("large files", f"{entry['path']} has no sha256 in large_files.yml")
        elif path.is_file() and file_sha256(path) != entry["hash_val"]:
            yield Finding("large files", f"{entry['path']} has another sha256 than large_files.yml says")
        if not str(entry.get("url", "")).startswith(("https://", "http://127.0.0.1")):
            yield Finding("large files", f"{entry.get('path')} has no https address in large_files.yml")
    for path in _all_files(folder):
        if path.stat().st_size > LARGEST_FILE and path.resolve() not in listed:
            yield Finding("large files", f"{_told(folder, path)} is too large for git; list it in large_files.yml")


def _texts(folder: Path) -> Iterator[Finding]:
    for path in _all_files(folder):
        if path.suffix not in TEXT_SUFFIXES:
            continue
        text = path.read_text(encoding="utf-8")
        if text and (not text.endswith("\n") or text.endswith("\n\n")):
            yield Finding("text", f"{_told(folder, path)} does not end in one line end")
        if any(line != line.rstrip() for line in text.split("\n")):
            yield Finding("text", f"{_told(folder, path)} has spaces at the end of a line")
        if path.parent == folder / "configs" and path.suffix == ".json" and text != as_json(json.loads(text)):
            yield Finding("text", f"{_told(folder, path)} is not indented by 4, as the zoo's formatter would write it")
    if "TorchScript" not in (folder / "docs" / "README.md").read_text(encoding="utf-8"):
        yield Finding("card", "docs/README.md does not say how TorchScript is exported, as scripting cannot")


def as_json(content: Any) -> str:
    """JSON as the zoo's formatter writes it."""
    return json.dumps(content, indent=4) + "\n"


def _all_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _told(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()
