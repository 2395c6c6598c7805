"""Commands about models: train, validate, predict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decathlete.cli import options as o

if TYPE_CHECKING:
    from decathlete.workflows.validate import PredictOptions


def train(
    task: o.Task,
    dim: o.Dims = o.Dim.three,
    fold: Annotated[str, typer.Option(help="Held-out fold: 0, 1, ... or all (train on every case).")] = "0",
    data: o.Data = Path("data"),
    prepared: o.Prepared = Path("prepared"),
    results: o.Results = Path("results"),
    max_time: o.MaxTime = None,
    epochs: o.Epochs = None,
    steps_per_epoch: o.StepsPerEpoch = 250,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Patches per device and step (the plan's).")] = None,
    optimizer: Annotated[str, typer.Option(help="adamw, adam or sgd.")] = "adamw",
    learning_rate: Annotated[float | None, typer.Option(help="Peak rate (AdamW 5e-3, Adam 1e-3, SGD 1e-2).")] = None,
    schedule: Annotated[str, typer.Option(help="cosine, poly or constant.")] = "cosine",
    patience: o.Patience = None,
    precision: Annotated[o.Precision, typer.Option(help="Arithmetic.")] = o.Precision.auto,
    device: o.Device = "auto",
    devices: o.Devices = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    seed: o.Seed = 1,
    deterministic: Annotated[bool, typer.Option(help="Repeat bit for bit on CUDA too, slower.")] = False,
    augment: Annotated[bool, typer.Option(help="Augment the patches.")] = True,
    fit: Annotated[bool, typer.Option(help="Let a CPU or a short time narrow network and batch.")] = True,
    set_: o.Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a stopped run was.")] = False,
    overwrite: o.Overwrite = False,
) -> None:
    """Train one fold of a prepared dataset."""
    from decathlete.cli.show import TerminalListener
    from decathlete.workflows.train import train_config, train_task
    from decathlete.workflows.workspace import Workspace

    config = train_config(
        max_time=max_time,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        batch_size=batch_size,
        optimizer=optimizer,
        learning_rate=learning_rate,
        schedule=schedule,
        patience=patience,
        precision=precision.value,
        device=device,
        devices=devices,
        nodes=nodes,
        seed=seed,
        deterministic=deterministic,
        augment=augment,
    )
    result = train_task(
        task,
        dims=o.dims_of(dim),
        fold=o.fold_of(fold),
        workspace=Workspace(data=data, prepared=prepared, results=results),
        config=config,
        overrides=tuple(set_ or ()),
        fit=fit,
        resume=resume,
        overwrite=overwrite,
        progress=TerminalListener().training(),
    )
    typer.echo(f"model in {result.folder}")


def validate(
    model: o.Model,
    dataset: Annotated[Path | None, typer.Option(help="The raw dataset, if it moved since training.")] = None,
    tta: o.Tta = False,
    overlap: o.Overlap = 0.5,
    blend: Annotated[o.Blend, typer.Option(help="Weights of overlapping windows.")] = o.Blend.gaussian,
    batch_size: o.Windows = None,
    precision: Annotated[o.Precision, typer.Option(help="Arithmetic.")] = o.Precision.auto,
    device: o.Device = "auto",
    tolerance: o.Tolerance = 1.0,
    workers: o.Workers = 2,
    overwrite: o.Overwrite = False,
    as_json: o.AsJson = False,
) -> None:
    """Predict and score the cases that a model's fold held out, on their original grids."""
    from decathlete.cli.show import TerminalListener, print_json
    from decathlete.workflows.validate import validate as function

    scores = function(
        model,
        dataset_root=dataset,
        options=_predict_options(tta, overlap, blend, precision, device, batch_size),
        workers=workers,
        tolerance_mm=tolerance,
        overwrite=overwrite,
        progress=TerminalListener().cases("predict"),
    )
    if as_json:
        print_json(scores)
    else:
        typer.echo(scores.headline_line())


def predict(
    model: Annotated[list[Path], typer.Option("--model", help="A run or model folder; several make an ensemble.")],
    input_: Annotated[Path, typer.Option("--input", "-i", help="An image, a DICOM folder, or a folder of images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the predictions.")],
    tta: o.Tta = False,
    save_probabilities: Annotated[bool, typer.Option("--save-probabilities", help="Also write probabilities.")] = False,
    overlap: o.Overlap = 0.5,
    blend: Annotated[o.Blend, typer.Option(help="Weights of overlapping windows.")] = o.Blend.gaussian,
    batch_size: o.Windows = None,
    precision: Annotated[o.Precision, typer.Option(help="Arithmetic.")] = o.Precision.auto,
    device: o.Device = "auto",
    overwrite: o.Overwrite = False,
) -> None:
    """Segment images: label maps on the images' own grids, each with a JSON of volumes and provenance."""
    from decathlete.cli.show import TerminalListener
    from decathlete.inference.files import predict_files
    from decathlete.workflows.validate import load_predictor

    predictor = load_predictor(model, _predict_options(tta, overlap, blend, precision, device, batch_size))
    done = predict_files(
        predictor,
        input_,
        output,
        save_probabilities=save_probabilities,
        overwrite=overwrite,
        progress=TerminalListener().cases("predict"),
    )
    typer.echo(f"{len(done)} predictions in {output}")


def _predict_options(
    tta: bool, overlap: float, blend: o.Blend, precision: o.Precision, device: str, batch_size: int | None
) -> PredictOptions:
    from decathlete.workflows.validate import PredictOptions

    return PredictOptions(
        device=device,
        precision=precision.value,
        tta=tta,
        overlap=overlap,
        blend=blend.value,
        batch_size=batch_size,
    )
