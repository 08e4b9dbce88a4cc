"""BUSI: breast ultrasound images of benign and malignant tumours, and of breasts without one.

The original layout is `Dataset_BUSI_with_GT/{benign,malignant,normal}/`, each with `benign (1).png`, its mask
`benign (1)_mask.png` and, for 17 pictures of several tumours, `_mask_1.png` and `_mask_2.png`: the target is their union.
Masks are stored in 1 bit, RGB or RGBA; grey above 127 is tumour.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np

from propl_monai.datasets.sources.base import Exclusion, Reading, Record, Source, choice
from propl_monai.datasets.sources.listing import find_home, named_pictures
from propl_monai.errors import ProPLError
from propl_monai.images import read_image, to_grey

KINDS = ("benign", "malignant", "normal")
TASK = "breast cancer"
THRESHOLD = 127

# The later picture of each pair, and the earlier one. Their 256-bit difference hashes are 8 bits apart or fewer, found by
# comparing all 647 tumour images. The audit below aligned all pairs of images and found many more; its list, which counts
# the images otherwise, is not part of this one.
NEAR_DUPLICATES = {
    "benign (139)": "benign (65)",
    "benign (152)": "benign (18)",
    "benign (157)": "benign (65)",
    "benign (177)": "benign (35)",
    "benign (263)": "benign (226)",
    "benign (270)": "benign (215)",
    "benign (277)": "benign (255)",
    "benign (279)": "benign (266)",
    "benign (282)": "benign (249)",
    "benign (285)": "benign (284)",
    "benign (287)": "benign (276)",
    "benign (296)": "benign (218)",
    "benign (299)": "benign (233)",
    "benign (300)": "benign (238)",
    "benign (320)": "benign (3)",
    "benign (322)": "benign (5)",
    "benign (327)": "benign (10)",
    "benign (330)": "benign (13)",
    "benign (332)": "benign (15)",
    "benign (412)": "benign (400)",
    "benign (419)": "benign (307)",
    "malignant (116)": "malignant (18)",
    "malignant (145)": "benign (433)",
    "malignant (93)": "benign (399)",
}
AUDIT = (
    "Pawłowska A, Karwat P, Żołek N. Letter to the Editor. Re: [Dataset of breast ultrasound images]. "
    "Data in Brief 48:109247, 2023 (PMC10293973)"
)


def read_busi(folder: Path, *, normal: str = "drop", near_duplicates: str = "drop") -> Reading:
    """Read BUSI in its original layout.

    Args:
        folder: `Dataset_BUSI_with_GT`, one of its folders, or a folder around it.
        normal: `drop` leaves the pictures without a tumour out; `keep` gives them their empty masks.
        near_duplicates: `drop` leaves the later picture of each pair out; `keep` gives it the group of the earlier one.
    """
    choice("BUSI", "normal", normal, ("drop", "keep"))
    choice("BUSI", "near_duplicates", near_duplicates, ("drop", "keep"))
    home = find_home(folder, KINDS[:2], "Dataset_BUSI_with_GT")
    listed: list[Record | Exclusion] = []
    found = {f"{kind} images": 0 for kind in KINDS} | {"masks": 0}
    for kind in KINDS:
        if not (home / kind).is_dir():
            continue
        name_of = re.compile(rf"{kind} \(\d+\)")
        images, masks, unexpected = named_pictures(home / kind, name_of.fullmatch, _picture_of)
        found[f"{kind} images"] = len(images)
        found["masks"] += sum(map(len, masks.values()))
        listed += unexpected
        for name, path in images.items():
            reason = _reason(name, kind, normal, near_duplicates) or ("" if name in masks else "has no mask")
            if reason:
                listed.append(Exclusion(name, reason))
                continue
            mask = partial(read_union, tuple(masks[name]))
            listed.append(Record(name, NEAR_DUPLICATES.get(name, name), partial(read_image, path), {TASK: mask}))
    return Reading.of(listed, found)


def _picture_of(name: str) -> str | None:
    match = re.fullmatch(r"(.+)_mask(_\d+)?", name)
    return match and match[1]


def _reason(name: str, kind: str, normal: str, near_duplicates: str) -> str:
    """Why a picture is left out on purpose; empty when it is not."""
    if kind == "normal" and normal == "drop":
        return "shows no tumour"
    first = NEAR_DUPLICATES.get(name)
    if first is None or near_duplicates == "keep":
        return ""
    contradicts = "" if first.startswith(kind) else ", which the publishers file under the other diagnosis"
    return f"is nearly the same picture as {first}{contradicts}"


def read_union(paths: tuple[Path, ...]) -> np.ndarray:
    """The union of the masks of one picture, grey above 127 being foreground.

    Returns:
        bool `(H, W)`.
    """
    layers = [to_grey(read_image(path).pixels) for path in paths]
    for path, layer in zip(paths, layers, strict=True):
        if layer.shape != layers[0].shape:
            fact = f"is {layer.shape[0]} × {layer.shape[1]}, {paths[0].name} is {layers[0].shape[0]} × {layers[0].shape[1]}"
            raise ProPLError(path, fact, "download both masks again")
        if 0 < layer.max() <= THRESHOLD:  # as masks of 0 and 1 are: they would silently come out empty
            fact = f"is a mask whose brightest value is {layer.max()}, where more than {THRESHOLD} is foreground"
            raise ProPLError(path, fact, "take the original mask of 0 and 255")
    return np.any([layer > THRESHOLD for layer in layers], axis=0)


SOURCE = Source(
    name="BUSI",
    title="Breast ultrasound images of benign and malignant tumours and of normal breasts (Cairo, 600 women)",
    tasks=(TASK,),
    group="the picture itself: no patient is published, so pictures of one woman may still be in two splits",
    licence="CC0 1.0 according to the copies on Kaggle and Dataset Ninja; the authors ask to be cited",
    citation="Al-Dhabyani W, Gomaa M, Khaled H, Fahmy A. Dataset of breast ultrasound images. "
    "Data in Brief 28:104863, 2020",
    holds={"benign images": 437, "malignant images": 210, "normal images": 133, "masks": 798},
    exclusions=(
        f"{len(NEAR_DUPLICATES)} near-duplicates of tumour pictures, two of them under the contradicting diagnosis; that the "
        f"set holds duplicates and contradicting labels is shown by {AUDIT} (near_duplicates=keep keeps them).",
        "133 pictures of normal breasts, which hold no target (normal=keep keeps them, with empty masks).",
    ),
    read=read_busi,
)
