"""What stands between two comments is replaced, and nothing else."""

from __future__ import annotations

import pytest

from propl_monai.common.marked_text import marked, replace_marked
from propl_monai.errors import ProPLError

BEGIN, END = "<!-- card: begin, written by a program -->", "<!-- card: end -->"
EMPTY = f"# Title\n{BEGIN}\n{END}\nafter\n"


def test_content_goes_in_and_out() -> None:
    filled = replace_marked(EMPTY, "card", "| a |\n\n", "README.md")
    assert filled == f"# Title\n{BEGIN}\n| a |\n{END}\nafter\n"
    assert marked(filled, "card") == "| a |" and marked(EMPTY, "card") == ""
    assert replace_marked(replace_marked(filled, "card", "b", "x"), "card", " ", "x") == EMPTY


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}\n{BEGIN}", f"{EMPTY}{EMPTY}"])
def test_markers_that_are_not_there_once_are_refused(text: str) -> None:
    assert marked(text, "card") is None
    with pytest.raises(ProPLError, match=r"README\.md: has no place for card; add the two lines <!-- card: begin"):
        replace_marked(text, "card", "b", "README.md")
