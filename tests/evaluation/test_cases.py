"""The table of cases: what `CaseTable` writes comes back as it was, and older tables are completed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from propl_monai.errors import ProPLError
from propl_monai.evaluation.cases import NUMBERS, PIXELS, check_cases, parse_cases, read_cases
from propl_monai.evaluation.metrics import case_row


def scored() -> pd.DataFrame:
    """A hit, a miss, a false alarm and a pair of empty masks, the first with a pixel spacing."""
    full, empty = torch.ones(8, 6, dtype=torch.bool), torch.zeros(8, 6, dtype=torch.bool)
    pairs = [(full, full, (0.5, 0.25)), (empty, full, None), (full, empty, None), (empty, empty, None)]
    about = {"task": "breast cancer", "source": "BUSI", "group": ""}
    return pd.DataFrame([{"case": f"00{n}", **about, **case_row(*pair)} for n, pair in enumerate(pairs)])


def test_what_was_written_is_read(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text(scored().to_csv(index=False))
    frame = read_cases(tmp_path / "cases.csv")
    assert list(frame["case"]) == ["000", "001", "002", "003"]  # as text
    assert list(frame["status"]) == ["ok", "missed", "false alarm", "both empty"]
    for name in (*NUMBERS, *PIXELS):
        assert frame[name].tolist() == pytest.approx(scored()[name].astype(float).tolist(), nan_ok=True), name
    assert frame["hd95_mm"].notna().tolist() == [True, False, False, False] and frame[list(PIXELS)].dtypes.eq(int).all()


def test_older_tables_are_completed() -> None:
    old = scored().drop(columns=["convention", "diagonal_mm", *PIXELS])
    frame = parse_cases(old.to_csv(index=False).encode(), "old.csv")
    assert set(frame["convention"]) == {"standard"} and frame["diagonal_mm"].isna().all()
    assert not set(PIXELS) & set(frame.columns)


def test_another_convention_may_score_a_miss() -> None:
    frame = scored().assign(convention="released", dice=[1.0, 0.04, 0.04, 1.0])
    assert parse_cases(frame.to_csv(index=False).encode(), "cases.csv")["dice"].tolist() == [1.0, 0.04, 0.04, 1.0]
    with pytest.raises(ProPLError, match=r"is 'missed' with a Dice of 0\.04"):
        parse_cases(frame.assign(convention="standard").to_csv(index=False).encode(), "cases.csv")


def test_differences_may_be_negative_and_tasks_have_one_name() -> None:
    frame = check_cases(scored().assign(dice=-0.5, task="BC"), "differences")
    assert set(frame["task"]) == {"breast cancer"} and set(frame["dice"]) == {-0.5}


@pytest.mark.parametrize("text", ["", "case,task\n1,2,3\n", "\x00"])
def test_what_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(ProPLError, match=r"^cases\.csv: "):
        parse_cases(text.encode(), "cases.csv")
