"""Configs by name."""

from __future__ import annotations

import pytest
from factories import ROOT

from propl_monai.common.bundle_command import config_file
from propl_monai.errors import ProPLError

BUNDLE = ROOT / "bundle"


def test_a_config_by_name() -> None:
    assert config_file(BUNDLE, "compact") == BUNDLE / "configs" / "compact.json"
    with pytest.raises(ProPLError, match="name one of its configs"):
        config_file(BUNDLE, "missing")
