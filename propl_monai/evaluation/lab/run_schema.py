"""run.json of `propl compare`, checked against `compare.schema.json` before anything is made of it. Imports no torch.

It is JSON that a hand or a torn disk may have changed, and its names become folders: what passes here needs no second
look elsewhere.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from propl_monai.errors import ProPLError

RUN_AGAIN = "delete the folder of this run and run it again"


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not a JSON number")

    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise ProPLError(path, f"cannot be read as JSON ({error})", RUN_AGAIN) from error
    if not isinstance(content, dict):
        raise ProPLError(path, "holds no JSON object", RUN_AGAIN)
    return content


def options_of(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """The options of any run.json; the path is its name in messages."""
    if not isinstance(options := content.get("options"), dict):
        raise ProPLError(path, "has no options", RUN_AGAIN)
    return options


def check_form(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse the run.json of a finished run whose values do not fit the schema; the path is its name in messages."""
    try:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import best_match
    except ModuleNotFoundError as error:
        raise ProPLError("jsonschema", "is not installed", "pip install 'propl-monai[lab]'") from error
    text = resources.files("propl_monai.evaluation.lab").joinpath("compare.schema.json").read_text(encoding="utf-8")
    problem = best_match(Draft202012Validator(json.loads(text)).iter_errors(content))
    if problem is None:
        return
    name = ".".join(str(key) for key in problem.absolute_path)
    if problem.validator == "required":
        absent = [key for key in problem.validator_value if key not in problem.instance]
        fact = f"{name} without {', '.join(absent)}" if name else f"has no {' and no '.join(absent)}"
    else:
        fact = f"{name} is {reprlib.repr(problem.instance)}, not {problem.schema['description']}"
    raise ProPLError(path, fact, RUN_AGAIN)
