"""Hearts in both positions: those of some archives lie on their side, those of a scanner have the apex at the top."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from propl_monai.evaluation.metrics import case_row
from propl_monai.evaluation.report.collect import Item
from propl_monai.evaluation.summary import summarise
from propl_monai.images import Picture, read_image, read_mask, to_grey
from propl_monai.inference.predictor import Predictor
from propl_monai.tasks import find

ORGAN = "heart"


def both_positions(predictor: Predictor, items: Sequence[Item], step: Callable[[], None]) -> list[dict[str, Any]]:
    """Dice of the heart's targets in pictures as they are, and in the same pictures transposed, which mirrors and turns them.

    Args:
        predictor: with the decoder that its weights chose.
        items: of `datalist.as_items`, each with a label; those of other organs count as nothing.
        step: called after each picture of a heart.

    Returns:
        One row per task: task, n, groups, and "dice" with its interval ("_low", "_high", None below 10 groups) in [0, 1] of
        pictures as they are; the same of transposed ones under "transposed".
    """
    positions: list[list[dict[str, Any]]] = [[], []]
    for item in items:
        if find(item["task"]).organ != ORGAN:
            continue
        grey, mask = to_grey(read_image(item["image"]).pixels), read_mask(item["label"])
        names = {key: item[key] for key in ("task", "source", "group")} | {"case": item["case_id"]}
        for rows, picture, reference in zip(positions, (grey, grey.T), (mask, mask.T), strict=True):
            found = predictor.predict([Picture(np.ascontiguousarray(picture))], [item["task"]])[0][0]
            expected = torch.from_numpy(np.ascontiguousarray(reference))
            rows.append({**names, **case_row(torch.from_numpy(found.mask), expected, None, where=item["case_id"])})
        step()
    if not positions[0]:
        return []
    lying, standing = (summarise(pd.DataFrame(rows)).set_index("task") for rows in positions)
    keys = ("dice", "dice_low", "dice_high")
    return [
        {
            "task": str(task),
            "n": int(line["n"]),
            "groups": int(line["groups"]),
            **{key: line[key] for key in keys},
            "transposed": {key: standing.loc[task, key] for key in keys},
        }
        for task, line in lying.drop("mean").iterrows()
    ]
