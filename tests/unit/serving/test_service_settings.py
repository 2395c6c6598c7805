"""Settings of the service: models, token and addresses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from decathlete.errors import OptionError
from decathlete.serving.settings import ModelSource, ServiceSettings, read_token

MODELS = (ModelSource(folder=Path("model")),)


@pytest.mark.parametrize(
    ("text", "name", "folder"),
    [
        ("results/a/fold_0", None, "results/a/fold_0"),
        ("liver=results/a", "liver", "results/a"),
        ("results/x=1/fold_0", None, "results/x=1/fold_0"),
    ],
)
def test_a_model_may_have_a_name(text: str, name: str | None, folder: str) -> None:
    assert ModelSource.parse(text) == ModelSource(folder=Path(folder), name=name)


@pytest.mark.parametrize("text", ["", "liver=", "two words=model", "-x=model"])
def test_a_name_must_fit_into_an_address(text: str) -> None:
    with pytest.raises(OptionError, match="NAME=DIR"):
        ModelSource.parse(text)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"models": ()}, "no model"),
        ({"host": "0.0.0.0"}, "no token protects"),
        ({"host": "192.0.2.7"}, "no token protects"),
        ({"token": "short"}, "at least 16"),
        ({"allow_origins": ("*",)}, "not the address of a site"),
        ({"allow_origins": ("https://a.example/path",)}, "not the address of a site"),
        ({"allow_hosts": ("seg.example.org:8443",)}, "write it as seg.example.org, without a port"),
        ({"allow_hosts": ("[2001:db8::1]:8443",)}, "is not the name of a computer"),
        ({"allow_hosts": ("https://seg.example.org",)}, "is not the name of a computer"),
        ({"allow_hosts": ("*.example.org",)}, "is not the name of a computer"),
        ({"allow_hosts": ("",)}, "is not the name of a computer"),
        ({"data": Path("images/service"), "studies": "images"}, "uploads would be listed as studies"),
        ({"data": Path("service"), "studies": "service/../service/"}, "uploads would be listed as studies"),
        ({"image_formats": {"nifti": {"compression_level": 9}}}, "only changes how files are written"),
    ],
)
def test_unsafe_settings_are_rejected(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ServiceSettings(**({"models": MODELS, "data": Path("data")} | fields))


@pytest.mark.parametrize("studies", ["images", "service/images", "https://archive.example.org/dicom-web"])
def test_studies_lie_elsewhere(studies: str) -> None:
    assert ServiceSettings(models=MODELS, data=Path("service"), studies=studies).studies == studies


def test_other_computers_need_the_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("  a-token-of-enough-characters\n")
    settings = ServiceSettings(models=MODELS, data=Path("data"), host="0.0.0.0", token=read_token(file))
    assert settings.token == "a-token-of-enough-characters"
    assert "enough" not in repr(settings)
    file.write_text("two words are no token at all")
    with pytest.raises(OptionError, match="printable ASCII"):
        read_token(file)
