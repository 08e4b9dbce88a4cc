"""`python -m propl_monai.cli` is `propl`."""

from __future__ import annotations

from propl_monai.cli import main

main()
