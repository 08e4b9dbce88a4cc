"""The figures of a card as Markdown: every number comes from card.json, nothing is computed here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from propl_monai.evaluation.card.measures import FAILED, KINDS, LARGER
from propl_monai.evaluation.grids import NONE, markdown_table, number, pair, percent

Content = Mapping[str, Any]


def to_markdown(content: Content) -> str:
    """The tables of a model card.

    Args:
        content: of card.json, see `write.write_card`.
    """
    parts = [_weights(content), _data(content), _results(content), _calibration(content)]
    parts += [
        _circumference(content),
        _areas(content),
        _positions(content),
        _failures(content),
        known_to_markdown(content["known"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _weights(content: Content) -> str:
    weights = content["weights"]
    rows = [[key, _text(value)] for key, value in weights.items() if not isinstance(value, Mapping)]
    halved = weights.get("halved")
    if halved:
        lost = min(row["difference"] for row in halved["mean_dice"].values())
        rows += [
            ["greatest loss of a task by half precision, Dice", f"{-min(lost, 0.0):.4f} ({halved['measured_on']})"],
            [
                "largest difference of a probability by half precision",
                f"{halved['largest_probability_difference']:.1e}",
            ],
        ]
    return "### Weights\n\n" + markdown_table(["fact", "value"], rows)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return NONE if value is None else str(value)


def _data(content: Content) -> str:
    data = content["data"]
    head = ["task", "source", "train", "validation", "test", "groups"]
    rows = [[row["task"], row["source"], *(str(row[key]) for key in head[2:])] for row in data["tasks"]]
    facts = (
        f"Hash of the split (sha256 of the datalist): `{data['datalist_sha256']}`, the one of the training. Images with a "
        "mask; no group (patient, examination or video) is in two splits."
    )
    return f"### Data\n\n{facts}\n\n" + markdown_table(head, rows)


def _results(content: Content) -> str:
    external = {row["task"]: row for row in content["external"]["table"]} if content["external"] else {}
    head = ["task", "n", "groups", "missed", "Dice % [95 % CI]", "IoU % [95 % CI]", "HD95 px, hits / all"]
    head += ["external n", "external Dice % [95 % CI]"] if external else []
    rows = []
    for row in content["test"]["table"]:
        cells = [str(row[key]) for key in ("task", "n", "groups", "missed")]
        cells += [percent(row, "dice"), percent(row, "iou"), pair(row, "hd95_px")]
        if external:
            other = external.get(row["task"]) if row["task"] != "mean" else None
            cells += [str(other["n"]), percent(other, "dice")] if other else [NONE, NONE]
        rows.append(cells)
    text = (
        "Test split, at the pictures' own size; intervals over groups, none below 10 of them. HD95: over the cases that were "
        "found, and with each miss counted as the image diagonal."
    )
    if external:
        text += (
            f" External: {content['external']['sources']}, never trained or selected on; no mean, as tasks are missing."
        )
    return f"### Results\n\n{text}\n\n" + markdown_table(head, rows)


def _calibration(content: Content) -> str:
    found = content["calibration"]
    head = ["task", "images", "ECE %", "ECE % scaled", "mean gap of bins %", "mean gap % scaled"]
    rows = []
    for task, part in found["tasks"].items():
        cells = [
            part[kind] and part[kind][key]
            for key in ("expected_error", "average_error")
            for kind in ("plain", "scaled")
        ]
        rows.append([task, str(part["images"]), *(number(value, 100, 2) for value in cells)])
    fitted = (
        f"One temperature, {found['temperature']:.3f}, fitted on {found['fitted_images']} validation images; above 1, the "
        "probabilities are too sure of themselves. It changes no mask."
    )
    text = f"Expected calibration error of the pixels on the test split, in {found['bins']} bins. {fitted}"
    return f"### Calibration\n\n{text}\n\n" + markdown_table(head, rows)


def _circumference(content: Content) -> str:
    found = content["head_circumference"]
    if not found:
        return ""
    head = ["masks", "n", "mean absolute error", "median", "bias ± SD", "95 % limits of agreement"]
    rows = []
    for name, row in found.items():
        error = f"{row['mean_absolute']:.1f} mm ({row['mean_absolute_percent']:.1f} %)"
        cells = [f"{row['n']} of {row['of']}", error, f"{row['median_absolute']:.1f} mm"]
        spread = "" if row["sd"] is None else f" ± {row['sd']:.1f}"
        limits = NONE if row["limits"] is None else "{:+.1f} to {:+.1f} mm".format(*row["limits"])
        rows.append([name, *cells, f"{row['bias']:+.1f}{spread} mm", limits])
    text = "Circumference of the ellipse fitted to each mask against the published one (`hc_mm`), test split."
    return f"### Head circumference\n\n{text}\n\n" + markdown_table(head, rows)


def _areas(content: Content) -> str:
    row = content["left_ventricle_area"]
    if not row["n"]:
        return ""
    spread = "" if row["sd"] is None else f" ± {row['sd']:.1f}"
    return (
        "### Left-ventricular area\n\n"
        f"Predicted area in percent of the reference's, {row['n']} images of the test split: mean {row['mean']:.1f}{spread} "
        f"(SD), median {row['median']:.1f}; 95 % of the images lie between {row['low']:.1f} and {row['high']:.1f}."
    )


def _positions(content: Content) -> str:
    if not content["positions"]:
        return ""
    rows = [
        [row["task"], str(row["n"]), str(row["groups"]), percent(row, "dice"), percent(row["transposed"], "dice")]
        for row in content["positions"]
    ]
    text = (
        "The pictures of the test split as they are, and transposed (rows and columns exchanged): hearts of this data set "
        "lie on their side, those of most others have the apex at the top."
    )
    head = ["task", "n", "groups", "as they are, Dice % [95 % CI]", "transposed, Dice % [95 % CI]"]
    return f"### Hearts in both positions\n\n{text}\n\n" + markdown_table(head, rows)


def _failures(content: Content) -> str:
    rows = [
        [row["task"], str(row["n"]), str(row["failed"]), *(str(row[kind]) for kind in KINDS), _worst(row["worst"])]
        for row in content["failures"]
    ]
    text = (
        f"Cases of the test split with a Dice below {FAILED}. Elsewhere: no pixel in common; too large: at least {LARGER} "
        f"times the reference's area, too small: at most 1/{LARGER} of it."
    )
    return f"### Failures\n\n{text}\n\n" + markdown_table(["task", "n", "failed", *KINDS, "worst (Dice %)"], rows)


def known_to_markdown(found: Content | None) -> str:
    """The section about the scores, from `recognition.score_known`; empty where there are none."""
    if not found:
        return ""
    about = found["about"]
    head = ["task", "present", "groups", "absent", "AUROC [95 % CI]", "absent found %", "false alarms %"]
    head += ["external n", "external false alarms %"]
    presence = []
    for row in found["presence"]:
        counts = [str(row[key]) for key in ("present", "groups", "absent")]
        cells = [_auroc(row), number(row["detected"], 100), number(row["false_alarms"], 100)]
        presence.append([row["task"], *counts, *cells, str(row["external"]), number(row["external_false_alarms"], 100)])
    usual = [
        [f"{row['organ']}, {row['source']}", str(row["n"]), str(row["groups"]), number(row["warned"], 100)]
        for row in found["usual"]
    ]
    foreign = [[row["kind"], str(row["n"]), _auroc(row), number(row["warned"], 100)] for row in found["foreign"]]
    foreign += [
        [f"{organ}, left out of the scores", str(row["n"]), number(row["auroc"], digits=3), number(row["warned"], 100)]
        for organ, row in about["left_out"].items()
    ]
    parts = [
        "### Absent targets and foreign pictures",
        f"Scores of `known.safetensors` (sha256 `{found['sha256']}`), fitted on {about['train']} train and "
        f"{about['validation']} validation pictures, at most {100 * about['rate']:.0f} % of which each warning may be "
        "false for. Each test picture was also asked for the targets of all other organs, and should be called absent; "
        "targets of one organ are not told apart. Intervals over groups.",
        markdown_table(head, presence),
        "Pictures called foreign that must not be: the test split, and pictures from other hospitals.",
        markdown_table(["organ, source", "n", "groups", "called foreign %"], usual),
        "Foreign pictures, against the test split (intervals as if each foreign picture were a patient); and validation "
        "pictures of an organ that was left out of the scores, against the rest, although the encoder was trained on them.",
        markdown_table(["kind", "n", "AUROC [95 % CI]", "called foreign %"], foreign),
    ]
    return "\n\n".join(parts)


def _auroc(row: Content) -> str:
    mean, low, high = (number(row[f"auroc{end}"], digits=3) for end in ("", "_low", "_high"))
    return mean if low == NONE else f"{mean} [{low}, {high}]"


def _worst(cases: list[dict[str, Any]]) -> str:
    return ", ".join(f"{row['case'].split('/')[-1]} ({100 * row['dice']:.0f})" for row in cases) or NONE
