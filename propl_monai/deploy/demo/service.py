"""`Service`: what the page asks for, as calls. Knows the opened files and the network; knows nothing of HTTP."""

from __future__ import annotations

import secrets
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from propl_monai.common.spacing import Spacing
from propl_monai.deploy.demo.saving import formats_of, save
from propl_monai.deploy.demo.study import Found, Study, open_study, pack
from propl_monai.deploy.demo.typed import spacing_of, task_of
from propl_monai.errors import ProPLError
from propl_monai.images import Picture
from propl_monai.images.write import png
from propl_monai.inference.known import Scores
from propl_monai.inference.measurements import measure
from propl_monai.inference.prediction import LARGEST_DEVIATION
from propl_monai.inference.predictor import Predictor
from propl_monai.tasks import Task, known

MOST_UPLOAD = 128_000_000  # bytes of a file
MOST_STUDIES = 8  # open at once, in all pages
MOST_KEPT = 2_000_000_000  # bytes of the frames of all opened files
FORGET_AFTER = 600.0  # seconds without a sign of the page, as after a crash of the browser
TOGETHER = 8  # frames of a cine in one answer, so that the page can show how far it is


class Gone(ProPLError):
    """A file that is not open any more."""


class Service:
    """Opens files, segments, measures, saves. Threads may share it; the network works for one at a time.

    Args:
        predictor: that segments.
        folder: for files that are on disk for as long as they are decoded.
        clock: seconds that never run backwards.
    """

    def __init__(self, predictor: Predictor, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.predictor, self.folder, self._clock = predictor, folder, clock
        self._studies: dict[str, Study] = {}  # the one heard of last is the last
        self._lock, self._work = threading.Lock(), threading.Lock()

    def about(self) -> dict[str, Any]:
        """The targets and limits that the page shows."""
        tasks = [task for task in known() if task.name in self.predictor.tasks]
        shown = [{"code": task.code, "name": task.name, "organ": task.organ, "colour": task.colour} for task in tasks]
        return {"tasks": shown, "most_upload": MOST_UPLOAD, "largest_deviation": LARGEST_DEVIATION}

    # --- files

    def open(self, content: bytes, name: str) -> dict[str, Any]:
        """Open a file; the answer holds the key of all further calls."""
        with self._work:
            study = open_study(content, name, self.folder)
        key = secrets.token_urlsafe(16)
        with self._lock:
            study.seen = self._clock()
            self._studies[key] = study
            while len(self._studies) > MOST_STUDIES or self._kept() > max(MOST_KEPT, study.bytes):
                self._studies.pop(next(iter(self._studies)))
        height, width = study.size
        spacing = {"spacing_mm": study.spacing_mm, "spacing_note": study.spacing_note}
        about = {"study": key, "name": study.name, "frames": len(study.frames), "height": height, "width": width}
        return {**about, **spacing, "formats": formats_of(study)}

    def _kept(self) -> int:
        return sum(study.bytes for study in self._studies.values())

    def study(self, key: str) -> Study:
        """The opened file of a key; this is also a sign that its page is still there."""
        with self._lock:
            if (study := self._studies.pop(key, None)) is None:
                fact = "is not open any more: its page was away for too long, or many others were opened"
                raise Gone("this file", fact, "open it again")
            study.seen = self._clock()
            self._studies[key] = study
        return study

    def alive(self, key: str) -> None:
        """Take note that the page is still there."""
        self.study(key)

    def close(self, key: str) -> None:
        """Forget a file and all masks on it."""
        with self._lock:
            self._studies.pop(key, None)

    def forget_old(self) -> None:
        """Forget files whose page was not heard of for long."""
        with self._lock:
            oldest = self._clock() - FORGET_AFTER
            self._studies = {key: study for key, study in self._studies.items() if study.seen >= oldest}

    def picture(self, key: str, number: int) -> bytes:
        """A frame as PNG."""
        return png(self.study(key).frame(number), effort=1)

    # --- masks

    def segment(self, key: str, text: str, number: int, uncertainty: bool, spacing: str) -> dict[str, Any]:
        """Segment a frame, unless it was before; a mask that was corrected stays as it is.

        Args:
            key: of an opened file.
            text: a task, by name, code or in a sentence.
            number: of the frame, from 1.
            uncertainty: add the uncertainty.
            spacing: that the user typed.

        Returns:
            The task's code; "mask", base64 of the packed bits of (H, W); "deviation", base64 of bytes (H, W), or None;
            "measured", see `measured`; "doubt", see `doubt`.
        """
        study = self.study(key)
        task, given = self._task(text), spacing_of(spacing)
        with self._work:
            found = study.found.get((task.name, number))
            if found is None or (uncertainty and found.deviation is None):
                found = self._predicted(study, task, number, uncertainty, found)
        bits = np.packbits(study.mask(task, number)).tobytes()
        deviation = None if found.deviation is None or not uncertainty else b64encode(found.deviation).decode()
        answer = {"code": task.code, "mask": b64encode(bits).decode(), "deviation": deviation}
        return {**answer, "measured": measured(study, task, number, given), "doubt": doubt(task, found.scores)}

    def _predicted(self, study: Study, task: Task, number: int, uncertainty: bool, before: Found | None) -> Found:
        prediction = self.predictor(Picture(study.frame(number), study.spacing_mm), task.name, uncertainty)
        found = before or Found(pack(prediction.mask), scores=prediction.scores)
        if prediction.uncertainty is not None:
            found.deviation = np.rint(prediction.uncertainty * (255 / LARGEST_DEVIATION)).astype(np.uint8).tobytes()
        study.found[task.name, number] = found
        return found

    def segment_on(self, key: str, codes: Sequence[str], first: int) -> dict[str, Any]:
        """Segment the next few frames of a cine, from `first` on, that are not segmented for all these tasks.

        Returns:
            "next", the number of the frame to go on with; None where none is left.
        """
        study, tasks = self.study(key), [self._task(code) for code in codes]
        with self._work:
            numbers = study.missing(tasks, first)[:TOGETHER] if tasks else []
            pictures = [Picture(study.frame(number), study.spacing_mm) for number in numbers]
            names = [task.name for task in tasks]
            answers = self.predictor.predict(pictures, names) if numbers else []
            for number, predictions in zip(numbers, answers, strict=True):
                for task, prediction in zip(tasks, predictions, strict=True):
                    found = Found(pack(prediction.mask), scores=prediction.scores)
                    study.found.setdefault((task.name, number), found)
        left = study.missing(tasks, numbers[-1] + 1) if numbers else []
        return {"next": left[0] if left else None}

    def edit(self, key: str, code: str, number: int, bits: bytes, spacing: str) -> dict[str, Any]:
        """Take over a mask that was corrected by hand: packed bits of (H, W)."""
        study, task, given = self.study(key), self._task(code), spacing_of(spacing)
        before = study.mask(task, number)
        if len(bits) != (before.size + 7) // 8:
            raise ProPLError(study.name, f"a mask of {len(bits)} bytes came", "load the page again")
        flat = np.unpackbits(np.frombuffer(bits, np.uint8), count=before.size)
        found = study.found[task.name, number]
        found.bits, found.edited = pack(flat.reshape(before.shape).astype(bool)), True
        return measured(study, task, number, given)

    def measure(self, key: str, codes: Sequence[str], number: int, spacing: str) -> list[dict[str, Any]]:
        """Measure the masks of a frame again, with another pixel size."""
        study, given = self.study(key), spacing_of(spacing)
        return [measured(study, self._task(code), number, given) for code in codes]

    def save(self, key: str, codes: Sequence[str], form: str, number: int, spacing: str) -> tuple[str, bytes]:
        """Name and content of a file to download, see `saving.save`."""
        study, given = self.study(key), spacing_of(spacing) or self.study(key).spacing_mm
        return save(study, [self._task(code) for code in codes], form, number, given, self.folder)

    def _task(self, text: str) -> Task:
        return task_of(text, self.predictor.tasks)


def measured(study: Study, task: Task, number: int, given: Spacing | None) -> dict[str, Any]:
    """The fields of `Measurements`, the task's code, whether the mask was corrected, and in words where mm come from."""
    spacing = given or study.spacing_mm
    row = asdict(measure(study.mask(task, number), spacing, task.name))
    if spacing is None:
        source = f"In pixels: {study.spacing_note or 'the file does not say how large a pixel is'}."
    else:
        source = f"In mm: a pixel is {spacing[0]:.4g} × {spacing[1]:.4g} mm, " + (
            "as typed" if given else "by the file"
        )
        source += f" ({study.spacing_note})." if study.spacing_note and not given else "."
    edited = study.found[task.name, number].edited
    return {**row, "code": task.code, "edited": edited, "source": source}


def doubt(task: Task, scores: Scores | None) -> dict[str, Any] | None:
    """What the scores say, as `propl predict` does: the four values, and "text"; None for weights without scores."""
    if scores is None:
        return None
    known, presence = f"known {scores.known:.2g}", f"presence {scores.presence:.2g}"
    said = []
    if scores.foreign:
        said.append(f"Not my kind of picture? It looks foreign, of no kind that the network was trained on ({known}).")
    if scores.absent:
        said.append(f"Not there? The {task.name} looks absent ({presence}).")
    text = " ".join(said) or f"A picture of a known kind ({known}) that shows the {task.organ} ({presence})."
    return {**asdict(scores), "text": text}
