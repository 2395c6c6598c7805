"""nnU-Net's folders: the same cases linked into its layout, a plan, a model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

DATASET_ID, DATASET = 999, "Dataset999_Compared"


def set_folders(folder: Path) -> None:
    """Tell nnU-Net where its data are; before it is imported."""
    os.environ["nnUNet_raw"] = str(folder / "raw")
    os.environ["nnUNet_preprocessed"] = str(folder / "preprocessed")
    os.environ["nnUNet_results"] = str(folder / "results")


def manifest_of(dataset: Path) -> dict[str, Any]:
    """``dataset.json`` of a dataset in the Decathlon's layout."""
    content: dict[str, Any] = json.loads((dataset / "dataset.json").read_text())
    return content


def first_cases(dataset: Path, n: int) -> list[str]:
    """File names of its first cases.

    Raises:
        ValueError: there are fewer; rates are counted by the number that was asked for.
    """
    names = sorted(Path(entry["image"]).name for entry in manifest_of(dataset)["training"])
    if len(names) < n:
        raise ValueError(f"{dataset} has {len(names)} cases, not {n}: give --set cases={len(names)}")
    return names[:n]


def link_raw(dataset: Path, names: list[str], folder: Path) -> None:
    """Cases of a Decathlon dataset with one channel, linked into nnU-Net's raw layout below ``folder``."""
    manifest = manifest_of(dataset)
    for kind in ("imagesTr", "labelsTr"):
        (folder / "raw" / DATASET / kind).mkdir(parents=True)
        for name in names:
            theirs = name.replace(".nii.gz", "_0000.nii.gz") if kind == "imagesTr" else name
            (folder / "raw" / DATASET / kind / theirs).symlink_to(dataset / kind / name)
    labels = {name: int(value) for value, name in manifest["labels"].items()}
    content = {"channel_names": manifest["modality"], "labels": labels, "numTraining": len(names)}
    (folder / "raw" / DATASET / "dataset.json").write_text(json.dumps({**content, "file_ending": ".nii.gz"}))


def link_decathlon(dataset: Path, names: list[str], folder: Path) -> None:
    """The same cases as a dataset of their own in the Decathlon's layout, in ``folder``."""
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
        for name in names:
            (folder / kind / name).symlink_to(dataset / kind / name)
    training = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names]
    changed = {"training": training, "test": [], "numTraining": len(names), "numTest": 0}
    (folder / "dataset.json").write_text(json.dumps({**manifest_of(dataset), **changed}))


def make_plans(*, workers: int, memory_gb: float | None = None) -> None:
    """Fingerprint and plans of the linked dataset."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments

    extract_fingerprints([DATASET_ID], num_processes=workers, check_dataset_integrity=False)
    plan_experiments([DATASET_ID], gpu_memory_target_in_gb=memory_gb)


def make_model(folder: Path, configuration: str) -> Path:
    """A model folder as nnU-Net's training leaves it, with seeded random weights, by the plans made before."""
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    preprocessed = folder / "preprocessed" / DATASET
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    dataset = json.loads((folder / "raw" / DATASET / "dataset.json").read_text())
    chosen = PlansManager(plans).get_configuration(configuration)
    torch.manual_seed(0)
    network = get_network_from_plans(
        chosen.network_arch_class_name,
        chosen.network_arch_init_kwargs,
        chosen.network_arch_init_kwargs_req_import,
        len(dataset["channel_names"]),
        len(dataset["labels"]),
        deep_supervision=True,
    )
    model = folder / f"nnUNetTrainer__nnUNetPlans__{configuration}"
    (model / "fold_0").mkdir(parents=True)
    (model / "plans.json").write_text(json.dumps(plans))
    (model / "dataset.json").write_text(json.dumps(dataset))
    fingerprint = (preprocessed / "dataset_fingerprint.json").read_text()
    (model / "dataset_fingerprint.json").write_text(fingerprint)
    content = {
        "network_weights": network.state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": configuration, "fold": 0},
        "inference_allowed_mirroring_axes": tuple(range(len(chosen.patch_size))),
    }
    torch.save(content, model / "fold_0" / "checkpoint_final.pth")
    return model
