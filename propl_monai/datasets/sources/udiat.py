"""UDIAT, also called Dataset B: breast ultrasound images with one lesion each.

The original layout is `BUS/original/000001.png` and `BUS/GT/000001.png`: same names, same sizes, masks of 0 and 255. The
folder names are those that public loaders of the set use.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from propl_monai.datasets.sources.base import Exclusion, Reading, Record, Source
from propl_monai.datasets.sources.listing import find_home, left_out, pictures
from propl_monai.images import read_image, read_mask

TASK = "breast cancer"
IMAGES, MASKS = "original", "GT"


def read_udiat(folder: Path) -> Reading:
    """Read UDIAT in its original layout.

    Args:
        folder: `BUS`, one of its folders, or a folder around it.
    """
    home = find_home(folder, (IMAGES, MASKS), "BUS")
    images, excluded = pictures(home / IMAGES)
    masks, unexpected = pictures(home / MASKS)
    excluded += unexpected
    excluded += [left_out(path, "is a mask without an image") for name, path in masks.items() if name not in images]
    excluded += [Exclusion(name, "has no mask") for name in images if name not in masks]
    records = [
        Record(name, name, partial(read_image, path), {TASK: partial(read_mask, masks[name])})
        for name, path in images.items()
        if name in masks
    ]
    return Reading.of([*records, *excluded], {"images": len(images), "masks": len(masks)})


SOURCE = Source(
    name="UDIAT",
    title="Breast ultrasound images with one lesion each, Dataset B of Yap et al. (Sabadell)",
    tasks=(TASK,),
    group="the picture itself: no patient is published",
    licence="on request, by a signed agreement; research only, no redistribution (according to users of the set)",
    citation="Yap MH, Pons G, Martí J, et al. Automated breast ultrasound lesions detection using convolutional neural "
    "networks. IEEE Journal of Biomedical and Health Informatics 22(4):1218–1226, 2018",
    holds={"images": 163, "masks": 163},
    read=read_udiat,
)
