"""A part of a text file that a program writes, between two comments; what stands around it is written by people."""

from __future__ import annotations

from propl_monai.errors import ProPLError

FIGURES = "figures"  # the part of a model card that `propl card` writes


def _markers(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin, written by a program -->", f"<!-- {name}: end -->"


def marked(text: str, name: str) -> str | None:
    """What stands between the markers of a name, without blank lines around it; None where there are no markers."""
    begin, end = _markers(name)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        return None
    return text.partition(begin)[2].partition(end)[0].strip()


def replace_marked(text: str, name: str, content: str, where: object) -> str:
    """The text with other content between the markers; `where` is its name in messages."""
    begin, end = _markers(name)
    if marked(text, name) is None:
        raise ProPLError(where, f"has no place for {name}", f"add the two lines {begin} and {end}, once, in this order")
    before, _, rest = text.partition(begin)
    inside = f"\n{content.strip()}\n" if content.strip() else "\n"
    return before + begin + inside + end + rest.partition(end)[2]
