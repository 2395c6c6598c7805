"""Codes and colours of structures: SNOMED CT where the name is a known one, a private code otherwise.

Names are looked up in pydicom's dictionary of SNOMED CT codes, which needs no network. The words of a name decide, in
any order: ``kidney_left`` and ``Left kidney`` are a kidney with the modifier *left*, unless the dictionary has a code
for the left one itself.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from pydantic import ValidationError

from decathlete.core.documents import read_json
from decathlete.core.files import value_digest
from decathlete.core.schema import describe
from decathlete.core.structure_codes import FIELD, DicomCode, StructureCode
from decathlete.errors import OptionError, problems_found

PRIVATE_SCHEME = "99DECATHLETE"
"""Coding scheme of structures without a known code; DICOM reserves names that begin with 99 for private schemes."""
_MAX_MEANING = 64
_STOP_WORDS = {"of", "the", "and", "structure", "label"}
_LESIONS = {
    *("tumor", "lesion", "neoplasm", "mass", "necrosis", "edema", "cyst"),
    *("metastasis", "gtv", "nodule", "hemorrhage", "infarct", "cancer"),
}
_SYNONYMS = {
    "tumor": "neoplasm",
    "cancer": "neoplasm",
    "gtv": "gross tumor volume",
    "gtv mass": "gross tumor volume",
    "oesophagus": "esophagus",
    "bladder": "urinary bladder",
    "adrenal": "adrenal gland",
}
_SPELLINGS = {"tumour": "tumor", "oedema": "edema", "haemorrhage": "hemorrhage", "vertebrae": "vertebra"}
_AMBIGUOUS = {"enhancing", "non", "anterior", "posterior", "nucleus", "cell"}
"""Words that change or hide what the others name: a part of a structure, or another meaning."""


ANATOMY = DicomCode(code="91723000", meaning="Anatomical Structure")
ABNORMALITY = DicomCode(code="49755003", meaning="Morphologically Abnormal Structure")
_SIDES = {"left": DicomCode(code="7771000", meaning="Left"), "right": DicomCode(code="24028007", meaning="Right")}


@dataclass(frozen=True, kw_only=True)
class Description:
    """How a structure appears in a DICOM object."""

    name: str
    code: StructureCode
    category: DicomCode
    color: tuple[int, int, int]


def describe_structures(names: tuple[str, ...], codes: Mapping[str, StructureCode]) -> tuple[Description, ...]:
    """Return code, category and colour of each structure; ``codes`` precede the dictionary."""
    return tuple(_describe(name, place, codes.get(name)) for place, name in enumerate(names))


def read_structure_codes(path: Path) -> dict[str, StructureCode]:
    """Read the codes of a ``dataset.json`` (its field ``dicom_codes``: structure -> code, scheme, meaning, ...).

    Raises:
        OptionError: the file cannot be read, has no such field, or a code is not valid.
    """
    remedy = f'write "{FIELD}": {{"liver": {{"code": "10200004", "scheme": "SCT", "meaning": "Liver"}}}}'
    content = read_json(path, error=OptionError, remedy=remedy)
    given = content.get(FIELD) if isinstance(content, dict) else None
    if not isinstance(given, dict):
        raise OptionError(f'has no object "{FIELD}"', where=path, remedy=remedy)
    codes, problems = {}, []
    for name, entry in given.items():
        try:
            codes[name] = StructureCode.model_validate(entry)
        except ValidationError as problem:
            problems += [f"{FIELD}.{name}: {text}" for text in describe(problem)]
    if problems:
        raise problems_found(problems, where=path, remedy=remedy, kind=OptionError)
    return codes


def find_code(name: str) -> StructureCode | None:
    """Return the SNOMED CT code of a structure by its name, or ``None``.

    >>> find_code("kidney_left").meaning, find_code("kidney_left").modifier.meaning
    ('Kidney', 'Left')
    """
    words = _words(name)
    if words & _AMBIGUOUS:
        return None
    for side in (None, *(side for side in _SIDES if side in words)):
        rest = words - {side} if side else words
        for key in (rest, _words(_SYNONYMS.get(" ".join(sorted(rest)), ""))):
            if key and (found := _dictionary().get(frozenset(key))):
                return StructureCode(code=found[0], meaning=found[1], modifier=_SIDES[side] if side else None)
    return None


def _describe(name: str, place: int, given: StructureCode | None) -> Description:
    code = given or find_code(name) or _private_code(name)
    is_lesion = bool(_words(name) & _LESIONS or _words(code.meaning) & _LESIONS)
    category = code.category or (ABNORMALITY if is_lesion else ANATOMY)
    return Description(name=name, code=code, category=category, color=code.color or _color(place))


def _private_code(name: str) -> StructureCode:
    return StructureCode(code=value_digest(name)[:16].upper(), scheme=PRIVATE_SCHEME, meaning=name[:_MAX_MEANING])


def _color(place: int) -> tuple[int, int, int]:
    """Return a colour that differs from its neighbours: hues in steps of the golden ratio."""
    red, green, blue = colorsys.hsv_to_rgb((place * 0.618034 + 0.03) % 1, 0.65, 0.95)
    return (round(255 * red), round(255 * green), round(255 * blue))


def _words(text: str) -> frozenset[str]:
    """Split a name at capitals, digits and separators, in lower case and one spelling."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+", text)
    lower = (part.lower() for part in parts)
    return frozenset(_SPELLINGS.get(word, word) for word in lower if word not in _STOP_WORDS)


@cache
def _dictionary() -> dict[frozenset[str], tuple[str, str]]:
    """Words of a keyword -> code and meaning; the shortest keyword wins where several have the same words."""
    snomed = import_module("pydicom.sr.codedict").codes.SCT
    found: dict[frozenset[str], tuple[str, str]] = {}
    for keyword in sorted(snomed.dir(), key=lambda k: (len(k), k)):
        code = getattr(snomed, keyword)
        if len(code.meaning) <= _MAX_MEANING:
            found.setdefault(_words(keyword), (code.value, code.meaning))
    return found
