"""Puts the bundle folder, with its weights if there are any, into the wheel; everything else is in setup.cfg."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

NOT_SHIPPED = shutil.ignore_patterns("runs", "previous", "__pycache__", ".*", "*.pt")  # *.pt: the weights a second time


class BuildWithBundle(build_py):
    """`build_py`, and a copy of `bundle` as `propl_monai/bundle`; an editable installation uses the checkout's own."""

    def run(self):
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "propl_monai" / "bundle"
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            shutil.copytree(Path(__file__).parent / "bundle", target, ignore=NOT_SHIPPED)


setup(cmdclass={"build_py": BuildWithBundle})
