"""MMOTU, its part OTU_2d: ovarian tumours of seven kinds and normal ovaries.

The original layout is `OTU_2d/images/1.JPG`, `OTU_2d/annotations/1.PNG` with one colour for each class, beside it
`1_binary.PNG` of 0 and 1, and the lists `train.txt` and `val.txt`. The target of the binary task is every colour.

The authors divide the set into `train.txt` (1000) and `val.txt` (469) only, and report their results on the latter. It
therefore becomes the test split; validation has to come out of the former. Copies without the lists have no such split.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from propl_monai.common.files import require_file, stem
from propl_monai.datasets.sources.base import Exclusion, Reading, Record, Source, choice
from propl_monai.datasets.sources.listing import find_home, left_out, named_pictures, pictures
from propl_monai.errors import ProPLError
from propl_monai.images import read_image, read_mask, read_values

TASK = "ovarian tumor"
IMAGES, ANNOTATIONS = "images", "annotations"
BINARY = "_binary"
SPLIT_OF_LIST = {"train.txt": "train", "val.txt": "test"}
# As in the authors' loader.
CLASSES = {
    (64, 0, 0): "chocolate cyst",
    (0, 64, 0): "serous cystadenoma",
    (0, 0, 64): "teratoma",
    (64, 0, 64): "theca cell tumor",
    (64, 64, 0): "simple cyst",
    (64, 64, 64): "normal ovary",
    (0, 128, 0): "mucinous cystadenoma",
    (0, 0, 128): "high grade serous cystadenoma",
}
NORMAL_OVARY = "normal ovary"


def read_mmotu(folder: Path, *, normal_ovary: str = "keep") -> Reading:
    """Read OTU_2d of MMOTU in its original layout.

    Args:
        folder: `OTU_2d`, one of its folders, or a folder around it.
        normal_ovary: `keep` as the authors' binary task does, where the outline of a normal ovary counts as target;
            `drop` leaves those pictures out. As only colours identify the class, `drop` opens every annotation.
    """
    choice("MMOTU", "normal_ovary", normal_ovary, ("keep", "drop"))
    home = find_home(folder, (IMAGES, ANNOTATIONS), "OTU_2d")
    images, _, excluded = named_pictures(home / IMAGES, str.isdecimal)
    annotations, binaries, unexpected = _annotations(home / ANNOTATIONS, images)
    splits = _official_splits(home)
    listed: list[Record | Exclusion] = [*excluded, *unexpected]
    for name, path in images.items():
        reason = _reason(name, annotations.get(name), splits, normal_ovary)
        if reason is not None:
            listed.append(Exclusion(name, reason))
            continue
        mask = partial(read_target, annotations[name], binaries.get(name))
        listed.append(Record(name, name, partial(read_image, path), {TASK: mask}, splits.get(name)))
    present = [splits.get(name) for name in images]
    found = {
        "pictures": len(images),
        "annotations": len(annotations),
        "training pictures": present.count("train"),
        "test pictures": present.count("test"),
    }
    return Reading.of(listed, found)


def _annotations(folder: Path, images: dict[str, Path]) -> tuple[dict[str, Path], dict[str, Path], list[Exclusion]]:
    """Colour annotations and binary ones by the name of their picture, and what is neither."""
    paths, excluded = pictures(folder)
    colours: dict[str, Path] = {}
    binaries: dict[str, Path] = {}
    for name, path in paths.items():
        picture = name.removesuffix(BINARY)
        if not picture.isdecimal():
            excluded.append(left_out(path, "is not named as the published annotations are"))
        elif picture not in images:
            excluded.append(left_out(path, "is an annotation without an image"))
        else:
            (colours if picture == name else binaries)[picture] = path
    return colours, binaries, excluded


def _reason(name: str, annotation: Path | None, splits: dict[str, str], normal_ovary: str) -> str | None:
    """Why a picture is left out; None when it is not."""
    if annotation is None:
        return "has no annotation"
    if splits and name not in splits:
        return "is in neither of the lists " + " and ".join(SPLIT_OF_LIST)
    if normal_ovary == "drop" and _shows_normal_ovary(annotation):
        return "shows a normal ovary, not a tumour"
    return None


def _shows_normal_ovary(annotation: Path) -> bool:
    try:
        return _classes(annotation, read_colours(annotation)) == {NORMAL_OVARY}
    except ProPLError:  # reading its mask raises the same again, where one bad picture stops no other
        return False


def _official_splits(home: Path) -> dict[str, str]:
    """The split of each name in the authors' lists; nothing when neither list is there."""
    if not any((home / name).exists() for name in SPLIT_OF_LIST):
        return {}
    splits: dict[str, str] = {}
    for name, split in SPLIT_OF_LIST.items():
        require_file(home / name)
        for line in (home / name).read_text(encoding="utf-8-sig", errors="replace").split():
            if splits.setdefault(stem(line), split) != split:
                fact = f"names '{line}', as the other list does"
                raise ProPLError(home / name, fact, "take the lists of the download")
    return splits


def read_target(annotation: Path, binary: Path | None) -> np.ndarray:
    """The union of all classes, checked against the authors' binary mask where there is one.

    Returns:
        bool `(H, W)`.
    """
    colours = read_colours(annotation)
    _classes(annotation, colours)
    target: np.ndarray = np.any(colours, axis=2)
    if binary is None:
        return target
    check = read_mask(binary)
    if check.shape != target.shape:
        fact = f"is {check.shape[0]} × {check.shape[1]}, {annotation.name} is {target.shape[0]} × {target.shape[1]}"
        raise ProPLError(binary, fact, "download both again")
    if (check != target).any():
        fact = f"differs from {annotation.name} in {np.count_nonzero(check != target)} pixels"
        raise ProPLError(binary, fact, "download both again, or remove the wrong one")
    return target


def read_colours(annotation: Path) -> np.ndarray:
    """The annotation as RGB `(H, W, 3)`; one of a normal ovary has equal channels and may be stored as grey."""
    values = read_values(annotation)
    return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)


def _classes(annotation: Path, colours: np.ndarray) -> set[str]:
    """The classes that an annotation shows."""
    numbers = np.unique(colours.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32))  # each colour one number
    present = {(int(each) >> 16, int(each) >> 8 & 255, int(each) & 255) for each in numbers if each}
    unknown = sorted(present - CLASSES.keys())
    if unknown:
        fact = f"holds {len(unknown)} colours that are no class of MMOTU, such as {unknown[0]}"
        raise ProPLError(annotation, fact, "take the original PNG: other formats and sizes blur the colours")
    return {CLASSES[each] for each in present}


SOURCE = Source(
    name="MMOTU",
    title="Ovarian tumours of seven kinds and normal ovaries, OTU_2d (Beijing)",
    tasks=(TASK,),
    group="the picture itself: no patient is published",
    licence="none stated in the authors' repository",
    citation="Zhao Q, Lyu S, Bai W, et al. A multi-modality ovarian tumor ultrasound image dataset for unsupervised "
    "cross-domain semantic segmentation. arXiv:2207.06799, 2022",
    holds={"pictures": 1469, "annotations": 1469, "training pictures": 1000, "test pictures": 469},
    exclusions=("With normal_ovary=drop: pictures of a normal ovary, whose outline is no tumour.",),
    read=read_mmotu,
)
