"""The model card: what a model is for and how it was made, in words, from what its record knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import JsonValue

from decathlete.models.record import MemberRecord, ModelRecord

CARD_FILE = "MODEL_CARD.md"

_FACTS = {
    "training_cases": "Training cases",
    "held_out_cases": "Held-out cases",
    "epochs": "Epochs",
    "steps": "Steps",
    "stopped_at": "Stopped, share of the planned training",
    "training_seconds": "Training time, s",
    "validation_dice": "Mean Dice during training, prepared grid",
    "machine": "Machine",
    "precision": "Precision",
    "imported_from": "Imported from",
    "trainer": "Trainer",
    "finished": "Finished",
    "decathlete": "Decathlete",
    "torch": "PyTorch",
}
"""Provenance entry -> its name in the card; all else stays in ``model.json``."""


def model_card(record: ModelRecord) -> str:
    """Return the text of ``MODEL_CARD.md``. It lists only facts that ``record`` contains."""
    dataset = " and ".join(dict.fromkeys(_text(member.plan.dataset) for member in record.members))
    parts = [f"# {dataset}: segmentation model", _purpose(), _structures(record), _prediction(record)]
    parts += [_member(member) for member in record.members]
    return "\n\n".join(parts) + "\n"


def _purpose() -> str:
    return (
        "## Intended use\n\nResearch use only. Not a medical device. The model was not evaluated for clinical use; "
        "check it on your own data before you rely on its results."
    )


def _structures(record: ModelRecord) -> str:
    rows = [(structure.name, ", ".join(map(str, structure.values))) for structure in record.labels.structures]
    channels = ", ".join(_text(channel) for channel in record.members[0].plan.channels)
    return f"## Input and output\n\nInput channels: {channels}.\n\n" + _table(("Structure", "Label values"), rows)


def _prediction(record: ModelRecord) -> str:
    lines = [f"- Members: {', '.join(member.name for member in record.members)}"]
    if record.n_networks > 1:
        lines.append("- Networks of one plan: mean of logits; different plans: mean of probabilities")
    if record.combination.weights:
        lines.append(f"- Weights of the members' plans: {', '.join(f'{w:g}' for w in record.combination.weights)}")
    if record.temperature != 1:
        lines.append(f"- Temperature: {record.temperature:g}")
    if record.postprocessing:
        lines.append(f"- Post-processing: {', '.join(step.name for step in record.postprocessing)}")
    return "## Prediction\n\n" + "\n".join(lines)


def _member(member: MemberRecord) -> str:
    plan = member.plan
    rows = [
        ("Dataset", plan.dataset),
        ("Dimensions", f"{plan.dims}D"),
        ("Networks", str(len(member.networks))),
        *([("Previous stage", member.previous_stage)] if member.previous_stage else []),
        *_folds(member),
        ("Target spacing, mm", _spacing(plan.target_spacing)),
        *([("Coarse start, mm", _spacing(plan.coarse_start.target_spacing))] if plan.coarse_start else []),
        ("Patch size", " × ".join(map(str, plan.patch_size))),
        ("Batch size", str(plan.batch_size)),
        ("Normalisation", ", ".join(normalization.component for normalization in plan.normalization)),
        ("Weights", member.weights),
        *_known_provenance(member.provenance),
    ]
    return f"## Member {member.name}\n\n" + _table(("Property", "Value"), rows)


def _spacing(spacing: Sequence[float | None]) -> str:
    return " × ".join("own" if value is None else f"{value:g}" for value in spacing)


def _folds(member: MemberRecord) -> Iterator[tuple[str, str]]:
    folds = [network.fold for network in member.networks if network.fold is not None]
    if folds:
        yield "Folds", ", ".join(folds)


def _known_provenance(provenance: dict[str, JsonValue]) -> Iterator[tuple[str, str]]:
    for key, title in _FACTS.items():
        value = provenance.get(key)
        if isinstance(value, str | int | float):
            yield title, f"{value:.4g}" if isinstance(value, float) and key == "validation_dice" else str(value)


def _table(header: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    lines = [f"| {header[0]} | {header[1]} |", "| --- | --- |"]
    return "\n".join(lines + [f"| {_text(name)} | {_text(value)} |" for name, value in rows])


def _text(value: str) -> str:
    """Return a text on one line, with the special characters of Markdown and HTML escaped."""
    line = " ".join(value.split())
    return "".join(f"\\{character}" if character in "\\`*[]<>|#" else character for character in line)
