"""What `--steady` does to the videos of TG3K, and how well end-diastole and end-systole are found in made cines.

    python -m benchmarks.cines ROOT --datalist ROOT/datalist.json

ROOT holds TG/TG3K and LV/CAMUS in the plain layout. Prints two tables:

* Steadiness: frames of a video in the order of their numbers. Jitter is the mean of |a(t) - (a(t-1) + a(t+1)) / 2|, a the
  area of the mask, as a share of the mean area of the video; Dice is that with the reference masks. Means over videos.
* Phases: no cine of a heart with known phases is at hand. Of each patient of the split, the end-diastolic picture of the
  four-chamber view is made to beat: around the middle of the ventricle it shrinks and grows again smoothly, by 25 % of its
  sides, 20 frames a beat, with fresh noise in each frame. The ventricle is segmented in each frame and the phases are found.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import map_coordinates

from propl_monai import Case, Datalist, Predictor, predict_cine, read_image
from propl_monai.images import read_mask, to_grey
from propl_monai.inference.cines.phases import find_beats

DEVIATIONS = (0.0, 0.5, 1.0, 2.0)
PERIOD, BEATS, SHRINK, NOISE = 20, 3, 0.25, 8.0  # frames, beats, share of the sides, grey levels


def videos(cases: Sequence[Case]) -> dict[str, list[Case]]:
    """Cases of each group in the order of the numbers that are their names."""
    found = defaultdict(list)
    for case in sorted(cases, key=lambda case: int(Path(case.image).stem)):
        found[case.group].append(case)
    return dict(found)


def jitter(areas: Sequence[float]) -> float:
    """See the module; a share of the mean area."""
    values = np.asarray(areas, float)
    return float(np.abs(values[1:-1] - (values[:-2] + values[2:]) / 2).mean() / values.mean())


def dice(mask: np.ndarray, true: np.ndarray) -> float:
    """Dice of two masks, 0 to 1; 1 where both are empty."""
    both = mask.sum() + true.sum()
    return float(2 * (mask & true).sum() / both) if both else 1.0


def steadiness(predictor: Predictor, root: Path, cases: Sequence[Case]) -> Iterator[tuple[str, float, float]]:
    """(name, jitter, Dice) of the reference masks and of each width of the filter, means over videos."""
    groups = videos(cases).values()
    masks = [[read_mask(root / str(case.mask)) for case in group] for group in groups]
    yield "reference masks", float(np.mean([jitter([mask.sum() for mask in group]) for group in masks])), 1.0
    for deviation in DEVIATIONS:
        jitters, overlaps = [], []
        for group, truth in zip(groups, masks, strict=True):
            frames = (read_image(root / case.image).pixels for case in group)
            found = [one[0].mask for one in predict_cine(predictor, frames, ["thyroid gland"], steady=deviation)]
            jitters.append(jitter([mask.sum() for mask in found]))
            overlaps.append(np.mean([dice(mask, true) for mask, true in zip(found, truth, strict=True)]))
        yield (
            f"`--steady {deviation:g}`" if deviation else "as it is",
            float(np.mean(jitters)),
            float(np.mean(overlaps)),
        )


def made_cine(picture: np.ndarray, mask: np.ndarray, seed: int) -> np.ndarray:
    """Frames (T, H, W) of a picture whose ventricle beats; end-diastole comes at a phase that the seed draws.

    Args:
        picture: uint8 (H, W).
        mask: bool (H, W), the ventricle.
        seed: of phase and noise.
    """
    random = np.random.default_rng(seed)
    rows, columns = np.indices(picture.shape, np.float32)
    points = np.argwhere(mask)
    centre, reach = points.mean(axis=0), 2.2 * points.std(axis=0)
    far = np.sqrt(((rows - centre[0]) / reach[0]) ** 2 + ((columns - centre[1]) / reach[1]) ** 2)
    fade = np.clip(2 - far, 0, 1)  # the motion is whole inside the ventricle and dies out around it
    shares = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(BEATS * PERIOD) - first_diastole(seed)) / PERIOD)
    frames = []
    for share in shares:
        scale = 1 / (1 - SHRINK * share * fade)
        place = [centre[0] + (rows - centre[0]) * scale, centre[1] + (columns - centre[1]) * scale]
        moved = map_coordinates(picture.astype(np.float32), place, order=1, mode="nearest")
        frames.append((moved + (moved > NOISE) * random.normal(0, NOISE, moved.shape)).clip(0, 255).astype(np.uint8))
    return np.stack(frames)


def first_diastole(seed: int) -> int:
    """The frame, from 0, of the first end-diastole in a made cine; others follow each PERIOD frames."""
    return int(np.random.default_rng([seed, 1]).integers(2, PERIOD))


def phase_errors(predictor: Predictor, root: Path, cases: Sequence[Case]) -> tuple[list[int], list[int], int]:
    """Frames between found and true end-diastoles, and end-systoles, and the number of cines without a beat."""
    diastoles, systoles, missed = [], [], 0
    for seed, case in enumerate(cases):
        picture, mask = to_grey(read_image(root / case.image).pixels), read_mask(root / str(case.mask))
        frames = made_cine(picture, mask, seed)
        areas = [float(one[0].mask.sum()) for one in predict_cine(predictor, frames, ["left ventricle"])]
        beats = find_beats(areas)
        missed += not beats
        for beat in beats:
            after = (beat.diastole - 1 - first_diastole(seed) + PERIOD // 2) % PERIOD - PERIOD // 2
            diastoles.append(after)
            systoles.append((beat.systole - 1 - first_diastole(seed)) % PERIOD - PERIOD // 2)
    return diastoles, systoles, missed


def main() -> None:
    """Print the figures of docs/hearts.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="data root in the plain layout")
    parser.add_argument("--datalist", type=Path, help="whose splits count; default: datalist.json in the root")
    parser.add_argument(
        "--weights", help="a bundle, the folder of a training, or a weights file; default: the package's"
    )
    parser.add_argument("--split", default="test")
    given = parser.parse_args()
    datalist = Datalist.read(given.datalist or given.root / "datalist.json", given.root)
    cases = [case for case in datalist.cases if case.split == given.split and case.mask]
    predictor = Predictor.from_bundle(given.weights) if given.weights else Predictor()
    print(f"| {given.split} split | jitter of the area | Dice |\n|---|---:|---:|")
    for name, shake, overlap in steadiness(predictor, given.root, [case for case in cases if case.source == "TG3K"]):
        print(f"| {name} | {100 * shake:.1f} % | {100 * overlap:.1f} |")
    hearts = [c for c in cases if c.task == "left ventricle" and Path(c.image).stem.endswith("_4CH_ED")]
    diastoles, systoles, missed = phase_errors(predictor, given.root, hearts)
    print(f"\n{len(hearts)} made cines, {len(diastoles)} beats found, {missed} cines without a beat")
    for name, errors in (("end-diastole", diastoles), ("end-systole", systoles)):
        off = np.abs(errors)
        print(f"{name}: {off.mean():.1f} frames off in the mean, {np.mean(off <= 1):.0%} within 1, {off.max()} at most")


if __name__ == "__main__":
    main()
