"""What cutting the black border at inference alone does to the Dice of weights, and whether a cut loses any of the target.

    python -m benchmarks.cropping ROOT --datalist ROOT/datalist.json

Predicts each case of a split twice, whole and cut to the sector of the scan. Prints, by task: cases, how many were cut, the
share of the picture that was kept, the largest share of a reference mask that was cut off, and mean Dice of both ways.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from benchmarks.cines import dice
from propl_monai import Datalist, Predictor, read_image
from propl_monai.images import read_mask
from propl_monai.images.sector import crop_box, cropped, whole


def main() -> None:
    """Print the table of docs/crop.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="data root in the plain layout")
    parser.add_argument("--datalist", type=Path, help="whose splits count; default: datalist.json in the root")
    parser.add_argument(
        "--weights", help="a bundle, the folder of a training, or a weights file; default: the package's"
    )
    parser.add_argument("--split", default="validation")
    given = parser.parse_args()
    datalist = Datalist.read(given.datalist or given.root / "datalist.json", given.root)
    predictors = [
        Predictor.from_bundle(given.weights, crop_sector=cut) if given.weights else Predictor(crop_sector=cut)
        for cut in (False, True)
    ]
    found = defaultdict(list)
    for case in datalist.cases:
        if case.split != given.split or not case.mask or case.task not in predictors[0].tasks:
            continue
        picture, true = read_image(given.root / case.image), read_mask(given.root / case.mask)
        box = crop_box(picture.pixels)
        kept = cropped(true, box)
        plain = dice(predictors[0](picture, case.task).mask, true)
        cut = plain if box == whole(true) else dice(predictors[1](picture, case.task).mask, true)
        found[case.task].append((box != whole(true), kept.size / true.size, 1 - kept.sum() / true.sum(), plain, cut))
    print("| task | n | cut | of the picture kept | most of a target lost | Dice whole | Dice cut | difference |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    rows = []
    for task, cases in sorted(found.items()):
        was_cut, kept, lost, plain, cut = np.asarray(cases, float).T
        rows.append((plain.mean(), cut.mean()))
        figures = f"{int(was_cut.sum())} | {kept.mean():.0%} | {lost.max():.1%} | {100 * plain.mean():.1f}"
        print(f"| {task} | {len(cases)} | {figures} | {100 * cut.mean():.1f} | {100 * (cut - plain).mean():+.1f} |")
    before, after = np.mean(rows, axis=0)
    total = sum(map(len, found.values()))
    print(f"| mean | {total} | | | | {100 * before:.1f} | {100 * after:.1f} | {100 * (after - before):+.1f} |")


if __name__ == "__main__":
    main()
