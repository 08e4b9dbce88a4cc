"""Values as they come from a command line."""

from __future__ import annotations

from collections.abc import Iterable

from propl_monai.errors import ProPLError


def switch(name: str, value: object) -> bool:
    """A switch as a bool: `--resume false` arrives as the text "false", which Python counts as true.

    Args:
        name: of the option, for the message.
        value: True, False, or those words in any case.
    """
    text = str(value).lower()
    if text not in ("true", "false"):
        raise ProPLError(f"--{name}", f"{value!r} is neither true nor false", "give true or false")
    return text == "true"


def pairs(name: str, texts: Iterable[str]) -> dict[str, str]:
    """Texts such as "normal=keep" as a dict.

    Args:
        name: of the option, for the message.
        texts: each name=value; the value may hold further equals signs.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not (key and sign):
            raise ProPLError(name, f"'{text}' is not name=value", "give one such as normal=keep")
        if key in found:
            raise ProPLError(name, f"'{key}' is given twice", "keep one of them")
        found[key] = value
    return found


def words(text: str) -> list[str]:
    """The words of a comma-separated list, without blanks and empty ones."""
    return [word.strip() for word in text.split(",") if word.strip()]
