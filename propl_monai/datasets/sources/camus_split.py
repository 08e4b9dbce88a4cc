"""The official split of CAMUS by patient, as it comes with the form of 2023 in `database_split/subgroup_*.txt`.

`information.txt` there says that it is the split of the paper with "a few corrections". The lists are kept here too, so that
the challenge's form, which comes without them, is split alike.
"""

from __future__ import annotations

import re
from pathlib import Path

from propl_monai.errors import ProPLError

PATIENT = re.compile(r"patient\d{4}", re.ASCII)
# subgroup_validation.txt and subgroup_testing.txt of database_split; the other patients of 1 to 500 are for training.
# fmt: off
VALIDATION_PATIENTS = (
    200, 206, 230, 232, 233, 235, 236, 244, 245, 247, 249, 250, 253, 255, 256, 257, 259, 264, 265, 267, 268, 270, 271, 272,
    279, 280, 282, 283, 284, 286, 287, 288, 289, 290, 291, 292, 294, 297, 298, 299, 303, 304, 305, 308, 314, 315, 328, 333,
    334, 341,
)
TEST_PATIENTS = (
    27, 47, 51, 52, 187, 189, 191, 194, 197, 199, 201, 208, 213, 214, 215, 217, 218, 219, 220, 221, 223, 224, 225, 226, 227,
    228, 231, 234, 237, 238, 239, 240, 241, 242, 243, 246, 248, 251, 252, 254, 258, 260, 261, 262, 263, 266, 269, 273, 275,
    276,
)
# fmt: on
PATIENTS = 500
SPLIT_OF_WORD = {"training": "train", "validation": "validation", "testing": "test"}


def official_splits(folder: Path) -> dict[str, str]:
    """Which split the publishers put each patient in.

    Args:
        folder: `database_split` of the download; the lists below are used when it is not there.

    Returns:
        Patient to `train`, `validation` or `test`.
    """
    if not folder.is_dir():
        held_out = dict.fromkeys(VALIDATION_PATIENTS, "validation") | dict.fromkeys(TEST_PATIENTS, "test")
        return {f"patient{number:04d}": held_out.get(number, "train") for number in range(1, PATIENTS + 1)}
    splits: dict[str, str] = {}
    for word, split in SPLIT_OF_WORD.items():
        path = folder / f"subgroup_{word}.txt"
        if not path.is_file():
            raise ProPLError(path, "is missing", f"download {folder.name} again, or remove it to use the lists of 2023")
        for name in path.read_text(encoding="utf-8", errors="replace").split():
            if not PATIENT.fullmatch(name):
                raise ProPLError(path, f"holds '{name[:40]}', not a patient such as patient0001", "download it again")
            if splits.setdefault(name, split) != split:
                raise ProPLError(path, f"names {name}, which is in {splits[name]} too", "download the lists again")
    return splits
