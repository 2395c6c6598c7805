"""What is done with models, prepared data, runs, manifests, tables, configurations and archives."""

from __future__ import annotations

from pathlib import Path

import blosc2
import numpy as np
from safetensors.numpy import load_file

from robustness.actions import Action, Input
from robustness.commands import run_command
from robustness.datasets import TRAINING, workspace_options, write_files
from robustness.judging import ACCEPTED, Finding, judge_call, judge_command
from robustness.outcomes import DIFFERENT, ESCAPE, WRONG

_LARGEST_WEIGHT = 1e6
_IN_ARCHIVES = {"checkpoint_final.pth", "plans.json", "dataset.json"}
"""A message may name the file inside the archive."""

_SILENT_DAMAGE = ("flip_bits", "set_bytes", "repeat", "delete", "insert")


def predict_with(case: Input) -> Finding:
    """Predict with the input as the model."""
    out = case.output("predicted")
    result = run_command(
        ["predict", "--model", str(case.entry), "-i", str(case.shared.image), "-o", out, "--device", "cpu"]
    )
    finding = judge_command(result, case.names)
    if finding.result == DIFFERENT and case.kind == "weights_values":
        return Finding(result=WRONG, cause="weights that are not finite or above 1e6 predict")
    return finding


def _import(case: Input, command: str) -> Finding:
    out = Path(case.output("model"))
    before = _outside(case)
    result = run_command(["import", command, str(case.entry), "-o", str(out)])
    if _outside(case) != before or Path("/tmp/escaped").exists():
        return Finding(result=ESCAPE, cause="files outside the output folder", detail=str(_outside(case) - before))
    finding = judge_command(result, case.names | _IN_ARCHIVES)
    return finding if finding.result != DIFFERENT else _judge_weights(case, out)


def _outside(case: Input) -> set[Path]:
    return {p for p in case.folder.rglob("*") if not p.is_relative_to(case.folder / "out")}


def _judge_weights(case: Input, out: Path) -> Finding:
    """An imported model has plausible weights; damage to its bytes must not have changed them."""
    weights = {k: v for p in sorted(out.rglob("*.safetensors")) for k, v in load_file(p).items()}
    if any(not np.isfinite(v).all() or np.abs(v).max(initial=0) > _LARGEST_WEIGHT for v in weights.values()):
        return Finding(result=WRONG, cause="imported weights are not finite or above 1e6")
    if case.kind.removeprefix("pth_") in _SILENT_DAMAGE:
        honest = _honest_weights(case)
        if any(not np.array_equal(v, honest.get(k)) for k, v in weights.items()):
            return Finding(result=WRONG, cause="weights changed by damage are imported")
    return ACCEPTED


def _honest_weights(case: Input) -> dict[str, np.ndarray]:
    """Import the honest input of the same kind, once for each process."""
    command = "nnunet" if case.entry.suffix == ".zip" else "dynunet"
    folder = case.shared.folder / command
    if not folder.exists():
        write_files(case.honest, folder / "source")
        run_command(["import", command, str(folder / "source" / case.entry.name), "-o", str(folder / "model")])
    return {k: v for p in sorted((folder / "model").rglob("*.safetensors")) for k, v in load_file(p).items()}


def import_nnunet(case: Input) -> Finding:
    """Import a model of nnU-Net."""
    return _import(case, "nnunet")


def import_dynunet(case: Input) -> Finding:
    """Import a checkpoint of NVIDIA's recipe."""
    return _import(case, "dynunet")


def open_store(case: Input) -> Finding:
    """Open prepared data and read every array."""
    from decathlete.preprocessing.store import PreparedStore

    def read_all() -> Finding:
        store = PreparedStore.open(next(case.entry.rglob("plan.json"), case.entry / "none").parent)
        for case_id in store.case_ids:
            stored = store.case(case_id)
            stored.read_image()
            stored.read_label()
            for index in list(stored.foreground):
                stored.foreground[index]
        return ACCEPTED

    found: Finding = judge_call(read_all, case.names)
    return found


def prepare_again(case: Input) -> Finding:
    """Run ``preprocess`` again: afterwards the arrays are those that it made at first."""
    result = run_command(["preprocess", *workspace_options(case.folder, command="preprocess")])
    finding = judge_command(result, case.names)
    if finding.result != DIFFERENT:
        return finding
    honest = case.shared.folder / "honest_store"
    if not honest.exists():
        write_files(case.honest, honest)
    for path in sorted(honest.rglob("*.b2nd")):
        other = case.folder / path.relative_to(honest)
        arrays = judge_call(lambda p=path, o=other: (_array(p), _array(o)), case.names)
        if isinstance(arrays, Finding) or not np.array_equal(*arrays):
            return Finding(result=WRONG, cause="preprocess keeps damaged prepared data", detail=str(other))
    return ACCEPTED


def _array(path: Path) -> np.ndarray:
    return np.asarray(blosc2.open(str(path), mode="r")[:])


def train(case: Input) -> Finding:
    """Train on the prepared data."""
    arguments = ["train", *workspace_options(case.folder, command="train"), *TRAINING]
    return judge_command(run_command(arguments), case.names)


def resume(case: Input) -> Finding:
    """Resume the training of the run."""
    arguments = ["train", *workspace_options(case.folder, command="train"), *TRAINING, "--resume"]
    return judge_command(run_command(arguments), case.names)


def _fold(case: Input) -> Path:
    return next(case.entry.rglob("fold_0"), case.entry)


def report(case: Input) -> Finding:
    """Write the report of the run."""
    return judge_command(run_command(["report", "--model", str(_fold(case))]), case.names)


def validate(case: Input) -> Finding:
    """Score the held-out cases of the run."""
    arguments = ["validate", "--model", str(_fold(case)), "--device", "cpu", "--workers", "1"]
    return judge_command(run_command(arguments), case.names)


def check_folder(case: Input) -> Finding:
    """Check the dataset."""
    return judge_command(run_command(["check", str(case.entry), "--workers", "1"]), case.names)


def convert_folder(case: Input) -> Finding:
    """Convert the dataset to nnU-Net's layout."""
    out = case.output("Dataset001_Ball")
    arguments = ["convert", str(case.entry), "--to", "nnunet", "-o", out, "--workers", "1"]
    return judge_command(run_command(arguments), case.names)


def convert_table(case: Input) -> Finding:
    """Convert the cases of a table."""
    arguments = ["convert", str(case.entry), "--to", "decathlon", "-o", case.output("Task01_Ball"), "--workers", "1"]
    names = case.names | {"A" * 50}  # a cell of a table may be the name of a file
    return judge_command(run_command([*arguments, "--channels", "MRI"]), names)


def check_config(case: Input) -> Finding:
    """Check an honest dataset with the input as the configuration."""
    proof = Path("proof")
    result = run_command(["check", str(case.folder / "mutant"), "--config", str(case.entry)])
    if proof.exists():
        proof.unlink()
        return Finding(result=ESCAPE, cause="a configuration ran code")
    return judge_command(result, case.names | {"regions", "group_by", "group-by", "workers"})  # or the option


def unpack(case: Input) -> Finding:
    """Unpack the archive."""
    from decathlete.transfer.archive import unpack_tar

    before = _outside(case)
    folder = case.folder / "out" / "task"
    found = judge_call(lambda: unpack_tar(case.entry, folder, top="Task01_Ball", limit_bytes=2**22), case.names)
    links = [p for p in case.folder.rglob("*") if p.is_symlink() or not (p.is_dir() or p.is_file())]
    if _outside(case) != before or links or Path("/tmp/escaped").exists():
        return Finding(result=ESCAPE, cause="files outside the folder, or links", detail=str(links))
    return found if isinstance(found, Finding) else ACCEPTED


WORK_ACTIONS: dict[str, Action] = {
    "predict_with": predict_with,
    "import_nnunet": import_nnunet,
    "import_dynunet": import_dynunet,
    "open_store": open_store,
    "prepare_again": prepare_again,
    "train": train,
    "resume": resume,
    "report": report,
    "validate": validate,
    "check_folder": check_folder,
    "convert_folder": convert_folder,
    "convert_table": convert_table,
    "check_config": check_config,
    "unpack": unpack,
}
