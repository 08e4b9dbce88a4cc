"""Which pictures of a datalist wait for a label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from propl_monai.data.datalist import Datalist
from propl_monai.data.to_label import to_label
from propl_monai.datasets.sources.registry import read_source
from propl_monai.errors import ProPLError


def test_train_pictures_without_a_mask_wait(phantoms: Path) -> None:
    whole = read_source("folder", phantoms)
    train = [case for case in whole.cases if (case.task, case.split) == ("thyroid nodule", "train")]
    bare = {case.case_id for case in train[1:]} | {case.case_id for case in whole.cases if case.split != "train"}
    cases = tuple(replace(case, mask=None, mask_sha256=None) if case.case_id in bare else case for case in whole.cases)
    waiting, labelled = to_label(Datalist(phantoms, cases, "some"), "TN")
    assert waiting == [phantoms / case.image for case in train[1:]] and labelled == [phantoms / train[0].image]
    with pytest.raises(ProPLError, match="every train picture of thyroid nodule has a mask"):
        to_label(whole, "TN")
