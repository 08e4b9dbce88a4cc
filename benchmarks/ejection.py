"""Ejection fraction from predicted masks against that from reference masks, on the test patients of CAMUS.

    python -m benchmarks.ejection ROOT --datalist ROOT/datalist.json -o runs/ef

ROOT holds LV/CAMUS and LA/CAMUS in the plain layout, with names such as patient0001_4CH_ED. Only patients of the split (test,
unless --split says otherwise) that have all four pictures count. Writes ef.csv (a row a patient), ef.json and ef.png, a
Bland-Altman picture (Bland and Altman, Lancet 1986;1:307-310): limits of agreement are bias ± 1.96 standard deviations. The
masks of CAMUS have no pixel size here; EF needs none.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from propl_monai import Datalist, Predictor, read_image
from propl_monai.common.files import write_atomically
from propl_monai.errors import ProPLError
from propl_monai.evaluation.figure_style import COLOURS, STYLE, canvas, matplotlib
from propl_monai.images import read_mask
from propl_monai.inference.cines.discs import Ventricle, cut
from propl_monai.inference.cines.ejection import ejection

VIEWS, PHASES = ("4CH", "2CH"), ("ED", "ES")
VENTRICLE, ATRIUM = "left ventricle", "left atrium"
PLANES = {"biplane": VIEWS, "4CH alone": VIEWS[:1], "2CH alone": VIEWS[1:]}
SURE = 1.96  # standard deviations that hold 95 % of normal differences

Cut = Callable[[str, str, str], Ventricle]  # of a patient, view and phase


def patients_of(datalist: Datalist, split: str) -> list[str]:
    """Patients of a split with ventricle and atrium in both views and phases."""
    found = {
        (case.task, Path(case.image).stem)
        for case in datalist.cases
        if case.source == "CAMUS" and case.split == split and case.mask
    }
    named = sorted({name.split("_")[0] for _, name in found})
    wanted = [(task, view, phase) for task in (VENTRICLE, ATRIUM) for view in VIEWS for phase in PHASES]
    whole = [one for one in named if all((task, f"{one}_{view}_{phase}") in found for task, view, phase in wanted)]
    if not whole:
        raise ProPLError(split, "holds no CAMUS patient with four pictures", "give a datalist of LV and LA of CAMUS")
    return whole


def fractions(patient: str, cut_of: Cut) -> dict[str, float]:
    """EF in % of a patient, from both planes and from either."""
    planes = {(view, phase): cut_of(patient, view, phase) for view in VIEWS for phase in PHASES}
    return {
        name: ejection(*([planes[view, phase] for view in views] for phase in PHASES)).fraction
        for name, views in PLANES.items()
    }


def agreement(reference: Sequence[float], predicted: Sequence[float]) -> dict[str, float]:
    """Bias, limits of agreement, mean absolute error and correlation of EF, in points of EF."""
    differences = np.subtract(predicted, reference)
    bias, deviation = float(differences.mean()), float(differences.std(ddof=1))
    low, high = bias - SURE * deviation, bias + SURE * deviation
    found = {"n": len(differences), "bias": bias, "deviation": deviation, "limits_low": low, "limits_high": high}
    found |= {"mean_absolute_error": float(np.abs(differences).mean())}
    return found | {"correlation": float(np.corrcoef(reference, predicted)[0, 1])}


def draw(reference: Sequence[float], predicted: Sequence[float], told: dict[str, float]) -> bytes:
    """The Bland-Altman picture, as PNG."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = canvas(height=3.4)
        axes.scatter(np.add(reference, predicted) / 2, np.subtract(predicted, reference), 22, COLOURS[0], alpha=0.8)
        for key, style, name in (
            ("bias", "-", "bias"),
            ("limits_low", "--", "−1.96 SD"),
            ("limits_high", "--", "+1.96 SD"),
        ):
            axes.axhline(told[key], color=COLOURS[5], linestyle=style, linewidth=1.3)
            place = {"xytext": (4, 3), "textcoords": "offset points", "fontsize": 9, "color": COLOURS[5]}
            axes.annotate(f"{name} {told[key]:+.1f}", (1.0, told[key]), xycoords=axes.get_yaxis_transform(), **place)
        axes.set(xlabel="mean of both EF (%)", ylabel="EF predicted − reference (points)")
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def main() -> None:
    """Print the figures of docs/hearts.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="data root in the plain layout")
    parser.add_argument("--datalist", type=Path, help="whose splits count; default: datalist.json in the root")
    parser.add_argument(
        "--weights", help="a bundle, the folder of a training, or a weights file; default: the package's"
    )
    parser.add_argument("--split", default="test")
    parser.add_argument("-o", "--output", type=Path, default=Path("ef"))
    given = parser.parse_args()
    datalist = Datalist.read(given.datalist or given.root / "datalist.json", given.root)
    patients = patients_of(datalist, given.split)
    predictor = Predictor.from_bundle(given.weights) if given.weights else Predictor()
    pictures = {(c.task, Path(c.image).stem): (given.root / c.image, given.root / str(c.mask)) for c in datalist.cases}

    def of_reference(patient: str, view: str, phase: str) -> Ventricle:
        ventricle, atrium = (read_mask(pictures[task, f"{patient}_{view}_{phase}"][1]) for task in (VENTRICLE, ATRIUM))
        return cut(ventricle, None, atrium)

    def of_network(patient: str, view: str, phase: str) -> Ventricle:
        picture = read_image(pictures[VENTRICLE, f"{patient}_{view}_{phase}"][0])
        ventricle, atrium = predictor(picture, [VENTRICLE, ATRIUM])
        return cut(ventricle.mask, None, atrium.mask)

    rows = []
    for patient in patients:
        reference, predicted = fractions(patient, of_reference), fractions(patient, of_network)
        row = {
            f"{name}, {kind}": found[name]
            for name in PLANES
            for kind, found in zip(KINDS, (reference, predicted), strict=True)
        }
        rows.append({"patient": patient, **{key: round(value, 2) for key, value in row.items()}})
    told = {name: agreement(*([row[f"{name}, {kind}"] for row in rows] for kind in KINDS)) for name in PLANES}
    given.output.mkdir(parents=True, exist_ok=True)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(given.output / "ef.csv", stream.getvalue().encode())
    about = {"weights_sha256": predictor.weights_sha256, "split": given.split, "agreement": told}
    write_atomically(given.output / "ef.json", (json.dumps(about, indent=2) + "\n").encode())
    both = ([row[f"biplane, {kind}"] for row in rows] for kind in KINDS)
    write_atomically(given.output / "ef.png", draw(*both, told["biplane"]))
    print("| planes | n | mean absolute error | bias | limits of agreement | correlation |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, one in told.items():
        limits = f"{one['limits_low']:+.1f} to {one['limits_high']:+.1f}"
        error, bias = f"{one['mean_absolute_error']:.1f}", f"{one['bias']:+.1f}"
        print(f"| {name} | {one['n']} | {error} | {bias} | {limits} | {one['correlation']:.2f} |")


KINDS = ("reference", "predicted")

if __name__ == "__main__":
    main()
