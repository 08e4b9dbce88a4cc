"""Verbs that run the bundle, or use what it trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from propl_monai.common.options import pairs, words
from propl_monai.common.packaged_bundle import packaged_bundle, trusted_bundle
from propl_monai.errors import ProPLError

if TYPE_CHECKING:
    from propl_monai.model.bundle_folder import Described

Bundle = Annotated[Path | None, typer.Option(help="The bundle folder; default: the package's own.")]
Trust = Annotated[
    str, typer.Option(help="Allow a foreign --bundle, whose configs run as code: the SHA-256 that is asked for.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any config key=value, such as epochs=30; never evaluated, repeatable."),
]


def train(
    data: Annotated[Path, typer.Argument(help="Folder of the images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run, with the weights in its models/.")],
    bundle: Bundle = None,
    preset: Annotated[
        str, typer.Option(help="Configs that override train.json, comma-separated, such as compact.")
    ] = "",
    settings: Settings = None,
    trust: Trust = "",
) -> None:
    """Train, as `python -m monai.bundle run training` does."""
    from propl_monai.common.bundle_command import bundle_arguments, read_settings, run_bundle

    bundle = trusted_bundle(bundle, trust)
    places = {"dataset_dir": data, "output_dir": output, "model_dir": output / "models"}
    configs = ["train", *words(preset)]
    given = read_settings(bundle, configs, pairs("--set", settings or []))
    run_bundle(bundle_arguments("training", bundle, configs, {**places, **given}))


def add_task(
    name: Annotated[str, typer.Argument(help='The new target, in English, such as "carotid lumen".')],
    data: Annotated[
        Path | None, typer.Argument(help="Folder of its pictures: TARGET/SOURCE/images and TARGET/SOURCE/masks.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the new model, with the weights in its models/.")
    ] = Path("model"),
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights", "--bundle", help="Weights file, training folder or bundle; default: the package's own."
        ),
    ] = None,
    datalist: Annotated[
        Path | None, typer.Option(help="Datalist of DATA, whose splits count; default: a fifth is held out.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(help="Folder with pictures of the other targets, on which they are kept.")
    ] = None,
    replay_datalist: Annotated[
        Path | None, typer.Option(help="Datalist of --replay, verified; default: the folder as it is.")
    ] = None,
    organ: Annotated[str | None, typer.Option(help="Where the target is found; default: an organ of its own.")] = None,
    test_share: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of the patients of a folder kept for `propl evaluate`.")
    ] = 0.0,
    without_labels: Annotated[
        bool, typer.Option("--without-labels", help="Add the sentence alone, to be trained later, as in MONAI Label.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Of the training: key=value, such as max_epochs=20; see docs/add_task.md."),
    ] = None,
) -> None:
    """Teach a model one more target from few labelled pictures, and keep those that it knows (extra `text`)."""
    from propl_monai.cli.progress import progress
    from propl_monai.deploy.add_task import Sources, Teaching
    from propl_monai.deploy.add_task import add_task as run

    if without_labels == (data is not None):
        cure = "give the folder of the pictures, or --without-labels" if data is None else "leave one of the two out"
        fact = "is missing" if data is None else "and --without-labels are both given"
        raise ProPLError("DATA", fact, cure)
    sources = Sources(data, datalist, replay, replay_datalist, test_share)
    with progress("learning") as shown:
        results = run(name, output, sources, weights, organ, Teaching.read(settings or []), shown)
    for task, row in results["dice"].items():
        typer.echo(f"{task:<16} Dice {row['before']:.3f} before, {row['after']:.3f} after ({row['pictures']} pictures)")
    typer.echo(
        f"{output}: knows '{results['task']}'; try `propl predict PICTURE -t \"{results['task']}\" --weights {output}`"
    )


def evaluate(
    data: Annotated[Path, typer.Argument(help="Folder of the images.")],
    run: Annotated[Path, typer.Argument(help="Folder of a training; the tables go to its test/.")],
    bundle: Bundle = None,
    preset: Annotated[
        str, typer.Option(help="More configs; rarely needed, as the weights describe their network.")
    ] = "",
    settings: Settings = None,
    trust: Trust = "",
) -> None:
    """Evaluate on the test split, as `python -m monai.bundle run evaluating` does; the weights describe their network."""
    from propl_monai.common.bundle_command import bundle_arguments, read_settings, run_bundle

    bundle = trusted_bundle(bundle, trust)
    places = {"dataset_dir": data, "output_dir": run / "test", "model_dir": run / "models"}
    if (run / "datalist.json").exists():
        places["datalist_file"] = run / "datalist.json"
    configs = ["train", *words(preset), "evaluate"]
    given = read_settings(bundle, configs, pairs("--set", settings or []))
    run_bundle(bundle_arguments("evaluating", bundle, configs, {**places, **given}))


def predict(
    inputs: Annotated[list[Path], typer.Argument(help="Files and folders, however deep; stills and cines.")],
    task: Annotated[
        list[str], typer.Option("--task", "-t", help="Target: name, code, synonym or sentence; repeatable.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the masks.")] = Path("masks"),
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights", "--bundle", help="Weights file, training folder or bundle; default: the package's own."
        ),
    ] = None,
    probability: Annotated[bool, typer.Option("--probability", help="Also write probabilities, 16 bit.")] = False,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Also write uncertainty, 16 bit; needs torch.")
    ] = False,
    uncertainty_of: Annotated[
        str, typer.Option(help="views (six copies of the picture, altered), or dropout (the paper's).")
    ] = "views",
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write pictures with tinted masks.")] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Write measurements.csv: area, axes, circumference; area curves of cines.")
    ] = False,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format", help="Of the masks: png (default), nifti, nrrd, dicom-seg, coco, yolo, cvat; repeatable."
        ),
    ] = None,
    spacing: Annotated[
        tuple[float, float] | None, typer.Option(help="Height and width of a pixel in mm, whatever the files hold.")
    ] = None,
    tta: Annotated[bool, typer.Option("--tta", help="Average with the mirrored picture; see docs/predict.md.")] = False,
    threshold: Annotated[float, typer.Option(help="Probability above which a pixel is the target.")] = 0.5,
    decoder: Annotated[
        str | None,
        typer.Option(help="sd, pd or mean of both; default: the best on validation."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; default: CUDA if there is a GPU.")] = None,
    engine: Annotated[
        str, typer.Option(help="auto, torch or onnx; auto: ONNX Runtime on a CPU where it can answer, else torch.")
    ] = "auto",
    batch: Annotated[int, typer.Option(help="Frames that go through the network together.")] = 8,
    sha256: Annotated[str | None, typer.Option(help="Expected SHA-256 of the weights file.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Overwrite results made with other settings.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Write no mask where the target looks absent or the picture foreign.")
    ] = False,
    steady: Annotated[
        float,
        typer.Option(help="Steadies cines: standard deviation of a filter over time, in frames, such as 1; 0: off."),
    ] = 0.0,
    crop_sector: Annotated[
        bool | None,
        typer.Option(
            "--crop-sector/--no-crop-sector", help="Cut the border around the scan first; default: as trained."
        ),
    ] = None,
    shard: Annotated[str | None, typer.Option(help="I/N: part I of N of the files; see docs/scale.md.")] = None,
) -> None:
    """Segment files, folders and cines; the target is selected by name or sentence."""
    from propl_monai.cli.progress import progress
    from propl_monai.inference.engines.choice import require_torch
    from propl_monai.inference.predict_folder import predict_paths
    from propl_monai.inference.predictor import Predictor
    from propl_monai.inference.shards import Shard

    part = None if shard is None else Shard.parse(shard)
    chosen: dict[str, Any] = {"device": device, "decoder": decoder, "tta": tta, "threshold": threshold, "batch": batch}
    if uncertainty and engine == "auto":  # no ONNX form is loaded or made in vain
        require_torch("uncertainty")
        engine = "torch"
    chosen |= {
        "engine": engine,
        "make_graph": _make_graph,
        "uncertainty_of": uncertainty_of,
        "crop_sector": crop_sector,
    }
    given = weights or (packaged_bundle() if sha256 else None)
    predictor = Predictor.from_bundle(given, sha256=sha256, **chosen) if given else Predictor(**chosen)
    with progress("segmenting") as shown:
        outcome = predict_paths(
            predictor,
            inputs,
            output,
            task,
            probability=probability,
            uncertainty=uncertainty,
            overlay=overlay,
            measurements=measure,
            formats=formats or "png",
            spacing_mm=spacing,
            overwrite=overwrite,
            strict=strict,
            steady=steady,
            shard=part,
            progress=shown,
        )
    by = f" (engine {predictor.engine_of(uncertainty)}, {predictor.device})" if outcome.pictures else ""
    typer.echo(f"{outcome.done} files done, {outcome.skipped} done before, {outcome.refused} refused; see {output}{by}")
    raise typer.Exit(outcome.code)


def _make_graph(described: Described) -> Path:
    """The ONNX form of weights that have none yet."""
    from propl_monai.deploy.onnx_graph import make_graph

    typer.echo(f"{described.weights}: its ONNX form is made, once for these weights", err=True)
    return make_graph(described)


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a training.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write, ending in .html.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of the images, for pictures of cases and calibration.")
    ] = None,
    evaluation: Annotated[Path | None, typer.Option(help="Folder of its evaluation; default: the run's test/.")] = None,
    weights: Annotated[Path | None, typer.Option(help="The weights that were evaluated, if they were moved.")] = None,
    datalist: Annotated[Path | None, typer.Option(help="The datalist of the evaluation, if it was moved.")] = None,
    pictures: Annotated[bool, typer.Option(help="Show pictures of cases.")] = True,
) -> None:
    """Write one HTML page about a training and its evaluation (extra `lab`)."""
    from propl_monai.cli.progress import progress
    from propl_monai.evaluation.report.write import write_report

    with progress("reading pictures") as shown:
        written = write_report(run, output, evaluation, data, weights, datalist, pictures, shown)
    for path in written:
        typer.echo(str(path))
    if data is None:
        typer.echo("without --data: no pictures of cases, no calibration")
