"""`propl predict`: masks of files, folders and cines. One bad file stops nothing, and a second run skips what is done.

Three threads share the work: one reads and resizes the next pictures, the caller's own runs the network, one resizes and
writes what is done. Only the last one touches the results and their papers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from propl_monai.common.files import file_sha256, sweep_orphans
from propl_monai.common.run_record import RunRecord
from propl_monai.errors import ProPLError
from propl_monai.images import MAX_PIXELS, Picture, read_frames, to_grey
from propl_monai.inference.inputs import find_inputs
from propl_monai.inference.journal import Journal
from propl_monai.inference.measurements import require_spacing
from propl_monai.inference.output_folder import JOURNAL, RUN, File, Outcome, PredictedFiles
from propl_monai.inference.predictor import Predictor, Prepared
from propl_monai.inference.shards import Shard, lock_results, papers_of_shards
from propl_monai.inference.threads import Behind, ahead

__all__ = ["Outcome", "predict_paths"]
Spacing = tuple[float, float]


def predict_paths(
    predictor: Predictor,
    inputs: Sequence[str | Path],
    output_dir: str | Path,
    tasks: str | Sequence[str],
    *,
    probability: bool = False,
    uncertainty: bool = False,
    overlay: bool = False,
    measurements: bool = False,
    spacing_mm: Spacing | None = None,
    overwrite: bool = False,
    shard: Shard | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Segment files, folders (however deep) and cines (each frame), all formats of `propl_monai.images`.

    A picture `a/b.png` becomes `a/b_<task>.png` and what `prediction.write_predictions` writes beside it; the frames of a
    cine become `b_frame_0001_<task>.png` and so on. `predictions.jsonl` remembers what is done, and run.json is written.

    A file is skipped when it was done before from the same bytes, with the same settings and outputs. A folder that holds
    results of other settings (weights, decoder, threshold, tta, spacing) is refused; other tasks or outputs are added.

    Frames of several files share a batch of the network, which rounds differently with what it is given together: against
    files done one by one, or in another run, a probability or variance differs by less than 1e-5, and a mask only at
    pixels that are this near to the threshold.

    Args:
        predictor: with decoder, threshold, tta and batch of its own.
        inputs: files and folders.
        output_dir: made; sub-folders of the inputs are kept in it.
        tasks: names, codes or slugs.
        probability, uncertainty, overlay: what to write beside masks.
        measurements: write measurements.csv, see `propl_monai.inference.measurements`.
        spacing_mm: height and width of a pixel, for files that do not tell theirs.
        overwrite: do again what was done with other settings.
        shard: do these of the files only, beside other processes that do other shards; the papers go to `shard.papers`. A
            later run without it takes the journals of all shards over, and writes the papers of the whole.
        progress: called with (files done, files in all), from a thread of its own.
    """
    asked = {"tasks": list(dict.fromkeys(predictor.names(tasks))), "probability": probability}
    asked |= {"uncertainty": uncertainty, "overlay": overlay, "measurements": measurements}
    if uncertainty:
        predictor.network.require_decoder("sd", "uncertainty")
    spacing = require_spacing(spacing_mm)
    output = Path(output_dir)
    files = [file for file in find_inputs(inputs, output_dir, cines=True) if shard is None or shard.holds(file[1])]
    with lock_results(output, shard):
        settings = {**predictor.settings, "spacing_mm": spacing}
        journal = _journal(output, settings, overwrite, shard)
        # What lies about in the folder of the results may be what another shard is writing.
        for folder in {(output / name).parent for _, name in files} if shard is None else [shard.papers(output)]:
            sweep_orphans(folder)
        about = {"predictor": predictor.about, "device": str(predictor.device), "batch": predictor.batch}
        options = {"inputs": [str(path) for path in inputs], **asked, **settings, **about}
        options |= {} if shard is None else {"shard": str(shard)}
        record = RunRecord(journal.path.with_name(RUN), "predict", options)
        results = PredictedFiles(output, asked, journal, record, len(files), progress)
        return _Run(predictor, asked, spacing, results).all(files)


def _journal(output: Path, settings: dict[str, Any], overwrite: bool, shard: Shard | None) -> Journal:
    """The journal of a run: a shard knows what the whole has done, the whole takes over what its shards have."""
    whole = output / JOURNAL
    if shard is not None:
        return Journal(shard.papers(output) / JOURNAL, settings, overwrite, output, [whole], shard.holds)
    parts = papers_of_shards(output, JOURNAL)
    journal = Journal(whole, settings, overwrite, others=parts)
    for part in parts:
        part.unlink()
    return journal


@dataclass(frozen=True)
class _Frame:
    """A frame that was read; `below` is the picture for its overlay, None where none is asked for."""

    file: File
    number: int
    prepared: Prepared
    below: np.ndarray | None

    @property
    def pixels(self) -> int:
        return 0 if self.below is None else self.below.size


@dataclass(frozen=True)
class _Note:
    """A file that has no frame to segment: a call of `PredictedFiles`, made in its turn."""

    call: Callable[..., None]
    given: tuple[Any, ...]
    pixels: int = 0


class _Run:
    """One call of `predict_paths`."""

    def __init__(
        self, predictor: Predictor, asked: dict[str, Any], spacing: Spacing | None, results: PredictedFiles
    ) -> None:
        self.predictor, self.asked, self.spacing, self.results = predictor, asked, spacing, results

    def all(self, files: Sequence[tuple[Path, str]]) -> Outcome:
        self.results.record.write("running")
        try:
            groups = ahead(self._grouped(self._read(files)))
            with Behind(depth=self.predictor.batch) as later, closing(groups):
                for group in groups:
                    self._segment(group, later)
            return self.results.finish()
        except BaseException as error:  # Ctrl-C and a full disk alike leave papers that say so
            self.results.fail(error)
            raise

    def _read(self, files: Sequence[tuple[Path, str]]) -> Iterator[_Frame | _Note]:
        for path, name in files:
            try:
                yield from self._frames_of(path, name)
            except ProPLError as error:
                yield _Note(self.results.refuse, (path, error))

    def _frames_of(self, path: Path, name: str) -> Iterator[_Frame | _Note]:
        sha256 = file_sha256(path)
        if self.results.journal.done(name, sha256, self.asked):
            yield _Note(self.results.skip, (path, name, sha256))
            return
        cine = read_frames(path)
        file = File(path, name, sha256, cine.count)
        spacing = cine.spacing_mm or self.spacing
        for number, pixels in enumerate(cine, start=1):
            prepared = self.predictor.prepare(Picture(pixels, spacing))
            yield _Frame(file, number, prepared, to_grey(pixels) if self.asked["overlay"] else None)

    def _grouped(self, items: Iterator[_Frame | _Note]) -> Iterator[list[_Frame | _Note]]:
        """In groups of a batch, or fewer where the pictures that overlays need are large."""
        group: list[_Frame | _Note] = []
        for item in items:
            group.append(item)
            if len(group) == self.predictor.batch or sum(one.pixels for one in group) > MAX_PIXELS:
                yield group
                group = []
        if group:
            yield group

    def _segment(self, group: Sequence[_Frame | _Note], later: Behind) -> None:
        """Run the network over the frames of a group, and have all of it written in its order."""
        frames = [item.prepared for item in group if isinstance(item, _Frame)]
        asked = self.asked["tasks"], self.asked["uncertainty"]
        maps = iter(self.predictor.maps(frames, *asked)) if frames else iter(())
        for item in group:
            if isinstance(item, _Frame):
                later(self._write, item, next(maps))
            else:
                later(item.call, *item.given)

    def _write(self, frame: _Frame, maps: Tensor) -> None:
        predictions = self.predictor.finish(frame.prepared, maps, self.asked["tasks"])
        self.results.write(frame.file, frame.number, predictions, frame.below)
