"""Values on their way into a MONAI config: what a user wrote arrives as it is, whatever characters are in it.

A command line of `python -m monai.bundle` is read twice. Fire evaluates every Python literal: `2024`, `True` and `a,b` stop
being text, and a "#" starts a comment. Then MONAI evaluates text that starts with $, @ or %, and takes "#" and "@::" for its
own separators.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from propl_monai.common.options import switch
from propl_monai.errors import ProPLError

_EVALUATED = re.compile(r"^[$@%]|#|[@%]::")  # by MONAI
_PATH_KEY = re.compile(r"(_dir|_file|weights|prompts)$")
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None, "none": None}


def as_config(value: Any) -> Any:
    """A value for a config file of MONAI; text that MONAI would evaluate becomes an expression that gives the text."""
    if isinstance(value, str | Path):
        return _expression(str(value)) if _EVALUATED.search(str(value)) else str(value)
    if isinstance(value, list | tuple):
        return [as_config(each) for each in value]
    return {key: as_config(each) for key, each in value.items()} if isinstance(value, Mapping) else value


def as_argument(value: Any) -> str:
    """A value for the command line of `python -m monai.bundle`."""
    value = as_config(value)
    if not isinstance(value, str):
        return repr(value)
    return _expression(value) if value.startswith("-") or _read_by_fire(value) != value else value


def _expression(text: str) -> str:
    """A string literal without any character that means something to fire, MONAI or a shell within double quotes."""
    plain = (each if each.isascii() and (each.isalnum() or each in " ./_-") else f"\\U{ord(each):08x}" for each in text)
    return f"$'{''.join(plain)}'"


def _read_by_fire(text: str) -> Any:
    from fire.parser import DefaultParseValue

    return DefaultParseValue(text)


def check_path(key: str, text: str) -> None:
    """Refuse a path on a command line that MONAI would read as another one; does nothing for keys that are no paths."""
    if not _PATH_KEY.search(key) or text[:1] in ("$", "@", "%", "'", '"'):
        return  # MONAI's own syntax, and quoted for fire, on purpose
    read = _read_by_fire(text)
    if "#" in text:
        raise ProPLError(
            f"--{key} {text}", "holds a #, which MONAI's command line reads as its own", "rename it, or use `propl`"
        )
    if read != text and read is not None:
        fact = f"is read as {read!r} by MONAI's command line"
        raise ProPLError(f"--{key} {text}", fact, f"give ./{text}, or use `propl`")


def read_setting(key: str, text: str, present: Any) -> Any:
    """The value of an option that is given as text; it has the kind of the present one, and is never evaluated.

    Args:
        key: of the config.
        text: a number, true, false, null, a list such as [64, 64], or any other text, which stands for itself.
        present: the value in the config; text stays text where this is text or where the key is that of a path.
    """
    where = f"--set {key}"
    evaluated = isinstance(present, str) and present[:1] in ("$", "@", "%")
    if isinstance(present, bool):
        return switch(f"set {key}", text)
    if _PATH_KEY.search(key):
        return None if present is None and text in _WORDS and _WORDS[text] is None else text
    if isinstance(present, str) and not evaluated:
        return text
    value = _read(text)
    if isinstance(present, int | float):
        whole = isinstance(present, int)
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or abs(value) == math.inf:
            raise ProPLError(where, f"'{text}' is not a {'whole ' * whole}number", f"give one such as {present}")
    if isinstance(present, list):
        kinds = {type(each) for each in present}
        if not isinstance(value, list) and kinds != {str}:
            raise ProPLError(where, f"'{text}' is not a list", f"give one such as {present}")
    if isinstance(present, dict):
        raise ProPLError(where, "is a group of keys", f"give one of them, such as {key}#{next(iter(present), 'name')}")
    return value


def _read(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    try:
        return json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        if text[:1] != "[" or text[-1:] != "]":
            return text
    items = re.findall(r"'[^']*'|\"[^\"]*\"|[^,\s][^,]*", text[1:-1])
    return [item[1:-1] if item[0] in "'\"" else _read(item.strip()) for item in items]
