"""--brats: the regions by the names of the labels, whatever their numbers; what names do not decide is refused."""

from __future__ import annotations

import pytest

from decathlete.core.labels import LabelClass, LabelSet
from decathlete.dataset.brats import brats_regions, tumour_part
from decathlete.dataset.regions import resolve_labels
from decathlete.errors import OptionError


def labels_of(**names: int) -> LabelSet:
    classes = [LabelClass(name=n.replace("_", " "), value=v) for n, v in names.items()]
    return LabelSet(classes=(LabelClass(name="background", value=0), *sorted(classes, key=lambda c: c.value)))


DECATHLON = labels_of(edema=1, non_enhancing_tumor=2, enhancing_tumour=3)
BRATS_2021 = LabelSet.from_names(["necrotic tumor core (NCR)", "peritumoral edematous/invaded tissue (ED)", "GD-ET"])
BRATS_2013 = LabelSet.from_names(["necrosis", "edema", "non-enhancing tumor", "enhancing tumor"])
BRATS_2020 = labels_of(**{"NCR/NET": 1, "ED": 2, "ET": 4})
BRATS_2023 = LabelSet.from_names(["NETC", "SNFH", "ET"])


@pytest.mark.parametrize(
    ("labels", "whole", "core", "enhancing", "order"),
    [
        (DECATHLON, (1, 2, 3), (2, 3), (3,), (1, 2, 3)),
        (BRATS_2021, (1, 2, 3), (1, 3), (3,), (2, 1, 3)),
        (BRATS_2013, (1, 2, 3, 4), (1, 3, 4), (4,), (2, 1, 4)),
        (BRATS_2020, (1, 2, 4), (1, 4), (4,), (2, 1, 4)),
        (BRATS_2023, (1, 2, 3), (1, 3), (3,), (2, 1, 3)),
    ],
    ids=["Decathlon 01", "BraTS 2021", "BRATS 2013", "BraTS 2020", "BraTS 2023"],
)
def test_numberings(labels, whole, core, enhancing, order) -> None:
    found = resolve_labels(labels, brats=True)
    assert {r.name: r.values for r in found.regions} == {"whole tumour": whole, "core": core, "enhancing": enhancing}
    assert found.region_order == order
    assert found.classes == labels.classes


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("oedema", ["edema", "Oedema", "œdema", "PERITUMORAL_EDEMA", "ED", "edematous tissue", "SNFH",
                    "surrounding non-enhancing FLAIR hyperintensity", "label_2_oedema"]),
        ("core", ["necrosis", "Necrotic core", "NCR", "NCR/NET", "ncr_net", "NET", "non-enhancing",
                  "nonenhancing tumor", "NON_ENHANCING_TUMOUR", "NonEnhancing", "necrotic and non-enhancing tumor core",
                  "unenhancing tumour",
                  "non contrast-enhancing tumour", "not enhancing", "tumour core"]),
        ("enhancing", ["enhancing", "enhancing tumour", "Enhancing_Tumor", "ET", "EnhancingTumor", "GD-enhancing tumor",
                       "contrast enhancement", "enhancing core", "AT/ET"]),
        (None, ["background", "tumour", "whole tumour", "label 1", "brain", "resection cavity", "planet", "edited",
                "edema and non-enhancing tumour", "enhancing and necrotic tumour", "edema or enhancing",
                "enhancing and non-enhancing", "tumour without edema", "core and edema"]),
    ],
)  # fmt: skip
def test_spellings(part, names) -> None:
    assert {name: tumour_part(name) for name in names} == dict.fromkeys(names, part)


@pytest.mark.parametrize(
    ("labels", "messages"),
    [
        (labels_of(edema=1, tumour=2, cavity=3), ["label 2 is called 'tumour'", "label 3 is called 'cavity'"]),
        (labels_of(edema=1, enhancing=2), ["no label is called necrosis or non-enhancing"]),
        (labels_of(necrosis=1, enhancing=2), ["no label is called oedema"]),
        (labels_of(necrosis=1, edema=2), ["no label is called enhancing"]),
        (LabelSet.from_names(["Anterior", "Posterior"]), ["'Anterior'", "'Posterior'"]),
    ],
)
def test_names_that_do_not_decide_are_refused(labels, messages) -> None:
    with pytest.raises(OptionError) as caught:
        brats_regions(labels)
    for message in messages:
        assert message in str(caught.value)
    assert "--regions 'whole tumour=" in str(caught.value.remedy)


def test_where_the_manifest_has_regions_the_refusal_says_so() -> None:
    declared = resolve_labels(LabelSet.from_names(["label 1", "label 2"]), regions="all=1,2;b=2")
    with pytest.raises(OptionError, match=r"dataset\.json declares regions"):
        resolve_labels(declared, brats=True)


@pytest.mark.real_data
def test_the_real_cohort(real_data) -> None:
    from decathlete.dataset.manifest import read_dataset

    found = resolve_labels(read_dataset(real_data("BRATS2013_FLAIR_T1c")).labels, brats=True)
    assert [r.values for r in found.regions] == [(1, 2, 3, 4), (1, 3, 4), (4,)]
