"""Several saved models as one bundle."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from decathlete.core.locks import locked_output
from decathlete.core.output_paths import check_output_path
from decathlete.errors import ModelError, OptionError
from decathlete.models.bundle import BundleMember, ModelBundle, TrainedMember, check_place
from decathlete.models.record import Combination, PostprocessingStep
from decathlete.models.weights import StoredNetworks
from decathlete.version import __version__


def combine_bundles(
    models: Sequence[str | Path],
    output: str | Path,
    *,
    weights: Sequence[float] = (),
    temperature: float | None = None,
    postprocessing: Sequence[PostprocessingStep] | None = None,
    provenance: Mapping[str, JsonValue] | None = None,
    overwrite: bool = False,
) -> ModelBundle:
    """Write one bundle with the members of several, in their order.

    Predicting with it gives what predicting with the list of models gives. With a single model, this makes a copy that
    has another temperature or other post-processing.

    Args:
        models: run folders or model folders.
        output: folder of the new bundle.
        weights: of each model in the mean of probabilities between plans; empty: all plans count equally.
        temperature, postprocessing: of the new bundle; ``None``: those of the models, if they agree.
        provenance: facts about the new bundle that its record keeps.
        overwrite: replace the model at ``output``.

    Raises:
        ModelError: a model is missing or damaged, or the models do not fit each other.
        OptionError: no model is named, there are more or fewer weights than models, or a weight is not positive.
        OutputError: something is at ``output`` that may not be replaced, or it cannot be written.
    """
    if not models:
        raise OptionError("no model is named", remedy="name the folder of a run or of a model")
    if weights and len(weights) != len(models):
        raise OptionError(f"{len(weights)} weights for {len(models)} models", remedy="use one weight per model")
    if not all(0 < weight < math.inf for weight in weights or ()):
        raise OptionError(f"the weights {tuple(weights or ())} are not all positive", remedy="use positive numbers")
    folder = check_output_path(output)
    with locked_output(folder):
        check_place(folder, overwrite=overwrite)
        return _combine(
            models,
            folder,
            weights=weights,
            temperature=temperature,
            postprocessing=postprocessing,
            provenance=provenance or {},
            overwrite=overwrite,
        )


def _combine(
    models: Sequence[str | Path],
    folder: Path,
    *,
    weights: Sequence[float],
    temperature: float | None,
    postprocessing: Sequence[PostprocessingStep] | None,
    provenance: Mapping[str, JsonValue],
    overwrite: bool,
) -> ModelBundle:
    bundles = [ModelBundle.load(Path(model)) for model in models]
    given = {
        "weights": bool(weights),
        "temperature": temperature is not None,
        "postprocessing": postprocessing is not None,
    }
    replaced = [name for name, is_given in given.items() if is_given]
    check_same_settings([PredictionSettings.of(bundle) for bundle in bundles], replaced=replaced)
    first = bundles[0].record
    return ModelBundle.save(
        folder,
        _members(bundles),
        combination=_combination(bundles, weights),
        temperature=first.temperature if temperature is None else temperature,
        postprocessing=first.postprocessing if postprocessing is None else postprocessing,
        components=first.components if postprocessing is None else (),
        provenance={
            "decathlete": __version__,
            "combined_from": [bundle.digest for bundle in bundles],
            **provenance,
        },
        overwrite=overwrite,
    )


@dataclass(frozen=True, kw_only=True)
class PredictionSettings:
    """What a model says about prediction beside its members; models that predict together must agree in it.

    Attributes:
        folder: of the model.
        weights: of its members, if it has such.
    """

    folder: Path
    temperature: float
    postprocessing: tuple[PostprocessingStep, ...]
    weights: tuple[float, ...] = ()

    @classmethod
    def of(cls, bundle: ModelBundle) -> PredictionSettings:
        """Return the settings of a bundle."""
        record = bundle.record
        return cls(
            folder=bundle.folder,
            temperature=record.temperature,
            postprocessing=record.postprocessing,
            weights=record.combination.weights,
        )

    def differences(self, other: PredictionSettings) -> dict[str, bool]:
        """Return the settings that keep the two models from predicting together as they are."""
        return {
            "temperature": self.temperature != other.temperature,
            "postprocessing": self.postprocessing != other.postprocessing,
            "weights": self.folder != other.folder and bool(self.weights or other.weights),
        }


def check_same_settings(settings: Sequence[PredictionSettings], *, replaced: Collection[str] = ()) -> None:
    """Check that models that predict together have the same settings.

    Args:
        replaced: names of settings that do not matter, since others replace them.

    Raises:
        ModelError: they differ, or several models have weights of their own.
    """
    first = settings[0]
    for other in settings[1:]:
        names = [name for name, differs in first.differences(other).items() if differs and name not in replaced]
        if names:
            raise ModelError(
                f"has another {' and '.join(names)} than {first.folder}",
                where=other.folder,
                remedy="combine the models with combine_bundles, and set these there",
                code="E-MODEL-AGREEMENT",
            )


def _combination(bundles: Sequence[ModelBundle], weights: Sequence[float]) -> Combination:
    if not weights:
        return bundles[0].record.combination if len(bundles) == 1 else Combination()
    each = [weight for bundle, weight in zip(bundles, weights, strict=True) for _ in bundle.members]
    return Combination(weights=tuple(each))


def first_stage(models: Sequence[Path], *, name: str = "3d_lowres") -> TrainedMember:
    """Return the networks of several models of one plan as one member: the first stage of a cascade.

    Raises:
        ModelError: a model is missing or damaged, has several plans, or another plan than the first.
    """
    members = [member for model in models for member in ModelBundle.load(model).members]
    for member in members[1:]:
        if member.plan.digest != members[0].plan.digest:
            raise ModelError(
                f"has another plan than {members[0].folder}, so that both cannot be the first stage of one cascade",
                where=member.folder,
                remedy="train the folds of the first stage with the same settings and on equal machines",
                code="E-MODEL-STAGE",
            )
    networks = [network for member in members for network in StoredNetworks(member.folder, member.record.networks)]
    folds = [network.fold for member in members for network in member.record.networks]
    first = members[0].record
    return TrainedMember(
        name=name,
        plan=first.plan,
        networks=networks,
        folds=[fold for fold in folds if fold is not None] if None not in folds else (),
        mirror_axes=first.mirror_axes,
        weights=first.weights,
        provenance=first.provenance,
        components=first.components,
    )


def split_by_plan(bundle: ModelBundle, folder: Path) -> list[ModelBundle]:
    """Write a model of each plan of a model, for programs that compute one plan.

    Predicting with the list of them gives what predicting with the model gives.

    Args:
        folder: receives a model for each plan, by the name of its configuration.

    Raises:
        ModelError: the model weights its plans, which a list of models cannot.
        OutputError: the folder cannot be written.
    """
    record = bundle.record
    if record.combination.weights:
        raise ModelError(
            "weights the probabilities of its plans",
            where=bundle.folder,
            remedy="combine its models again without weights, or use it for prediction",
            code="E-MODEL-SEVERAL-PLANS",
        )
    groups: dict[str, list[BundleMember]] = {}
    for member in bundle.outputs:
        groups.setdefault(member.plan.digest, []).append(member)
    taken: set[str] = set()
    return [
        ModelBundle.save(
            folder / _free_name(members[0].plan.configuration_name, taken),
            _with_stages(bundle, members),
            temperature=record.temperature,
            postprocessing=record.postprocessing,
            components=record.components,
            provenance={**record.provenance, "part_of": bundle.digest},
        )
        for members in groups.values()
    ]


def _with_stages(bundle: ModelBundle, members: Sequence[BundleMember]) -> list[TrainedMember]:
    """Return members, after the first stages that they need."""
    stages = {m.record.name: m for member in members if (m := bundle.previous_stage_of(member))}
    names = {member.record.name: member.record.name for member in bundle.members}
    return [_copy_member(member, names) for member in (*stages.values(), *members)]


def _members(bundles: Sequence[ModelBundle]) -> list[TrainedMember]:
    taken: set[str] = set()
    copied: list[TrainedMember] = []
    for bundle in bundles:
        names = {member.record.name: _free_name(member.record.name, taken) for member in bundle.members}
        copied += [_copy_member(member, names) for member in bundle.members]
    return copied


def _free_name(name: str, taken: set[str]) -> str:
    """Return a name that is not taken yet, and take it."""
    free, number = name, 1
    while free.lower() in taken:
        number += 1
        free = f"{name[:60]}-{number}"
    taken.add(free.lower())
    return free


def _copy_member(member: BundleMember, names: Mapping[str, str]) -> TrainedMember:
    """Return the member under its new name: old name -> new name."""
    record = member.record
    folds = [network.fold for network in record.networks]
    return TrainedMember(
        name=names[record.name],
        components=record.components,
        plan=record.plan,
        networks=StoredNetworks(member.folder, record.networks),
        folds=[fold for fold in folds if fold is not None] if None not in folds else (),
        mirror_axes=record.mirror_axes,
        weights=record.weights,
        provenance=record.provenance,
        previous_stage=None if record.previous_stage is None else names[record.previous_stage],
    )
