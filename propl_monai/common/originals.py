"""Which folders hold no originals: results of this package, and masks, which look like any picture to a program."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from propl_monai.common.run_record import holds_predictions, made_by

# Folders of masks, beside one of pictures.
_MASKS = {
    *("mask", "masks", "label", "labels", "gt", "groundtruth", "ground_truth", "ground-truth", "annotation"),
    *("annotations", "segmentation", "segmentations"),
}
_DATASTORE = "datastore_v2.json"  # of MONAI Label, with its labels in "labels"
_PICTURES = ("images", "image", "imgs", "img", "pictures")


def no_originals(folder: Path, named: bool = False, verbs: Iterable[str] = ()) -> str:
    """Why the pictures in a folder are not to be segmented or learned from, to follow its name; empty where they are.

    Args:
        folder: any.
        named: the user has named this folder, which is then taken also where its name and place are those of masks.
        verbs: more commands whose results are not to be read again.
    """
    if holds_predictions(folder):
        return "is passed over, as it holds results of an earlier prediction"
    if made_by(folder / "run.json", "ef"):
        return "is passed over, as it holds pictures that `propl ef` has drawn in"
    for verb in verbs:
        if made_by(folder / "run.json", verb):
            return f"is passed over, as it holds results of `propl {verb}`"
    return "is passed over, as it holds masks" if not named and _holds_masks(folder) else ""


def _holds_masks(folder: Path) -> bool:
    """Whether a folder is named as one of masks, and lies beside one of pictures, or is that of MONAI Label."""
    if folder.name.lower() not in _MASKS:
        return False
    try:
        beside = {entry.name.lower() for entry in folder.parent.iterdir() if entry.is_dir()}
    except OSError:
        return False
    return not beside.isdisjoint(_PICTURES) or (folder.parent / _DATASTORE).is_file()
