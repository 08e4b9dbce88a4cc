"""A small copy of a data root, to carry to another machine: pictures of one side length, in few bytes.

    python -m benchmarks.pack DATA packed            # a folder in the plain layout
    python -m benchmarks.pack DATA packed.tar.xz     # the same in one file

The copy keeps tasks, sources, names, groups, splits, pixel sizes and the choice of labelled pictures: `datalist.json` holds
the splits and labelled pictures of the original, each `manifest.csv` the groups. Pictures become grey, as the network sees
them, and are stored once, also where tasks share one. What that costs is measured on the network's grid, and told.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from propl_monai import tasks
from propl_monai.common.files import file_sha256
from propl_monai.common.replace_folder import require_replaceable, staging_for, take_place
from propl_monai.common.spacing import Spacing
from propl_monai.data.cases import Case, picture_name
from propl_monai.data.datalist import Datalist
from propl_monai.data.splits import LABELLED_SALT, unit_interval
from propl_monai.data.transforms import ToGridd
from propl_monai.datasets.cohort import DATALIST
from propl_monai.datasets.sources.folder import MANIFEST
from propl_monai.datasets.sources.registry import read_source
from propl_monai.errors import ProPLError, install_exit_messages, unknown
from propl_monai.images import read_image, read_mask, to_grey

FORMATS = {
    "webp": {"format": "WEBP", "method": 6},
    "jpeg": {"format": "JPEG", "optimize": True},
    "png": {"format": "PNG", "optimize": True},
}
RECORD = "packed.json"  # says that a folder was written here and may be written again, and what the copy costs
SMALLEST, LARGEST = 32, 4096
ALIKE = 0.02  # of a pixel's height and width, which rounding of the sides makes unequal


@dataclass(frozen=True)
class Packed:
    """The copy.

    Attributes:
        cases, pictures: in it; tasks may share a picture.
        megabytes: of its pictures and masks, 10**6 bytes.
        size, kind, quality: of the pictures, see `pack`.
        grey_difference: mean absolute difference from the original on a grid of size × size, of 255 grey levels.
        largest_grey_difference: of one picture, its mean.
        mask_difference: share of the pixels of the masks, on that grid, that are another class now.
    """

    cases: int
    pictures: int
    megabytes: float
    size: int
    kind: str
    quality: int
    grey_difference: float
    largest_grey_difference: float
    mask_difference: float

    def report(self) -> str:
        """In two lines."""
        how = self.kind if self.kind == "png" else f"{self.kind}, quality {self.quality}"
        return (
            f"{self.cases} cases, {self.pictures} pictures, longer side {self.size} px at most ({how}): "
            f"{self.megabytes:.1f} MB\non the grid of {self.size} × {self.size}: grey levels differ by "
            f"{self.grey_difference:.2f} (mean; {self.largest_grey_difference:.2f} in the worst picture), "
            f"{100 * self.mask_difference:.3f} % of the pixels of masks"
        )


def pack(
    data: Path,
    output: Path,
    size: int = 160,
    kind: str = "webp",
    quality: int = 80,
    datalist_file: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Packed:
    """Write the copy, complete or not at all.

    Args:
        data: a folder in the plain layout, or that of `datalist_file`; only read.
        output: a folder that is new, empty, or was written by this function; or a `.tar`, `.tar.gz` or `.tar.xz` file.
        size: longest side of a picture; smaller ones keep theirs.
        kind: "webp", "jpeg" or "png" (without loss, for small sets).
        quality: of webp and jpeg, 1 to 100.
        datalist_file: whose cases to copy; None for all of `data`.
        progress: called with (cases done, of).
    """
    if kind not in FORMATS:
        raise unknown("--format", "format", kind, FORMATS)
    if not (SMALLEST <= size <= LARGEST and 1 <= quality <= 100):
        fact = f"size {size}, quality {quality}"
        raise ProPLError("pack", fact, f"give a size from {SMALLEST} to {LARGEST} and a quality from 1 to 100")
    source, place = data.resolve(), output.resolve()
    if source == place or source in place.parents or place in source.parents:
        raise ProPLError(output, f"and {data} lie in one another", "choose an output outside the data")
    datalist = Datalist.read(datalist_file, data) if datalist_file else read_source("folder", str(data))
    archive = archive_mode(output)
    home = output.with_name(output.name.partition(".tar")[0] + ".folder") if archive else output
    require_replaceable(home, (home / RECORD).is_file())
    with staging_for(home) as staging:
        packed = _Packing(staging, size, kind, quality).all(datalist, progress)
        (staging / RECORD).write_text(json.dumps(asdict(packed), indent=1) + "\n", encoding="utf-8")
        if not archive:
            take_place(staging, home)
            return packed
        partial = output.with_name(output.name + ".part")
        try:
            with tarfile.open(partial, archive) as stream:
                for path in sorted(staging.rglob("*")):
                    stream.add(path, path.relative_to(staging).as_posix(), recursive=False, filter=_anonymous)
            os.replace(partial, output)
        finally:
            partial.unlink(missing_ok=True)
    return packed


def archive_mode(path: Path) -> str:
    """How to write an archive of this name; empty for a folder."""
    endings = {".tar": "w", ".tar.gz": "w:gz", ".tar.xz": "w:xz"}
    return next((mode for ending, mode in endings.items() if path.name.endswith(ending)), "")


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack an archive of `pack` into a folder, unless it is there; returns the folder."""
    if not (folder / RECORD).is_file():
        with staging_for(folder) as staging:
            staging.mkdir(parents=True)
            try:
                with tarfile.open(archive) as stream:
                    stream.extractall(staging, filter="data")
            except (OSError, EOFError, tarfile.TarError) as error:
                fact = f"cannot be unpacked ({error})"
                raise ProPLError(archive, fact, "make it again with `python -m benchmarks.pack`") from error
            if not (staging / RECORD).is_file():
                cure = "give one that `python -m benchmarks.pack` made"
                raise ProPLError(archive, f"holds no {RECORD}", cure)
            take_place(staging, folder)
    return folder


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the user of this machine and the time, so that the same data make the same archive."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    return member


class _Packing:
    """The work of one call."""

    def __init__(self, folder: Path, size: int, kind: str, quality: int) -> None:
        self.folder, self.size, self.kind, self.quality = folder, size, kind, quality
        self.grid = ToGridd(("image", "label"), (size, size), allow_missing_keys=True)
        self.written: dict[str, tuple[Path, tuple[int, int], Spacing | None]] = {}  # by hash
        self.grey: list[float] = []
        self.changed = self.pixels = 0

    def all(self, datalist: Datalist, progress: Callable[[int, int], None]) -> Packed:
        copied = []
        for number, case in enumerate(datalist.cases, 1):
            copied.append(self._case(case, datalist.root))
            progress(number, len(datalist.cases))
        self._manifests(copied)
        about = f"A copy of {datalist.name} by benchmarks.pack: longer side {self.size} px, grey, {self.kind}."
        Datalist(self.folder, tuple(copied), datalist.name, about).write(self.folder / DATALIST)
        sizes = {path.stat().st_ino: path.stat().st_size for path in self.folder.rglob("*") if path.is_file()}
        return Packed(
            *(len(copied), len(self.written), round(sum(sizes.values()) / 1e6, 2)),
            *(self.size, self.kind, self.quality if self.kind != "png" else 100),
            *(round(float(np.mean(self.grey)), 3), round(max(self.grey), 3)),
            round(self.changed / max(1, self.pixels), 6),
        )

    def _case(self, case: Case, root: Path) -> Case:
        name = picture_name(case).replace("/", "_")
        home = self.folder / tasks.find(case.task).code / case.source
        image = home / "images" / f"{name}.{self.kind.replace('jpeg', 'jpg')}"
        if image.exists():
            raise ProPLError(root / case.image, f"would be copied to {image.name} like another one", "rename one")
        image.parent.mkdir(parents=True, exist_ok=True)
        if known := self.written.get(case.image_sha256):
            _link(known[0], image)
        else:
            known = self.written[case.image_sha256] = (image, *self._picture(root / case.image, image))
        _, original, spacing = known
        spacing = case.pixel_spacing_mm or spacing
        if spacing is not None:
            rows, columns = self._sides(*original)
            spacing = (spacing[0] * original[0] / rows, spacing[1] * original[1] / columns)
        mask = None
        if case.mask is not None:
            mask = home / "masks" / f"{name}.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            self._mask(root / case.mask, mask, original)
        place = case.labelled_place
        return replace(
            case,
            image=image.relative_to(self.folder).as_posix(),
            mask=mask.relative_to(self.folder).as_posix() if mask else None,
            image_sha256=file_sha256(image),
            mask_sha256=file_sha256(mask) if mask else None,
            pixel_spacing_mm=spacing,
            # By the hash of the original where the list has no place, as `labelled_images` takes it.
            labelled_place=unit_interval(LABELLED_SALT, case.image_sha256) if place is None else place,
        )

    def _picture(self, path: Path, target: Path) -> tuple[tuple[int, int], Spacing | None]:
        """Write one picture, and return rows and columns of the original, and the size of its pixels."""
        picture = read_image(path)
        grey = to_grey(picture.pixels)
        height, width = grey.shape
        small = Image.fromarray(grey)
        rows, columns = self._sides(height, width)
        if (rows, columns) != (height, width):
            small = small.resize((columns, rows), Image.Resampling.LANCZOS)
        quality = {} if self.kind == "png" else {"quality": self.quality}
        small.save(target, **FORMATS[self.kind], **quality)
        stored = to_grey(read_image(target).pixels)
        first, second = (self.grid({"image": torch.from_numpy(each.copy())[None]})["image"] for each in (grey, stored))
        self.grey.append(float((first.float() - second.float()).abs().mean()))
        return (height, width), picture.spacing_mm

    def _mask(self, path: Path, target: Path, size: tuple[int, int]) -> None:
        mask = read_mask(path)
        if mask.shape != size:
            raise ProPLError(
                path, f"is {mask.shape}, its image {size} (rows, columns)", "run `propl verify` on the data"
            )
        rows, columns = self._sides(*size)
        small = mask
        if (rows, columns) != size:
            share = Image.fromarray(mask.astype(np.uint8) * 255).resize((columns, rows), Image.Resampling.BOX)
            small = np.asarray(share) > 127
            if mask.any() and not small.any():  # a target must not vanish
                small = np.asarray(share) > 0
        Image.fromarray(small).save(target, format="PNG", optimize=True)
        first, second = (self.grid({"label": torch.from_numpy(each.copy())[None]})["label"] for each in (mask, small))
        self.changed, self.pixels = self.changed + int((first != second).sum()), self.pixels + first.numel()

    def _sides(self, height: int, width: int) -> tuple[int, int]:
        factor = min(1.0, self.size / max(height, width))
        return max(1, round(factor * height)), max(1, round(factor * width))

    def _manifests(self, cases: Sequence[Case]) -> None:
        """The groups and, where pixels are square, their size beside the pictures, so that the folder stands alone, too."""
        lines: dict[Path, list[str]] = {}
        for case in cases:
            spacing, length = case.pixel_spacing_mm, ""
            if spacing is not None and abs(spacing[0] / spacing[1] - 1) <= ALIKE:
                length = f"{(spacing[0] * spacing[1]) ** 0.5:.6g}"
            row = ",".join(_quoted(text) for text in (Path(case.image).stem, case.group, length))
            lines.setdefault((self.folder / case.image).parents[1] / MANIFEST, []).append(row)
        for path, rows in lines.items():
            path.write_text("\n".join(["name,group,pixel_size_mm", *rows, ""]), encoding="utf-8")


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in ',;"\t|') else text


def _link(first: Path, second: Path) -> None:
    """The same file under a second name; a copy where the disk has no hard links."""
    with suppress(OSError):
        os.link(first, second)
        return
    shutil.copyfile(first, second)


def main() -> None:
    """Pack, and report."""
    install_exit_messages()
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("data", type=Path, help="folder in the plain layout")
    reader.add_argument("output", type=Path, help="folder, or .tar, .tar.gz, .tar.xz")
    reader.add_argument("--size", type=int, default=160, help="longest side in pixels")
    reader.add_argument("--format", default="webp", help="webp, jpeg or png")
    reader.add_argument("--quality", type=int, default=80, help="of webp and jpeg")
    reader.add_argument("--datalist", type=Path, help="whose cases to copy; default: all of DATA")
    given = reader.parse_args()

    def show(done: int, of: int) -> None:
        if done == of or done % 500 == 0:
            print(f"{done} of {of} cases", file=sys.stderr)

    packed = pack(given.data, given.output, given.size, given.format, given.quality, given.datalist, show)
    print(packed.report())
    if given.output.is_file():
        print(f"{given.output}: {given.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
