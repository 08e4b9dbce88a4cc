"""Named pipelines of MONAI transforms: from a datalist item to what the network sees, and back to the original size."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import (
    Compose,
    CopyItemsd,
    EnsureTyped,
    LoadImaged,
    MapTransform,
    RandAffined,
    RandCoarseDropoutd,
    RandFlipd,
    RandomizableTransform,
    RandZoomd,
    SelectItemsd,
    Transform,
    Transposed,
)
from torch.nn import functional

from propl_monai.common.options import switch
from propl_monai.data import intensity
from propl_monai.data.grid import normalised, to_grid
from propl_monai.data.normalisations import NORMALISATIONS
from propl_monai.data.sector_crop import CropSectord
from propl_monai.errors import ProPLError, unknown
from propl_monai.tasks import find

AUGMENTATIONS = ("paper", "released", "none")
# `LoadImaged` makes all readers of MONAI, one of which complains that a decoder of NVIDIA, of no use here, is not installed.
logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
MAPS = ("pseudo_label", "certainty")  # of unlabelled images, 0 to 255, added to the cache by `DrawnDataset.add`
STRONG = ("image_strong", "image_strong_2")
KEPT = ("image", *STRONG, "label", *MAPS, "picture_weight", "task", "case_id", "source")


class ToGridd(MapTransform):
    """Resize to the network's grid, in compact types: images to uint8 (antialiased), masks to bool (nearest).

    Adds `original_size`, (H, W) in pixels, of the first key that is there.

    Args:
        keys: items (C, H, W); those whose name starts with "label" are masks.
        size: (rows, columns) of the grid, the paper's 224 × 224; the aspect ratio is not kept.
        allow_missing_keys: unlabelled items have no mask.
    """

    def __init__(self, keys: KeysCollection, size: Sequence[int], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.size = (int(size[0]), int(size[1]))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            pixels = torch.as_tensor(result[key], dtype=torch.float32).unsqueeze(0)
            result.setdefault("original_size", tuple(pixels.shape[-2:]))
            if str(key).startswith("label"):
                result[key] = functional.interpolate(pixels, self.size, mode="nearest-exact")[0] > 0
            else:
                result[key] = to_grid(pixels[0], self.size)
        return result


class Normalised(MapTransform):
    """Images from 0…1 to what the encoder's weights were trained on.

    Args:
        keys: items (C, H, W), float in [0, 1].
        kind: "imagenet", "half", or "z-score" (mean 0 and deviation 1 of each image).
    """

    def __init__(self, keys: KeysCollection, kind: str, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if kind not in NORMALISATIONS:
            raise unknown("normalisation", "normalisation", kind, NORMALISATIONS)
        self.kind = kind

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = normalised(result[key], self.kind)
        return result


class ToUnitd(MapTransform):
    """Images from uint8 to float in [0, 1], masks from bool to float in {0, 1}; plain tensors without metadata."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            item = torch.as_tensor(result[key])
            result[key] = item.float() if str(key).startswith("label") else item.float() / 255
        return result


class KeepPicture(Transform):
    """Adds `picture`: the grey levels of an upright "image" (1, H, W) as bytes, so that a batch may hold any sizes."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, "picture": torch.as_tensor(data["image"]).to(torch.uint8).numpy().tobytes()}


class Named(Transform):
    """Gives items a `case_id`, and a `task`, where they bring none, as those of MONAI Label do; put it before loading.

    Args:
        task: a name; None leaves an item without one.
    """

    def __init__(self, task: str | None = None) -> None:
        self.task = task

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        named: dict[Hashable, Any] = {} if self.task is None else {"task": self.task}
        return {"case_id": str(data["image"]), **named, **data}


class RandTransposed(RandomizableTransform, MapTransform):
    """Rows and columns change places, with some probability, in items of some tasks.

    Echocardiograms are shown with the apex at the top, but archives that were read with x first (CAMUS as an array) hold
    them lying on their side. A network that saw one of the two alone does not know the other.

    Args:
        keys: items (C, H, W) with H = W.
        tasks: of the items that are changed.
        prob: of a change.
    """

    def __init__(
        self, keys: KeysCollection, tasks: Sequence[str], prob: float = 0.5, allow_missing_keys: bool = False
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.tasks = frozenset(tasks)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        self.randomize(None)
        if self._do_transform and result.get("task") in self.tasks:
            for key in self.key_iterator(result):
                result[key] = result[key].transpose(-1, -2)
        return result


def load(keys: Sequence[str] = ("image", "label")) -> list:
    """Files to upright (1, H, W): grey levels 0-255 for "image", {0, 1} for "label", which may be missing."""
    reader = "propl_monai.data.monai_reader.UltrasoundReader"
    kinds = {key: "mask" if key.startswith("label") else "image" for key in keys}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
        steps: list = [
            LoadImaged(key, reader, allow_missing_keys=kind == "mask", ensure_channel_first=True, kind=kind)
            for key, kind in kinds.items()
        ]
    # MONAI's readers put x first; the network, like every other part of this package, works on upright rows × columns.
    steps.append(Transposed(keys, (0, 2, 1), allow_missing_keys=True))
    return steps


def training(
    spatial_size: Sequence[int],
    normalisation: str,
    augmentation: str = "paper",
    rotation_degrees: float = 15.0,
    scaling: float = 0.2,
    flip: float = 0.0,
    photometric: float = 0.0,
    strong_view: float = 0.0,
    cutout: float = 0.0,
    transposed_tasks: Sequence[str] | None = None,
    strong_views: int = 1,
    strong_kind: str = "photometric",
    crop_sector: bool = False,
) -> Compose:
    """Load (this part is cached), then a fresh random view at every pass.

    Args:
        spatial_size: the network's grid.
        normalisation: see `Normalised`.
        augmentation: "paper" (random rotation and scaling; it gives no ranges), "released" (zoom of 0.95-1.2 with
            probability 0.1), or "none".
        rotation_degrees: largest rotation of "paper".
        scaling: largest relative change of scale of "paper".
        flip: probability of a left-right mirror image; not in the paper.
        photometric: strength, 0 to 1, of random changes of contrast, brightness, blur and noise of "image".
        strong_view: 0, or the strength of such changes on a second view of the same geometry, "image_strong".
        cutout: probability that a black box hides a part of the view that photometric changes act on, as a
            shadow does; its sides are 5 to 40 % of the picture's (DeVries & Taylor, arXiv 1708.04552).
        transposed_tasks: whose pictures are transposed every other time, see `RandTransposed`; None for no task. The
            grid must be square.
        strong_views: 1, or 2 for another one, "image_strong_2", with changes of its own.
        strong_kind: "photometric", or "random" for `intensity.RandIntensityOps`, which has no strength.
        crop_sector: cut the black border around the scan first, see `CropSectord`.
    """
    if strong_views not in (1, 2):
        raise ProPLError("strong_views", f"{strong_views!r} is neither 1 nor 2", "give 1 or 2")
    cut = crop(("image", "label"), crop_sector)
    steps = [*load(), *cut, ToGridd(("image", "label"), spatial_size, allow_missing_keys=True)]
    both: dict[str, Any] = {"keys": ("image", "label", *MAPS), "allow_missing_keys": True}
    if transposed_tasks:
        if spatial_size[0] != spatial_size[1]:
            raise ProPLError("transposed_tasks", f"the grid {list(spatial_size)} is not square", "give a square one")
        steps.append(RandTransposed(tasks=[find(task).name for task in transposed_tasks], **both))
    modes: dict[str, Any] = {"mode": ("bilinear", "nearest", "bilinear", "bilinear")}
    if augmentation == "paper":
        turn = math.radians(rotation_degrees)
        modes["padding_mode"] = "zeros"  # black, as outside any sector; and pseudo-labels count nothing there
        steps.append(RandAffined(prob=1.0, rotate_range=turn, scale_range=(scaling, scaling), **modes, **both))
    elif augmentation == "released":
        steps.append(RandZoomd(prob=0.1, min_zoom=0.95, max_zoom=1.2, **modes, **both))
    elif augmentation != "none":
        raise unknown("augmentation", "augmentation", augmentation, AUGMENTATIONS)
    if flip:
        steps.append(RandFlipd(prob=flip, spatial_axis=1, **both))
    steps.append(ToUnitd(("image", "label"), allow_missing_keys=True))
    steps += intensity.photometric("image", photometric)
    images = ["image"]
    if strong_view:
        images += STRONG[:strong_views]
        for key in STRONG[:strong_views]:
            steps += [CopyItemsd("image", 1, [key]), *intensity.strong(key, strong_view, strong_kind)]
    if cutout:
        small, large = ([round(share * side) for side in spatial_size] for share in (0.05, 0.4))
        box: dict[str, Any] = {"fill_value": 0.0, "max_spatial_size": large, "prob": cutout}
        steps += [RandCoarseDropoutd(key, 1, small, **box) for key in images[1:] or images]
    steps += [
        Normalised(images, normalisation),
        EnsureTyped(("image", *STRONG, "label", *MAPS), track_meta=False, allow_missing_keys=True),
        SelectItemsd(KEPT, allow_missing_keys=True),
    ]
    return Compose(steps)


class TrainingViews(Compose):
    """`training` for labelled items; its attribute `unlabelled` is the same for items without a mask.

    The two differ in one thing: photometric changes and cutout act on the only view of a labelled item, and on the second
    view, "image_strong", of an unlabelled one, or on each of two.

    Args: those of `training`.
    """

    def __init__(
        self,
        spatial_size: Sequence[int],
        normalisation: str,
        augmentation: str = "paper",
        rotation_degrees: float = 15.0,
        scaling: float = 0.2,
        flip: float = 0.0,
        photometric: float = 0.0,
        strong_view: float = 0.0,
        cutout: float = 0.0,
        transposed_tasks: Sequence[str] | None = None,
        strong_views: int = 1,
        strong_kind: str = "photometric",
        crop_sector: bool = False,
    ) -> None:
        geometry = (spatial_size, normalisation, augmentation, rotation_degrees, scaling, flip)
        view = partial(training, *geometry, transposed_tasks=transposed_tasks, crop_sector=crop_sector)
        super().__init__(view(photometric=photometric, cutout=cutout).transforms)
        second: dict[str, Any] = {"strong_view": strong_view, "strong_views": strong_views, "strong_kind": strong_kind}
        self.unlabelled = view(**second, cutout=cutout if strong_view else 0.0)


def validation(
    spatial_size: Sequence[int], normalisation: str, default_task: str | None = None, crop_sector: bool = False
) -> Compose:
    """Image and mask on the network's grid, nothing random: all of it is cached.

    Args:
        spatial_size, normalisation, crop_sector: see `training`.
        default_task: of items that name none.
    """
    keys = ("image", "label")
    grid = [ToGridd(keys, spatial_size), ToUnitd(keys), Normalised("image", normalisation)]
    return Compose([Named(default_task), *load(), *crop(keys, crop_sector), *grid, SelectItemsd(KEPT, True)])


def evaluation(spatial_size: Sequence[int], normalisation: str, crop_sector: bool = False) -> Compose:
    """The image on the network's grid, the mask as it is: metrics are taken at the original resolution."""
    plain = EnsureTyped(("image", "label"), track_meta=False)
    return Compose([*load(), plain, *on_grid(spatial_size, normalisation, crop_sector).transforms])


def inference(
    spatial_size: Sequence[int], normalisation: str, keep_picture: bool = False, crop_sector: bool = False
) -> Compose:
    """The image of a file on the network's grid; its original size is remembered, and its grey levels on request.

    Args:
        spatial_size, normalisation, crop_sector: see `training`.
        keep_picture: see `KeepPicture`.
    """
    kept = [KeepPicture()] if switch("overlay", keep_picture) else []
    return Compose([*load(("image",)), *kept, *on_grid(spatial_size, normalisation, crop_sector).transforms])


def on_grid(spatial_size: Sequence[int], normalisation: str, crop_sector: bool = False) -> Compose:
    """The second half of `inference`: from an upright "image" (1, H, W) of grey levels 0-255 to what the network sees."""
    seen = [ToGridd("image", spatial_size), ToUnitd("image"), Normalised("image", normalisation)]
    return Compose([*crop(("image",), crop_sector), *seen])


def crop(keys: Sequence[str], crop_sector: bool) -> list:
    """The step of `CropSectord`, or none."""
    return [CropSectord(keys, allow_missing_keys=True)] if switch("crop_sector", crop_sector) else []
