"""TG3K: the thyroid gland in 3585 frames of 16 ultrasound videos.

`thyroid-image/0000.jpg` to `3584.jpg`, `thyroid-mask/0000.jpg`, and `tg3k-trainval.json` with lists `train` and `val`.

**Letters in masks.** The scanner's text (`...sDesc`) is burned into the top left corner of pictures and masks alike. In
masks a component is a letter when it lies wholly in the top quarter and the left fifth and is smaller than 0.1 % of the
picture. In copies padded to 256 x 256 a letter has at most 20 pixels; without the padding that is up to 0.051 % of the
flattest picture, so that a limit of 0.05 % would keep some. True islands of the gland begin at 0.03 %
(20, 20, 27, 38, then 112 pixels in 347 masks), so that size alone would lose some; all of them lie outside that corner.

**Videos.** Which frame is of which video is not published, and frames of one video are near-duplicates. Names follow the
videos one after the other, but within a video frames may jump to and fro, and a video ends next to where it began: jumps
between neighbouring frames cut videos in two (measured on 347 frames: every threshold that finds all 12 changes of video
finds at least 9 more). What changes from video to video is the picture's shape, as each was cropped in its own way; this was
seen in copies padded to a square, whose black borders keep the shape, as the originals were not at hand. So a new video
begins where the size changes; two neighbours of one size would become one group, which leaks nothing. A list of your own
(`videos`) goes before that, and must be given where all pictures were brought to one size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import find_objects, label

from propl_monai.common.files import stem
from propl_monai.datasets.sources.base import Exclusion, Reading, Source
from propl_monai.datasets.sources.listing import find_one, strays
from propl_monai.datasets.sources.table import read_table, two_spellings
from propl_monai.datasets.sources.tn3k import Pair, pair_by_number, read_split, read_white
from propl_monai.errors import ProPLError
from propl_monai.images import image_size

NAME = "TG3K"
TASK = "thyroid gland"
FOLDERS = ("thyroid-image", "thyroid-mask")
SPLIT_FILE = "tg3k-trainval.json"
VIDEOS = 16
LETTER_SHARE = 0.001  # of the picture's area
LETTER_ROWS, LETTER_COLUMNS = 0.25, 0.2  # of its height and width; padding to a square moves letters down to 0.24
_EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


def read_tg3k(folder: Path, *, videos: str = "detect") -> Reading:
    """List TG3K. Reads the header of every picture, for its size.

    The publishers' split is taken over where it leaves every video whole, and left out where it does not.

    Args:
        folder: that holds `thyroid-image`, or one above it (two levels at most).
        videos: "detect", see above; or a CSV file with columns `name` (such as 0000) and `group`.
    """
    home = find_one(folder, lambda place: (place / FOLDERS[0]).is_dir(), FOLDERS[0])
    pairs, excluded, counts = pair_by_number(home / FOLDERS[0], home / FOLDERS[1])
    groups = detect_videos(home, pairs) if videos == "detect" else _read_videos(Path(videos), pairs)
    splits: Mapping[int, str] = {}
    if (home / SPLIT_FILE).is_file():
        splits = read_split(home / SPLIT_FILE, pairs, "remove it to split by videos alone")
        if len({(groups[pair.name], splits[pair.number]) for pair in pairs}) > len(set(groups.values())):
            excluded.append(Exclusion(SPLIT_FILE, "puts frames of one video into train and validation"))
            splits = {}
    excluded += strays(home, NAME, {*FOLDERS, SPLIT_FILE})
    records = [pair.record(pair.name, groups[pair.name], TASK, read_gland, splits.get(pair.number)) for pair in pairs]
    return Reading.of([*records, *excluded], {**counts, "videos": len(set(groups.values()))})


def detect_videos(home: Path, pairs: Sequence[Pair]) -> dict[str, str]:
    """Name of a frame to its video, which is named after its first frame: a new one begins where the size changes."""
    groups: dict[str, str] = {}
    group = ""
    size: tuple[int, int] | None = None
    own: tuple[int, int] | None
    for pair in pairs:
        try:
            own = image_size(pair.image)
        except ProPLError:  # reported when the picture is read; here it only has no size of its own
            own = size
        if not group or (own != size and size is not None):
            group = f"video{pair.name}"
        groups[pair.name], size = group, own
    count = len(set(groups.values()))
    if count > VIDEOS:
        fact = f"the size of its pictures changes {count - 1} times, but {NAME} is {VIDEOS} videos of one size each"
        raise ProPLError(home, fact, "use the original pictures, or give the option videos=FILE.csv (name,group)")
    return groups


def _read_videos(path: Path, pairs: Sequence[Pair]) -> dict[str, str]:
    """As `detect_videos`, from a CSV file; rows of frames that are not here are skipped."""
    cure = "save it as UTF-8 with the columns name and group, one row for each frame"
    groups: dict[str, str] = {}
    for _, row in read_table(path, ("name", "group"), cure):
        name, group = stem(row["name"]), row["group"]
        if groups.setdefault(name, group) != group:
            raise ProPLError(path, f"gives {name} two groups, {groups[name]} and {group}", "keep one row")
    for first, other in two_spellings(sorted(set(groups.values()))):
        raise ProPLError(
            path, f"names groups that differ only in spelling: '{first}' and '{other}'", "write one of them"
        )
    missing = [pair.name for pair in pairs if not groups.get(pair.name)]
    if missing:
        fact = f"names no group for {len(missing)} of {len(pairs)} frames (such as {missing[0]})"
        raise ProPLError(path, fact, "add a row for each frame")
    return {pair.name: groups[pair.name] for pair in pairs}


def read_gland(path: Path) -> np.ndarray:
    """A mask without the letters in its corner, bool `(H, W)`."""
    white = read_white(path)
    components, _ = label(white, _EIGHT_NEIGHBOURS)
    areas = np.bincount(components.ravel())
    height, width = white.shape
    for number, place in enumerate(find_objects(components), start=1):
        in_corner = place[0].stop <= LETTER_ROWS * height and place[1].stop <= LETTER_COLUMNS * width
        if in_corner and areas[number] < LETTER_SHARE * white.size:
            white[components == number] = False
    if not white.any():
        raise ProPLError(path, "holds no gland, at most the letters of its corner", "leave this frame out")
    return white


SOURCE = Source(
    name=NAME,
    title="The thyroid gland in frames of 16 ultrasound videos",
    tasks=(TASK,),
    group="video, recognised by the size of its pictures, or from a list of yours",
    licence="terms not seen; frames of the open-CAS thyroid sweeps (Wunderling et al. 2017), chosen by the authors of TN3K",
    citation=(
        "Wunderling T. et al.: Comparison of thyroid segmentation techniques for 3D ultrasound. SPIE Medical Imaging 2017; "
        "Gong H. et al.: Multi-task learning for thyroid nodule segmentation with thyroid region prior. ISBI 2021"
    ),
    read=read_tg3k,
    holds={"pictures": 3585, "masks": 3585, "videos": VIDEOS},
    exclusions=(f"{SPLIT_FILE} where it divides a video: its frames are near-duplicates.",),
)
