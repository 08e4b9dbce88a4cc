"""The start of every run of the bundle: readable errors, known keys only, folders that can be written."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigExpression, ConfigParser

from propl_monai.common.config_values import check_path
from propl_monai.common.files import TEMPORARY_PREFIX, hold_folder
from propl_monai.common.ranks import is_writer
from propl_monai.errors import ProPLError, install_exit_messages, unknown

# Arguments of `python -m monai.bundle run` itself, and ids that MONAI or its tools look for in a config.
RUN_ARGUMENTS = frozenset(
    "run_id init_id final_id meta_file config_file logging_file tracking args_file workflow_type workflow_name".split()
)
STANDARD_IDS = frozenset(
    "imports initialize run training evaluating inference finalize bundle_root device dataset_dir network_def train "
    "validate evaluator handlers preprocessing postprocessing inferer dataset displayable_configs _meta_".split()
)
# Values at the top of a config that are no settings of the run: places, what follows from others, what changes no result.
NO_OPTIONS = frozenset(
    "bundle_root datalist_file output_dir model_dir default_task decoders num_workers val_interval val_batch_size".split()
)
_REFERENCE = re.compile(r"[@%](\w+)")


def begin(output_dir: str, model_dir: str | None = None, seed: int | None = None) -> None:
    """Call this first in `initialize`.

    Args:
        output_dir, model_dir: folders that the run will write to; made here, and locked until the process ends.
        seed: of torch's global generator, so that the network starts from the same weights every time.
    """
    install_exit_messages()
    check_keys(sys.argv)
    for folder in (output_dir, model_dir):
        if folder is not None:
            require_writable(Path(folder))
            if is_writer():
                hold_folder(Path(folder))
    if seed is not None:
        torch.manual_seed(seed)


def run_options(**more: Any) -> dict[str, Any]:
    """The settings of a run for its run.json: the plain values at the top of the config that MONAI is evaluating.

    For an expression of that config, such as `"$run_options(**@method_def.names)"`. The parser of the config
    is found on the call stack, as MONAI does not pass it to what an expression calls. An expression counts by its value, if
    that is plain and the run has used it by now.

    Args:
        more: settings that stand elsewhere in the config.
    """
    frame = inspect.currentframe()
    while frame and not isinstance(frame.f_locals.get("self"), ConfigParser):
        frame = frame.f_back
    assert frame is not None, "only an expression of a config calls this"
    parser = frame.f_locals["self"]
    values = {key: value for key, value in parser.get().items() if key not in NO_OPTIONS}
    known = parser.ref_resolver.resolved_content
    values = {key: known.get(key, value) if _is_expression(value) else value for key, value in values.items()}
    values = {key: str(value) if isinstance(value, torch.device) else value for key, value in values.items()}
    return {key: value for key, value in values.items() if _is_plain(value)} | more


def _is_expression(value: Any) -> bool:
    return isinstance(value, str) and (ConfigExpression.is_expression(value) or value.startswith("@"))


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | float | str | None) and not _is_expression(value)


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
    files = _as_list(given["config_file"])
    parsed = ConfigParser.load_config_files(files)
    keys = [key for key in given if key not in RUN_ARGUMENTS]
    used = STANDARD_IDS | set(_REFERENCE.findall(json.dumps([parsed, list(given.values())])))
    if "run_options" in str(parsed):  # it records every option, also one that the method at hand ignores
        used |= ConfigParser.load_config_file(files[0]).keys()
    # A preset serves training and inference, and sets for one what the other does not use.
    bases = [Path(files[0]).with_name(f"{name}.json") for name in ("train", "inference")]
    elsewhere = {key for base in bases if base.is_file() for key in ConfigParser.load_config_file(str(base))}
    for key in [*parsed, *keys]:
        top, *path = re.split("#|::", key)
        if top in elsewhere and key not in keys:
            continue
        where = "--" + key if key in keys else given["config_file"]
        if key in keys:
            check_path(key, given[key])
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


def _as_list(files: str) -> list[str]:
    try:
        found = ast.literal_eval(files)
    except (SyntaxError, ValueError):  # one path, or a list of paths without quotes
        found = [part.strip(" '\"") for part in files.strip("[]() ").split(",") if part.strip(" '\"")]
    return [str(each) for each in found] if isinstance(found, list | tuple) else [str(found)]


def _options(arguments: Sequence[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for index, argument in enumerate(arguments):
        if re.match(r"--?[A-Za-z+]", argument):
            name, equals, value = argument.lstrip("-").partition("=")
            name = name.lstrip("+").replace("-", "_")  # as MONAI and its command line reader do
            options[name] = value if equals else " ".join(arguments[index + 1 : index + 2])
    return options
