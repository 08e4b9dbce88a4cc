"""`propl predict`: masks of files, folders and cines. A bad file does not stop the rest; a second run skips what is done.

Several threads share the work: one reads and resizes the next pictures, the caller's runs the network, a few resize maps and
write masks, most of the time waiting for the disk, and one notes what is written, in the order of the files.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from propl_monai.common.files import file_sha256, sweep_orphans
from propl_monai.common.packaged_bundle import KNOWN
from propl_monai.common.run_record import JOURNAL, RunRecord, refuse_other_run
from propl_monai.errors import ProPLError
from propl_monai.images import MAX_PIXELS, Cine, Picture, read_frames, to_grey
from propl_monai.images.picture import NoPicture, holds_two_values
from propl_monai.inference.cines.steady import Steady, require_steady
from propl_monai.inference.formats.masks import Masks
from propl_monai.inference.formats.registry import PNG, find_formats, format_names
from propl_monai.inference.inputs import InputFile, find_inputs, refuse_foreign_files
from propl_monai.inference.journal import Journal
from propl_monai.inference.measurements import MEASUREMENTS, Spacing, require_spacing
from propl_monai.inference.output_folder import Outcome, OutputFolder, Stored
from propl_monai.inference.prediction import Prediction
from propl_monai.inference.predictor import Predictor, Prepared
from propl_monai.inference.shards import Shard, files_of_shards, lock_results
from propl_monai.inference.threads import BackgroundWriter, prefetch
from propl_monai.tasks import find_all

WRITERS = 4  # threads that write masks: a disk that is told to keep a file at once takes several as soon as one
DARK = 16  # of 255; a picture of tissue has brighter pixels
logger = logging.getLogger(__name__)


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
    formats: str | Sequence[str] = PNG,
    spacing_mm: Spacing | None = None,
    overwrite: bool = False,
    strict: bool = False,
    steady: float = 0.0,
    shard: Shard | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Segment files, folders (however deep) and cines (each frame), all formats of `propl_monai.images`.

    The results of a picture `a/b.png` are `a/b_<task>.png` and what `prediction.write_predictions` writes beside it; those
    of a cine are `b_frame_0001_<task>.png` and so on; those in other formats are told in `propl_monai.inference.formats`.
    `predictions.jsonl` lists what is done; run.json describes the run.

    A file is skipped when it was predicted before from the same bytes, with the same settings and outputs. A folder that
    holds results of other settings (weights, decoder, threshold, tta, spacing) is refused; other tasks or outputs are
    added, and leave the results that are there as they are. So is a folder with a file of such a name that is no result.
    In folders, DICOM files that hold no picture, such as reports, are passed over and counted by kind.

    Frames of several files share a batch, and the network rounds differently in batches of another size: compared with
    files predicted one by one, or in another run, a probability or variance differs by less than 1e-5, and a mask only at
    pixels this close to the threshold.

    Weights with `known.safetensors` beside them give scores, see `propl_monai.inference.known`: pictures of no known kind
    and targets that look absent are named in run.json, counted in the log, and marked in measurements.csv.

    Args:
        predictor: with its own decoder, threshold, tta and batch.
        inputs: files and folders.
        output_dir: created; sub-folders of the inputs are kept in it.
        tasks: names, codes or slugs.
        probability, uncertainty, overlay: what to write beside masks.
        measurements: write measurements.csv, see `propl_monai.inference.measurements`, and of each cine the area curve.
        formats: of the masks: names of `formats.registry`, any number of them, as a list or separated by commas.
        spacing_mm: height and width of a pixel, whatever the files hold; None takes theirs.
        overwrite: overwrite results made with other settings.
        strict: write no mask of a target that looks absent, nor of a picture of no known kind; a file without any mask left
            is refused.
        steady: of cines, the standard deviation in frames of a Gaussian over the probabilities of the frames around each; 0
            for none.
        shard: predict only this part of the files, beside other processes with other shards; journal, run.json,
            measurements.csv and the formats' files for the whole folder go to `shard.folder`. A later run without it takes
            over the journals of all shards.
        progress: called with (files done, files in all), from another thread.
    """
    options = {"tasks": list(dict.fromkeys(predictor.names(tasks))), "probability": probability}
    options |= {"uncertainty": uncertainty, "overlay": overlay, "measurements": measurements}
    chosen = format_names(formats)
    if chosen != [PNG]:  # so that journals from before there were formats go on
        options["formats"] = chosen
    if uncertainty:
        predictor.require_uncertainty()
    if predictor.known:
        options["scores"] = predictor.known.sha256
    elif strict:
        raise ProPLError("strict", f"these weights come without scores ({KNOWN})", "fit them with `propl known`")
    options |= {"strict": True} if strict else {}
    spacing, deviation = require_spacing(spacing_mm), require_steady(steady)
    output = Path(output_dir)
    files = [file for file in find_inputs(inputs, output_dir, cines=True) if shard is None or shard.holds(file[1])]
    whole = [MEASUREMENTS] * measurements + [one.shared for one in find_formats(chosen) if one.shared]
    with lock_results(output, shard):
        refuse_other_run(output / "run.json", "predict")
        if not overwrite:
            refuse_foreign_files(output, (name for _, name in files), predictor.names(tasks), whole)
        settings = {**predictor.settings, "spacing_mm": spacing} | ({"strict": True} if strict else {})
        settings |= {"steady": deviation} if deviation else {}  # so that journals from before there was a filter go on
        journal = _journal(output, settings, overwrite, shard)
        # Temporary files in the output folder may belong to another shard at work.
        for folder in {(output / name).parent for _, name in files} if shard is None else [shard.folder(output)]:
            with suppress(OSError):  # the results of these files will be refused, too
                sweep_orphans(folder)
        about = {"predictor": predictor.about, "device": str(predictor.device), "batch": predictor.batch}
        about["engine"] = predictor.engine_of(uncertainty)
        about |= {} if shard is None else {"shard": str(shard)}
        about = {"inputs": [str(path) for path in inputs], **options, **settings, **about}
        record = RunRecord(journal.path.with_name("run.json"), "predict", about)
        results = OutputFolder(output, options, record, len(files), journal, progress)
        return _Run(predictor, inputs, options, spacing, results, journal, deviation, not overwrite).all(files)


def _journal(output: Path, settings: dict[str, Any], overwrite: bool, shard: Shard | None) -> Journal:
    """The journal of a run: a shard skips what a run of all files did; a run of all files takes over those of shards."""
    path = output / JOURNAL
    if shard is not None:
        return Journal(shard.folder(output) / JOURNAL, settings, overwrite, output, [path], shard.holds)
    parts = files_of_shards(output, JOURNAL)
    journal = Journal(path, settings, overwrite, others=parts)
    for part in parts:
        part.unlink()
    return journal


@dataclass(frozen=True)
class _Frame:
    """A frame that was read; `below` is the picture for its overlay, None for no overlay."""

    file: InputFile
    number: int
    prepared: Prepared
    below: np.ndarray | None


_Kept = tuple[_Frame, np.ndarray | None]  # and its pooled features
_Step = _Frame | Callable[[], None]  # of a file without frames to segment: a call that notes it when it is its turn


@dataclass(frozen=True)
class _Run:
    """One call of `predict_paths`."""

    predictor: Predictor
    inputs: Sequence[str | Path]
    options: dict[str, Any]
    spacing: Spacing | None
    results: OutputFolder
    journal: Journal
    steady: float = 0.0
    keep: bool = True  # results of an earlier run for fewer tasks or outputs
    windows: dict[Path, Steady[_Kept]] = field(default_factory=dict)  # of the cine that is being written
    notes: defaultdict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))  # and the files concerned

    def all(self, files: Sequence[tuple[Path, str]]) -> Outcome:
        self.results.record.write("running")
        try:
            groups = prefetch(self._grouped(self._read(files)))
            with BackgroundWriter(self.predictor.batch, WRITERS) as writer, closing(groups):
                for group in groups:
                    self._segment(group, writer)
            for note, paths in self.notes.items():
                logger.warning("%s%s: %s", paths[0], f" and {len(paths) - 1} more" * (len(paths) > 1), note)
            return self.results.finish()
        except BaseException as error:  # Ctrl-C and a full disk too leave a run.json that says so
            self.results.fail(error)
            raise

    def _read(self, files: Sequence[tuple[Path, str]]) -> Iterator[_Step]:
        for path, name in files:
            try:
                yield from self._frames_of(path, name)
            except NoPicture as error:
                named = any(path.samefile(given) for given in self.inputs)
                pass_over, reason = self.results.pass_over, error.fact
                yield (
                    partial(self.results.refuse, path, f"{reason}; {error.cure}")
                    if named
                    else partial(pass_over, reason)
                )
            except ProPLError as error:
                yield partial(self.results.refuse, path, f"{error.fact}; {error.cure}")

    def _frames_of(self, path: Path, name: str) -> Iterator[_Step]:
        sha256 = file_sha256(path)
        if entry := self.journal.done(name, sha256, self.options):
            yield partial(self.results.skip, path, entry)
            return
        cine = read_frames(path)
        spacing = self.spacing or cine.spacing_mm
        masks = self._masks(path, name, cine, spacing)
        file = InputFile(path, name, sha256, cine.count, masks, cine.seconds_per_frame)
        if self.keep:
            file.there = self.journal.results(name, sha256)
        if spacing is None and self.options["measurements"]:
            self.notes[f"lengths are in pixels: {cine.spacing_note or 'the pixel size is unknown'}"].append(path)
        elif cine.spacing_mm not in (None, spacing):
            self.notes["the given pixel spacing is used, not that of the file"].append(path)
        elif cine.spacing_note and not self.spacing and self.options["measurements"]:
            self.notes[cine.spacing_note].append(path)
        if cine.orientation != 1:
            self.notes["turned upright, as its EXIF orientation says, and so is its mask"].append(path)
        brightest, box = 0, self.predictor.box_of(cine)
        for number, pixels in enumerate(cine, start=1):
            brightest = max(brightest, int(pixels.max()))
            if cine.count == 1 and holds_two_values(pixels):
                self.notes["holds two values only, as a mask does: see that it is a picture"].append(path)
            prepared = self.predictor.prepare(Picture(pixels, spacing), self.options["uncertainty"], box)
            yield _Frame(file, number, prepared, to_grey(pixels) if self.options["overlay"] else None)
        if brightest < DARK:
            self.notes[f"nearly black, no pixel reaches {DARK} of 255: see that the file holds what you expect"].append(
                path
            )

    def _masks(self, path: Path, name: str, cine: Cine, spacing: Spacing | None) -> Masks | None:
        """What formats other than PNG are written from; refuses a file that one of them cannot carry."""
        if not (formats := self.results.formats):
            return None
        for one in formats:
            one.check(path, name)
        place = (spacing, cine.seconds_per_frame, cine.geometry, cine.orientation)
        return Masks(path, name, cine.count, find_all(self.options["tasks"]), *place)

    def _grouped(self, items: Iterator[_Step]) -> Iterator[list[_Step]]:
        """Groups of one batch, smaller where the pictures that overlays need are large."""
        group: list[_Step] = []
        pixels = 0
        for item in items:
            group.append(item)
            pixels += item.below.size if isinstance(item, _Frame) and item.below is not None else 0
            if len(group) == self.predictor.batch or pixels > MAX_PIXELS:
                yield group
                group, pixels = [], 0
        if group:
            yield group

    def _segment(self, group: Sequence[_Step], writer: BackgroundWriter) -> None:
        """Run the network on the frames of a group, and have everything written in order."""
        frames = [item.prepared for item in group if isinstance(item, _Frame)]
        options = self.options["tasks"], self.options["uncertainty"]
        maps, pooled = self.predictor.answer(frames, *options) if frames else ((), None)
        answers = zip(maps, repeat(None) if pooled is None else pooled, strict=False)
        for item in group:
            if isinstance(item, _Frame) and self.steady and item.file.count > 1:
                writer(self._write_steadied, item, *next(answers))
            elif isinstance(item, _Frame):
                writer.after(self._store, item, *next(answers), work=partial(self._note, item))
            else:
                writer(item)

    def _store(
        self, frame: _Frame, maps: Any, pooled: np.ndarray | None
    ) -> tuple[list[Prediction], Stored | ProPLError]:
        predictions = self._finish(frame, maps, pooled)
        return predictions, self.results.store(frame.file, frame.number, predictions, frame.below)

    def _note(self, frame: _Frame, found: tuple[list[Prediction], Stored | ProPLError]) -> None:
        self.results.note(frame.file, frame.number, *found)

    def _write_steadied(self, frame: _Frame, maps: Any, pooled: np.ndarray | None) -> None:
        """Write the frames of a cine whose neighbours are all there, in order."""
        path = frame.file.path
        if frame.number == 1:
            self.windows.clear()  # of a cine that broke off
            self.windows[path] = Steady(self.steady, len(self.options["tasks"]))
        ready = list(self.windows[path].push((frame, pooled), maps))
        if frame.number == frame.file.count:
            ready += self.windows.pop(path).flush()
        for (earlier, its), steadied in ready:
            self.results.write(earlier.file, earlier.number, self._finish(earlier, steadied, its), earlier.below)

    def _finish(self, frame: _Frame, maps: Any, pooled: np.ndarray | None) -> list[Prediction]:
        alone = not (self.options["probability"] or self.options["uncertainty"])
        return self.predictor.finish(frame.prepared, maps, self.options["tasks"], pooled, alone)
