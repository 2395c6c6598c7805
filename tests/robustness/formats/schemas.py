"""Text that people write: ``dataset.json`` of both layouts, tables of files, configuration files."""

from __future__ import annotations

import json
from random import Random

from robustness.byte_mutations import BYTE_MUTATIONS, change_line, change_number
from robustness.datasets import make_dataset, nifti_bytes
from robustness.formats import FileMutation, Files, Format, byte_mutations, on_file
from robustness.json_mutations import mutate_json, mutate_json_text
from robustness.phantom import make_phantom

_MANIFEST, _TABLE, _CONFIG, _JSON_CONFIG = "mutant/dataset.json", "mutant.csv", "mutant.yaml", "mutant.json"

_ALIASES = "\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12))])
_YAML = (
    _ALIASES,
    "workers: !!python/object/apply:os.system ['touch proof']",
    "workers: " + "[" * 3000,
    "workers: " + "9" * 5000,
    "? [1, 2]\n: 3",
    "workers: *missing",
    "- 1\n- 2",
    "workers: 1\nworkers: 2",
    "\tworkers: 1",
    "workers: 2026-01-01",
    "workers: !!binary aaaa",
    "workers: {a: {b: {c: 1}}}",
    "\ufeffworkers: 1",
    "<<: [a, b]",
    "workers: 0x7fffffffffffffffffffffff",
    "group_by: '((((((a*)*)*)*)*)*)*'",
    "regions: '=='",
    "json: maybe",
)
_PATHS = (
    "",
    "/dev/zero",
    "/etc",
    "../../..",
    "a\\b.nii",
    "\x00",
    "A" * 5000,
    ".",
    "mutant.csv",
    "http://example.invalid/a.nii",
)


def replace_yaml(text: bytes, random: Random) -> bytes:
    """Replace the configuration by a hostile one."""
    return random.choice(_YAML).encode("utf-8", "surrogatepass")


def replace_path(text: bytes, random: Random) -> bytes:
    """Replace one cell of the table."""
    lines = text.decode().splitlines()
    at = random.randrange(len(lines))
    cells = lines[at].split(",")
    cells[random.randrange(len(cells))] = random.choice(_PATHS)
    lines[at] = ",".join(cells) + random.choice(("", "", ",more", '"'))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _decathlon() -> Files:
    return {f"mutant/{name}": content for name, content in make_dataset(3).items()}


def _nnunet() -> Files:
    return {f"mutant/{name}": content for name, content in make_dataset(3, layout="nnunet").items()}


def _table() -> Files:
    files: Files = {}
    rows = ["case,image,label,split"]
    for number in range(3):
        image, label = make_phantom(number)
        files |= {f"i{number}.nii": nifti_bytes(image), f"l{number}.nii": nifti_bytes(label)}
        rows.append(f"c{number},i{number}.nii,l{number}.nii,train")
    return files | {_TABLE: "\n".join(rows).encode()}


_OPTIONS = {"workers": 1, "group-by": "^(case_.)", "json": True, "regions": "all=1,2;cube=2"}


def _yaml_config() -> Files:
    lines = "".join(f"{key}: {json.dumps(value)}\n" for key, value in _OPTIONS.items())
    return _decathlon() | {_CONFIG: lines.encode()}


def _json_config() -> Files:
    return _decathlon() | {_JSON_CONFIG: json.dumps(_OPTIONS).encode()}


def _json_mutations(name: str) -> dict[str, FileMutation]:
    bytes_ = {kind: on_file(name, BYTE_MUTATIONS[kind]) for kind in ("flip_bits", "truncate", "insert")}
    return bytes_ | {"json": on_file(name, mutate_json), "json_text": on_file(name, mutate_json_text)}


_TEXT = {"line": change_line, "number": change_number}
FORMATS = (
    Format(
        name="dataset_json",
        make=_decathlon,
        entry="mutant",
        mutations=_json_mutations(_MANIFEST),
        actions=("check_folder", "convert_folder"),
    ),
    Format(
        name="dataset_json_nnunet",
        make=_nnunet,
        entry="mutant",
        mutations=_json_mutations(_MANIFEST),
        actions=("check_folder", "convert_folder"),
    ),
    Format(
        name="table",
        make=_table,
        entry=_TABLE,
        mutations=byte_mutations(_TABLE)
        | {kind: on_file(_TABLE, m) for kind, m in {**_TEXT, "path": replace_path}.items()},
        actions=("convert_table",),
    ),
    Format(
        name="config_yaml",
        make=_yaml_config,
        entry=_CONFIG,
        mutations=byte_mutations(_CONFIG)
        | {kind: on_file(_CONFIG, m) for kind, m in {**_TEXT, "hostile": replace_yaml}.items()},
        actions=("check_config",),
    ),
    Format(
        name="config_json",
        make=_json_config,
        entry=_JSON_CONFIG,
        mutations=_json_mutations(_JSON_CONFIG),
        actions=("check_config",),
    ),
)
