"""Which cases a run works on: labelled, unlabelled and validation for training; one split for evaluation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from propl_monai.cases import Case
from propl_monai.datalist import Datalist, as_items
from propl_monai.errors import ProPLError
from propl_monai.options import switch
from propl_monai.ranks import is_writer
from propl_monai.sources import read_source
from propl_monai.splits import labelled_images
from propl_monai.verify import require_files

DATALIST = "datalist.json"
logger = logging.getLogger(__name__)


def open_datalist(dataset_dir: str, datalist_file: str | None, output_dir: str, tasks: Sequence[str]) -> Datalist:
    """The datalist of a run, whole, with every file of its tasks checked.

    Args:
        dataset_dir: folder of the images.
        datalist_file: a datalist of that folder; None builds one from the layout
            `<TASK>/<SOURCE>/{images,masks}` and writes it to `output_dir`.
        output_dir: folder of the run.
        tasks: names of tasks; those that the data lack are left out.

    Raises:
        ProPLError: no such folder or file, a broken rule, a missing or unfitting file, or no case of these tasks.
    """
    if not Path(dataset_dir).is_dir():
        cure = "give --dataset_dir, or set PROPL_DATA; `propl phantoms FOLDER` makes a folder to try"
        raise ProPLError(dataset_dir, "is not a folder", cure)
    if datalist_file:
        datalist = Datalist.read(datalist_file, dataset_dir)
    else:
        datalist = read_source("folder", dataset_dir)
        if is_writer():
            datalist.write(Path(output_dir) / DATALIST)
    require_files(datalist.select(tasks=tasks))
    return datalist


class TrainingCohort:
    """The cases that a training may see. Test cases never enter.

    Args:
        dataset_dir, datalist_file, output_dir, tasks: see `open_datalist`.
        labelled_fraction: share of the train images whose masks are used, such as "1/8".
        use_unlabelled: false trains on the labelled images alone.

    Attributes:
        labelled, unlabelled, validation: MONAI items, see `datalist.as_items`; unlabelled ones have no "label".
        counts: how many of each.
        inputs: the datalist file.
        sha256: of the datalist.

    Raises:
        ProPLError: see `open_datalist`; or no train image has a mask.
    """

    def __init__(
        self,
        dataset_dir: str,
        datalist_file: str | None,
        output_dir: str,
        tasks: Sequence[str],
        labelled_fraction: str | float = "1/8",
        use_unlabelled: bool = True,
    ) -> None:
        datalist = open_datalist(dataset_dir, datalist_file, output_dir, tasks)
        self.inputs = [str(datalist_file or Path(output_dir) / DATALIST)]
        self.sha256 = datalist.sha256
        # Over all tasks, so that an image is labelled for one task where it is for another, whatever tasks are trained.
        chosen = labelled_images(datalist.cases, labelled_fraction)
        datalist = datalist.select(tasks=tasks)
        train = [case for case in datalist.cases if case.split == "train"]
        if not any(case.case_id in chosen for case in train):
            raise ProPLError(
                datalist.name, "holds no train case with a mask", "add labelled images, or check the splits"
            )

        def items(cases: list[Case]) -> list[dict]:
            return as_items(cases, datalist.root)

        self.labelled = items([case for case in train if case.case_id in chosen])
        wanted = switch("use_unlabelled", use_unlabelled)
        rest = items([case for case in train if wanted and case.case_id not in chosen])
        self.unlabelled = [{key: value for key, value in item.items() if key != "label"} for item in rest]
        self.validation = items([case for case in datalist.cases if case.split == "validation" and case.mask])
        self.counts = {name: len(getattr(self, name)) for name in ("labelled", "unlabelled", "validation")}
        logger.info("%s: %s", datalist.name, "  ".join(f"{name} {count}" for name, count in self.counts.items()))


def evaluation_items(datalist: Datalist, split: str = "test", tasks: Sequence[str] | None = None) -> list[dict]:
    """The cases of one split, and of some tasks or all, that have a mask, as MONAI items.

    Raises:
        ProPLError: no such split, or no case with a mask in it.
    """
    cases = [case for case in datalist.select(split, tasks).cases if case.mask]
    if not cases:
        raise ProPLError(datalist.name, f"no {split} case has a mask", "choose another split, or add masks")
    return as_items(cases, datalist.root)
