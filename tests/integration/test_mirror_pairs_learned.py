"""A phantom whose two sides differ only by position is learned with mirroring, but only with mirror pairs."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from decathlete.augmentation.config import AugmentationConfig
from decathlete.core.geometry import Geometry
from decathlete.core.labels import LabelSet
from decathlete.core.sliding_window import SlidingWindow
from decathlete.dataset.splits import Fold, Splits
from decathlete.inference.windows.sweep import predict_logits
from decathlete.io.images import Image, LabelMap
from decathlete.models.bundle import ModelBundle
from decathlete.networks.unet_spec import UNetSpec
from decathlete.planning.fingerprint import Fingerprint
from decathlete.planning.plan import Plan
from decathlete.preprocessing.prepare import prepare
from decathlete.preprocessing.store import PreparedStore, StoreSource
from decathlete.preprocessing.write import write_case
from decathlete.training.loop.validation import dice_per_structure
from decathlete.training.run import train
from factories import make_test_plan
from training_support import tiny_config

log = logging.getLogger(__name__)
LABELS = LabelSet.from_names(["left kidney", "right kidney"])
SIZE = 32
MIRRORING = AugmentationConfig.none().revised(mirroring={"enabled": True, "axes": (1,)})


def make_plan(**changes: object) -> Plan:
    network = UNetSpec(
        dims=2, in_channels=1, out_channels=3, kernels=((3, 3),) * 4, strides=((1, 1), *((2, 2),) * 3),
        features=(8, 16, 32, 32), encoder_convs=(2,) * 4, decoder_convs=(1,) * 3,
    )  # fmt: skip
    return make_test_plan(
        2,
        labels=LABELS,
        network=network,
        patch_size=(SIZE, SIZE),
        batch_size=8,
        median_shape=(4, SIZE, SIZE),
        **changes,
    )


def make_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A body that equals its mirror image but for noise, with an equal disc on each side."""
    random = np.random.default_rng(seed)
    _, y, x = np.indices((4, SIZE, SIZE))
    centre = (SIZE - 1) / 2
    image = (((y - centre) / 14) ** 2 + ((x - centre) / 15) ** 2 < 1).astype(np.float32)
    label = np.zeros(image.shape, np.uint8)
    height, offset = centre + random.uniform(-5, 5), random.uniform(6, 8)
    for value, side in ((1, -1), (2, 1)):
        disc = (y - height) ** 2 + (x - centre - side * offset) ** 2 < 3.5**2
        label[disc], image[disc] = value, 3.0
    return image + random.normal(0, 0.1, image.shape).astype(np.float32) + 0.5, label


def make_store(folder: Path, plan: Plan) -> PreparedStore:
    ids = tuple(f"case{i}" for i in range(10))
    (folder / "cases").mkdir(parents=True)
    for number, case_id in enumerate(ids):
        image_ZYX, label_ZYX = make_case(number)
        geometry = Geometry.plain(label_ZYX.shape)
        image, label = (
            Image(array_CZYX=image_ZYX[None], geometry=geometry),
            LabelMap(array_ZYX=label_ZYX, geometry=geometry),
        )
        prepared = prepare(image, plan, label=label, case_id=case_id)
        write_case(folder / "cases" / case_id, prepared, digest="test", dims=2)
    plan.save(folder / "plan.json")
    Fingerprint(dataset_digest="test", cases=(), intensity=()).save(folder / "fingerprint.json")
    Splits(folds=(Fold(train=ids[:7], val=ids[7:]),), seed=1, grouped=False).save(folder / "splits.json")
    StoreSource(dataset="Test", root="/nowhere", dataset_digest="test", case_ids=ids).save(folder / "source.json")
    return PreparedStore.open(folder)


def dice_of(model: Path, store: PreparedStore, *, tta: bool) -> float:
    """Mean Dice of both sides over the held-out cases."""
    bundle = ModelBundle.load(model)
    plan, network = bundle.record.plan, bundle.build(number=0)
    dice = []
    for case_id in store.splits.folds[0].val:
        case = store.case(case_id)
        logits = predict_logits(
            network,
            case.read_image(),
            plan=plan,
            window=SlidingWindow(tta=tta),
            mirror_axes=bundle.record.mirror_axes,
        )
        dice += dice_per_structure(logits, torch.from_numpy(case.read_label()), plan.labels)
    return float(np.mean([0.0 if value is None else value for value in dice]))


@pytest.mark.full
def test_sides_are_learned_with_pairs_and_confused_without(tmp_path: Path) -> None:
    config = tiny_config(epochs=1, steps_per_epoch=120, augmentation=MIRRORING, learning_rate=0.02)
    dice: dict[tuple[str, bool], float] = {}
    for name, pairs in (("with", (("left kidney", "right kidney"),)), ("without", ())):
        store = make_store(tmp_path / name, make_plan(mirror_pairs=pairs))
        model = train(store, 0, tmp_path / f"run_{name}", config).model
        assert ModelBundle.load(model).record.mirror_axes == (1,)
        for tta in (False, True):
            dice[name, tta] = dice_of(model, store, tta=tta)
            log.info("%s mirror pairs, %s: %.3f", name, "mean of flips" if tta else "no flips", dice[name, tta])
    assert dice["with", False] > 0.95
    assert dice["with", True] > 0.95
    assert dice["without", False] < 0.8
    assert dice["without", True] < 0.8
