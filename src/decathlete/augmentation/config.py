"""Which transforms change training patches, in which order, how often and how strongly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Self

from pydantic import ConfigDict, Field, RootModel, SerializeAsAny, create_model, model_validator
from pydantic_core import PydanticUndefined

from decathlete.augmentation.policies import policy_settings
from decathlete.augmentation.transforms import TRANSFORMS, Patch, TransformSettings
from decathlete.augmentation.transforms.mirroring import Mirroring
from decathlete.augmentation.transforms.rotation import Rotation
from decathlete.core.schema import Schema
from decathlete.errors import OptionError
from decathlete.planning.network_spec import Axes, Dims

DEFAULT_TRANSFORMS = (
    "rotation",
    "scaling",
    "mirroring",
    "noise",
    "blur",
    "brightness",
    "contrast",
    "low_resolution",
    "gamma_inverted",
    "gamma",
)
"""nnU-Net's, in its order."""


CASCADE_TRANSFORMS = ("mask_morphology", "mask_components")
"""What a cascade adds: the corruption of the previous stage's masks."""


class AugmentationConfig(RootModel[dict[str, SerializeAsAny[TransformSettings]]]):
    """The settings of every transform of training patches, by its registered name.

    Spatial transforms are applied first, in one resampling; the others follow in the order of the names. In a file the
    configuration is an object, and what it leaves out keeps its default: ``{"gamma": {"probability": 0.5}}``. A name
    that is not among the defaults adds that transform after them.

    The defaults are nnU-Net's (Isensee et al., Nature Methods 2021, supplementary note 4). Intensities are those of
    normalised images, so 1 is one standard deviation under z-score and CT normalisation.

    ``policy`` chooses other defaults by name (:mod:`~decathlete.augmentation.policies`): ``{"policy": "light"}``, or
    the name alone, ``"light"``.

    >>> AugmentationConfig("heavy")["cutout"].probability
    0.2
    >>> AugmentationConfig({"policy": "light", "gamma": {"probability": 0.3}})["gamma"].probability
    0.3
    >>> config = AugmentationConfig({"gamma": {"probability": 0.5}})
    >>> config["gamma"].probability, config["rotation"].probability
    (0.5, 0.2)
    """

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, value: Any) -> Any:
        """Add the defaults, and check the settings of each transform by its own schema."""
        if isinstance(value, cls):
            return value
        given = _apply_policy({} if value is PydanticUndefined else value)
        names = dict.fromkeys((*DEFAULT_TRANSFORMS, *(given if isinstance(given, Mapping) else ())))
        schema = _schema_of(names)
        return dict(zip(names, (settings for _, settings in schema.model_validate(given)), strict=True))

    @property
    def names(self) -> tuple[str, ...]:
        """Registered names of the transforms, in order."""
        return tuple(self.root)

    def __getitem__(self, name: str) -> TransformSettings:
        """Return the settings of a transform.

        Raises:
            KeyError: the configuration has no transform of this name.
        """
        return self.root[name]

    def revised(self, **changes: TransformSettings | Mapping[str, Any]) -> Self:
        """Return a validated copy with settings replaced, single fields of them replaced, or transforms added.

        >>> AugmentationConfig.none().revised(gamma={"enabled": True})["gamma"].chance
        0.3
        """
        merged: dict[str, Any] = dict(self.root)
        for name, change in changes.items():
            is_partial = isinstance(change, Mapping) and name in merged
            merged[name] = {**dict(merged[name]), **dict(change)} if is_partial else change
        return type(self).model_validate(merged)

    @classmethod
    def default(cls, dims: Dims) -> Self:
        """Return nnU-Net's augmentation, mirroring along all ``dims`` axes."""
        return cls.model_validate({"mirroring": {"axes": tuple(range(dims))}})

    @classmethod
    def recipe(cls, dims: Dims) -> Self:
        """Return that of NVIDIA's nnU-Net for PyTorch: zoom, mirroring, noise, blur, brightness, contrast."""
        off = {"enabled": False}

        def on_all_channels(low: float, high: float) -> dict[str, Any]:
            return {"probability": 0.15, "channel_probability": 1.0, "between": (low, high)}

        return cls.default(dims).revised(
            rotation=off,
            scaling={"probability": 0.15, "between": (0.7, 1.0)},
            noise=on_all_channels(0.0, 0.33),
            blur=on_all_channels(0.5, 1.5),
            brightness=on_all_channels(0.7, 1.3),
            contrast=on_all_channels(0.65, 1.5),
            low_resolution=off,
            gamma_inverted=off,
            gamma=off,
        )

    @classmethod
    def none(cls) -> Self:
        """Return a configuration that leaves patches as they are: every transform is disabled."""
        return cls.model_validate({name: {"enabled": False} for name in DEFAULT_TRANSFORMS})

    def with_corrupted_masks(self, *, source: AugmentationConfig | None = None) -> Self:
        """Return a copy that also corrupts the masks of a cascade's previous stage.

        Args:
            source: whose settings of these transforms are used, if it has them.
        """
        given: Mapping[str, TransformSettings] = {} if source is None else source.root
        missing = [name for name in CASCADE_TRANSFORMS if name not in self.root]
        added: dict[str, TransformSettings | Mapping[str, Any]] = {name: given.get(name, {}) for name in missing}
        return self.revised(**added)

    def patch(self, size: Axes, *, side_axis: int | None = None) -> Patch:
        """Describe a patch of ``size`` (voxels) to transforms; rotation decides whether all stay in its plane."""
        rotation = self.root["rotation"]
        assert isinstance(rotation, Rotation.Settings)
        return Patch(size=size, in_plane=rotation.is_in_plane(size), side_axis=side_axis)

    def mirroring_within(self, axes: Axes | None, dims: Dims) -> Self:
        """Return a copy that mirrors along no axis but ``axes`` (``None``: no restriction)."""
        mirrored = self.mirror_axes(dims)
        kept = mirrored if axes is None else tuple(axis for axis in mirrored if axis in axes)
        if kept == mirrored:
            return self
        return self.revised(mirroring={"axes": kept, "enabled": bool(kept)})

    def mirror_axes(self, dims: Dims) -> Axes:
        """Return the spatial axes along which training mirrors: those that test-time augmentation may flip."""
        mirroring = self.root["mirroring"]
        assert isinstance(mirroring, Mirroring.Settings)
        if not mirroring.chance:
            return ()
        return tuple(range(dims)) if mirroring.axes is None else tuple(sorted(mirroring.axes))


def _apply_policy(given: Any) -> Any:
    """Replace ``policy`` by its settings; those that are given beside it count.

    A transform with a setting is used, although the policy disables it.
    """
    if isinstance(given, str):
        return policy_settings(given)
    if not isinstance(given, Mapping) or "policy" not in given:
        return given
    merged: dict[str, Any] = dict(policy_settings(str(given["policy"])))
    for name, change in given.items():
        if isinstance(change, Mapping):
            of_policy = {setting: value for setting, value in merged.get(name, {}).items() if setting != "enabled"}
            merged[name] = {**of_policy, **change}
        elif name != "policy":
            merged[name] = change
    return merged


def _schema_of(names: Iterable[str]) -> type[Schema]:
    """Return a schema with one field for each transform, holding its settings."""
    settings: list[tuple[str, type[Any]]] = []
    problems: list[str] = []
    for name in names:
        try:
            settings.append((name, TRANSFORMS.resolve(name).settings))
        except OptionError as problem:
            problems.append(f"{problem.problem}; {problem.remedy}")
    if problems:
        raise ValueError("; ".join(problems))
    return _make_schema(tuple(settings))


@lru_cache
def _make_schema(settings: tuple[tuple[str, type[Any]], ...]) -> type[Schema]:
    # Names are aliases: a plug-in may be called like an attribute of every schema.
    fields: dict[str, Any] = {
        f"transform_{i}": (schema, Field(default_factory=schema, alias=name))
        for i, (name, schema) in enumerate(settings)
    }
    return create_model("AugmentationConfig", __base__=Schema, **fields)
