"""The checks of the MONAI model zoo that read a bundle folder, run here first and offline.

Source: `ci/verify_bundle.py` of the zoo (October 2024). `zoo_rehearsal` runs the bundle.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from propl_monai.common.files import file_sha256
from propl_monai.common.findings import Finding
from propl_monai.errors import ProPLError
from propl_monai.model.weights import WEIGHTS

SCHEMA = "meta_schema_20240725.json"
METADATA = "configs/metadata.json"
REQUIRED = ("LICENSE", METADATA, "configs/inference.json", "docs/README.md", f"models/{WEIGHTS}", "large_files.yml")
# MONAI Label takes the kind of a model from such words, and MONAI cuts names at "_v" and a digit.
NAME = re.compile(r"(?!.*(deepedit|deepgrow|detection|classification|_v\d))[a-z][a-z0-9_]*_segmentation")


def check_files(folder: Path | str, published: Path | str | None = None) -> list[Finding]:
    """Check required files, name, version, metadata and hashes of a bundle folder.

    Args:
        folder: of the bundle, with its weights; its name is the bundle's.
        published: the zoo's `model_info.json`, to check that the version is new.
    """
    folder = Path(folder)
    if found := list(_files(folder)):
        return found  # the other checks read these files
    metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    return [*_name_and_version(folder, metadata, published), *_schema(metadata), *_large_files(folder)]


def _files(folder: Path) -> Iterator[Finding]:
    for name in REQUIRED:
        if not (folder / name).is_file():
            yield Finding("files", name, "does not exist", "add it")
    for path in sorted((folder / "configs").glob("*.json")):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            yield Finding("files", f"configs/{path.name}", f"is not valid JSON ({error})", "fix it")


def _name_and_version(folder: Path, metadata: dict[str, Any], published: Path | str | None) -> Iterator[Finding]:
    if not NAME.fullmatch(folder.name):
        cure = "choose one of the form organ_us_segmentation, in lower case, without version"
        yield Finding("name", folder.name, "is no name for a bundle", cure)
    version = metadata.get("version")
    if version not in metadata.get("changelog", {}):
        yield Finding("version", METADATA, f"has no entry for version {version} in its 'changelog'", "add it")
    code = folder / "propl_monai" / "__init__.py"
    if code.is_file() and f'__version__ = "{version}"' not in code.read_text(encoding="utf-8"):
        yield Finding("version", METADATA, f"has version {version}, propl_monai/__init__.py another", "make them equal")
    if published and f"{folder.name}_v{version}" in json.loads(Path(published).read_text(encoding="utf-8")):
        yield Finding("version", str(published), f"lists version {version} as published", "raise the version")


def _schema(metadata: dict[str, Any]) -> Iterator[Finding]:
    try:
        from jsonschema.validators import validator_for
    except ModuleNotFoundError as error:
        raise ProPLError("jsonschema", "is not installed", "pip install 'propl-monai[release]'") from error
    schema = json.loads(resources.files("propl_monai.deploy").joinpath(SCHEMA).read_text(encoding="utf-8"))
    for fault in validator_for(schema)(schema).iter_errors(metadata):
        yield Finding("metadata", METADATA, f"breaks {SCHEMA}: {fault.message[:200]}", "fix it")


def _large_files(folder: Path) -> Iterator[Finding]:
    for entry in ConfigParser.load_config_file(str(folder / "large_files.yml")).get("large_files") or []:
        name = str(entry.get("path"))
        path = (folder / name).resolve()
        if folder.resolve() not in path.parents:
            yield Finding("large files", name, "lies outside of the bundle", "correct large_files.yml")
        elif path.is_file() and file_sha256(path) != entry.get("hash_val"):
            yield Finding("large files", name, "has another sha256 than large_files.yml says", "build the bundle again")
        if not str(entry.get("url", "")).startswith(("https://", "http://127.0.0.1")):
            yield Finding("large files", name, "has no https address in large_files.yml", "give one with --url")
