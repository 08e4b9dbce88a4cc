"""Minutes of training until the validation mDice is reached: a recipe of this package against the plain released code.

    python -m benchmarks.time_to_accuracy OURS PLAIN [PLAIN …] [--target 0.75] [-o FOLDER]

OURS and PLAIN are folders that `propl train` wrote (docs/speed.md has the commands); those of PLAIN were trained by the
presets compact,released, with one learning rate each. Our step of that recipe gives the losses and gradients of the plain
rebuild of the released code (tests/model/test_released_step.py), so the curve over steps is that of the plain code, and
only its minutes are longer: each step by what the plain step takes beyond ours, which is measured here, in turn.

Minutes are those that the runs took, files, validation and all; run them alone, one after the other, on the same cores.
The first validation at or above the target counts. Writes time_to_accuracy.json and .png beside it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.speed.comparison import Repeats, compare
from benchmarks.speed.workloads import Work
from propl_monai.cli import main
from propl_monai.common.files import write_atomically
from propl_monai.errors import ProPLError


@dataclass(frozen=True)
class Curve:
    """Validation mDice over the minutes of a training.

    Attributes:
        name: of its folder.
        minutes, steps, mdice: one value per validation; mDice of the best decoder, in [0, 1].
    """

    name: str
    minutes: list[float]
    steps: list[int]
    mdice: list[float]

    def reached(self, target: float) -> float | None:
        """Minutes until the target; None if it was never reached."""
        return next((minutes for minutes, dice in zip(self.minutes, self.mdice, strict=True) if dice >= target), None)


def curve_of(run: Path, extra: float = 0.0) -> Curve:
    """The curve of a training folder, each of whose steps takes `extra` seconds more than it did."""
    path = run / "metrics.jsonl"
    if not path.is_file():
        raise ProPLError(path, "does not exist", "give the folder of a training, as `propl train -o` names it")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    seconds, curve = 0.0, Curve(run.name, [], [], [])
    for line in lines:
        seconds += line["seconds"]
        found = line.get("validation")
        if found:
            curve.minutes.append((seconds + extra * line["iteration"]) / 60)
            curve.steps.append(line["iteration"])
            curve.mdice.append(found[found["best_decoder"]])
    if not curve.mdice:
        raise ProPLError(path, "holds no validation", "train with a validation split")
    return curve


def judged(ours: Curve, plain: list[Curve], target: float) -> dict[str, Any]:
    """How many times longer the best of the plain runs takes, or the least that it would if it reached the target at last.

    Returns:
        "minutes" by name of run (None: not reached); "trained" by name; "times": of the fastest plain run that reached the
        target or, if none did, of the run that was tried for the shortest time, with "at_least" true.
    """
    begun = ours.reached(target)
    if begun is None:
        raise ProPLError(ours.name, f"never reached {target}", "train it longer, or give a lower --target")
    reached = {one.name: one.reached(target) for one in plain}
    done = [minutes for minutes in reached.values() if minutes is not None]
    least = min(done) if done else min(one.minutes[-1] for one in plain)
    return {
        "target": target,
        "minutes": {ours.name: begun, **reached},
        "trained": {one.name: one.minutes[-1] for one in (ours, *plain)},
        "times": least / begun,
        "at_least": not done,
    }


def draw(curves: list[Curve], target: float, path: Path) -> None:
    """Learning curves over minutes."""
    from propl_monai.evaluation.figure_style import COLOURS, MARKERS, STYLE, canvas, matplotlib, save

    with matplotlib.rc_context(STYLE):
        figure, (axes,) = canvas()
        for curve, colour, marker in zip(curves, COLOURS, MARKERS, strict=False):
            axes.plot(curve.minutes, [100 * one for one in curve.mdice], color=colour, marker=marker, label=curve.name)
        axes.axhline(100 * target, color="#888888", linewidth=1)
        axes.set(xlabel="minutes of training", ylabel="validation mDice, %")
        axes.legend()
        save(figure, path)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def measure(
    ours: Annotated[Path, typer.Argument(help="Folder of our training.")],
    plain: Annotated[list[Path], typer.Argument(help="Folders of compact,released, one per learning rate.")],
    target: Annotated[float, typer.Option(help="Validation mDice.")] = 0.75,
    batch: Annotated[int, typer.Option(help="Pictures of each stream of the plain recipe.")] = 8,
    passes: Annotated[int, typer.Option(help="N of the plain recipe.")] = 3,
    pixels: Annotated[int, typer.Option(help="Of a side.")] = 128,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    repeats: Annotated[int, typer.Option(help="Pairs of processes that time the plain step and ours.")] = 3,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the result.")] = Path("."),
) -> None:
    """Minutes to a validation mDice: our recipe against the released one."""
    work = Work("propl", preset="compact", batch=batch, passes=passes, pixels=pixels, threads=threads)
    step = compare(work, Repeats(repeats), lambda line: typer.echo(line, err=True))
    extra = step["reference"]["seconds"] - step["propl"]["seconds"]
    curves = [curve_of(ours), *(curve_of(run, extra) for run in plain)]
    found = {**judged(curves[0], curves[1:], target), "step": step, "curves": [vars(one) for one in curves]}
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(output / "time_to_accuracy.json", (json.dumps(found, indent=1) + "\n").encode())
    draw(curves, target, output / "time_to_accuracy")
    for name, minutes in found["minutes"].items():
        told = "not reached" if minutes is None else f"{minutes:.1f} min"
        typer.echo(f"{name}: {told} ({found['trained'][name]:.1f} min trained)")
    typer.echo(f"the plain code takes {'more than ' if found['at_least'] else ''}{found['times']:.1f} times as long")


if __name__ == "__main__":
    main(app)
