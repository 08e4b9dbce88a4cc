"""A local datastore that stays in its folder and takes nothing but pictures.

MONAI Label 0.8.5 joins names from requests to paths unchecked (path traversal in `PUT /datastore`), and stores files of any
kind. Here every name and tag is one part of a path, and every file is a picture that this package can read.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.config import settings
from monailabel.datastore.local import LocalDatastore

from propl_monai.common.files import picture_suffix
from propl_monai.errors import ProPLError
from propl_monai.images import image_size

EXTENSIONS = ("*.png", "*.jpg", "*.jpeg", "*.nii.gz")  # NIfTI for the labels that viewers send
LONGEST_NAME = 240  # bytes; file systems take 255, suffix included
logger = logging.getLogger(__name__)


@contextmanager
def bad_request() -> Iterator[None]:
    """Answer bad input with status 400 and its message."""
    try:
        yield
    except ProPLError as error:
        logger.warning("refused: %s", error)
        raise HTTPException(400, str(error)) from error


class FencedDatastore(LocalDatastore):
    """The pictures and labels of one folder.

    Args:
        folder: of the pictures; its `datastore_v2.json`, if there is one, is checked as requests are.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(folder, extensions=EXTENSIONS, auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Store a picture under a name; see `LocalDatastore`."""
        with bad_request():
            _require_name(image_id or "picture")
            _require_picture(image_filename, image_info)
        return super().add_image(image_id, image_filename, image_info)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Store a label of a picture under a tag; see `LocalDatastore`."""
        with bad_request():
            _require_name(image_id)
            _require_name(label_tag)
            _require_picture(label_filename, label_info)
        return super().save_label(image_id, label_filename, label_tag, label_info)

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        super()._init_from_datastore_file(throw_exception)
        content = self._datastore
        names = [name + entry.image.ext for name, entry in content.objects.items()]
        for name, entry in content.objects.items():
            names += [*entry.labels, *(name + label.ext for label in entry.labels.values())]
        if (content.images_dir, content.labels_dir) != (".", "labels") or any(_leaves_folder(name) for name in names):
            content.objects = {}  # whatever happens next, nothing outside is served
            raise ProPLError(self._datastore_config_path, "names files outside of its folder", "delete that file")


def _leaves_folder(name: str) -> bool:
    return name in ("", ".", "..") or bool(set(name) & {"/", os.sep, "\0"})


def _require_name(name: str) -> None:
    """Check a name or tag of a request: one part of a path, and not hidden."""
    if _leaves_folder(name) or "\\" in name or name.startswith(".") or len(name.encode()) > LONGEST_NAME:
        raise ProPLError(repr(name[:80]), "is no name for a picture or tag", "give a short one without slashes")


def _require_picture(file: str, info: Any) -> None:
    if not picture_suffix(file):
        raise ProPLError(Path(file).suffix or file, "is not a kind of picture that can be stored", "send a PNG")
    image_size(Path(file))
    if not isinstance(info, dict):
        raise ProPLError("params", "is not a JSON object", "give one, or leave it out")
