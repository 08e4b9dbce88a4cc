"""Values from a command line, which are text."""

from __future__ import annotations

from collections.abc import Iterable

from propl_monai.errors import ProPLError


def switch(name: str, value: object) -> bool:
    """A switch as a bool; "true" and "false" count in any case, as Python would take the text "false" for true.

    Args:
        name: of the option, for the message.
        value: True, False, or one of these words.
    """
    text = str(value).lower()
    if text not in ("true", "false"):
        raise ProPLError(f"--{name}", f"{value!r} is neither true nor false", "give true or false")
    return text == "true"


def pairs(name: str, texts: Iterable[str]) -> dict[str, str]:
    """A dict from texts name=value; the value may hold further equals signs. `name` is that of the option."""
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
