"""The start of every run of the bundle: readable errors, known keys only, folders that can be written."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from propl_monai.common.files import TEMPORARY_PREFIX
from propl_monai.errors import ProPLError, install_exit_messages, unknown

# Arguments of `python -m monai.bundle run` itself, and ids that MONAI or its tools look for in a config.
RUN_ARGUMENTS = frozenset(
    "run_id init_id final_id meta_file config_file logging_file tracking args_file workflow_type workflow_name".split()
)
STANDARD_IDS = frozenset(
    "imports initialize run training evaluating inference finalize bundle_root device dataset_dir network_def train "
    "validate evaluator handlers preprocessing postprocessing inferer dataset displayable_configs _meta_".split()
)
_REFERENCE = re.compile(r"[@%](\w+)")


def begin(output_dir: str, model_dir: str | None = None, seed: int | None = None) -> None:
    """Call this first in `initialize`.

    Args:
        output_dir, model_dir: folders that the run will write to; made here.
        seed: of torch's global generator, so that the network starts from the same weights every time.
    """
    install_exit_messages()
    check_keys(sys.argv)
    for folder in (output_dir, model_dir):
        if folder is not None:
            require_writable(Path(folder))
    if seed is not None:
        torch.manual_seed(seed)


def exit_with(code: int) -> None:
    """End the process with an exit code, unless it is 0."""
    if code:
        sys.exit(code)


def require_writable(folder: Path) -> None:
    """Create a folder and try to write there, before hours of work could be lost."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=TEMPORARY_PREFIX):
            pass
    except OSError as error:
        raise ProPLError(folder, f"cannot be written ({error.strerror})", "choose another folder or free it") from error


def check_keys(argv: Sequence[str]) -> None:
    """Refuse a key of the command line, or of a config file, that no part of the configs uses.

    MONAI accepts any `--key value` and ignores a key that nothing refers to, so a misspelt option would train with the
    default. Other command lines than those of `python -m monai.bundle run` pass.
    """
    if not argv or Path(argv[0]).parent.name != "bundle" or "run" not in argv[1:2]:
        return
    given = _options(argv[2:])
    if "config_file" not in given:
        return
    files = [part.strip(" '\"") for part in given["config_file"].strip("[]() ").split(",") if part.strip(" '\"")]
    parsed = ConfigParser.load_config_files(files)
    keys = [key for key in given if key not in RUN_ARGUMENTS]
    used = STANDARD_IDS | set(_REFERENCE.findall(json.dumps([parsed, list(given.values())])))
    # A preset serves training and inference, and sets for one what the other does not use.
    bases = [Path(files[0]).with_name(f"{name}.json") for name in ("train", "inference")]
    elsewhere = {key for base in bases if base.is_file() for key in ConfigParser.load_config_file(str(base))}
    for key in [*parsed, *keys]:
        top, *path = re.split("#|::", key)
        if top in elsewhere and key not in keys:
            continue
        where = "--" + key if key in keys else given["config_file"]
        if top not in used:
            raise unknown(where, "config key", top, sorted(set(parsed) & used))
        _check_path(key, path, parsed.get(top), where)


def _check_path(key: str, path: list[str], node: Any, where: str) -> None:
    """Every step of a nested key must exist, except the last one inside a component, which may be a new argument."""
    for number, step in enumerate(path):
        if isinstance(node, list) and step.isdigit() and int(step) < len(node):
            node = node[int(step)]
        elif isinstance(node, dict) and step in node:
            node = node[step]
        elif isinstance(node, dict) and "_target_" in node and number == len(path) - 1:
            return
        else:
            names = list(node) if isinstance(node, dict) else []
            raise unknown(where, f"config key (no such id: {key}), part", step, names or ["none here"])


def _options(arguments: Sequence[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for index, argument in enumerate(arguments):
        if re.match(r"--?[A-Za-z+]", argument):
            name, equals, value = argument.lstrip("-").partition("=")
            name = name.lstrip("+").replace("-", "_")  # as MONAI and its command line reader do
            options[name] = value if equals else " ".join(arguments[index + 1 : index + 2])
    return options
