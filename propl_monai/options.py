"""Values as they come from a command line."""

from __future__ import annotations

from propl_monai.errors import ProPLError


def switch(name: str, value: object) -> bool:
    """A switch as a bool: `--resume false` arrives as the text "false", which Python counts as true.

    Args:
        name: of the option, for the message.
        value: True, False, or those words in any case.

    Raises:
        ProPLError: anything else.
    """
    text = str(value).lower()
    if text not in ("true", "false"):
        raise ProPLError(f"--{name}", f"{value!r} is neither true nor false", "give true or false")
    return text == "true"
