"""The client of MONAI Label that 3D Slicer's plug-in uses, against a service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from decathlete.io.images import read_label
from decathlete.workflows.predict import predict
from service_support import FP32, TOKEN, image_bytes, save_model, service_client, settings_for
from viewer_support import monai_label_client

pytestmark = [
    pytest.mark.full,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of cgi, which the client uses
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # the client does not close its files and connections
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def module() -> Any:
    return monai_label_client()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model")


def make_studies(folder: Path) -> Path:
    folder.mkdir()
    (folder / "case_1.nii.gz").write_bytes(image_bytes())
    return folder


def connect(module: Any, client: httpx.Client, folder: Path) -> Any:
    return module.MONAILabelClient(str(client.base_url), tmpdir=str(folder), client_id="slicer")


def test_the_client_segments_corrects_and_stores(module, model, tmp_path) -> None:
    studies = make_studies(tmp_path / "studies")
    predict(model, studies, tmp_path / "predicted", options=FP32)
    expected = read_label(tmp_path / "predicted" / "case_1.nii.gz").array_ZYX
    with service_client(settings_for(model, tmp_path / "data", studies=str(studies))) as http:
        client = connect(module, http, tmp_path)
        assert client.auth_enabled() is False
        assert client.info()["models"]["tiny"]["type"] == "segmentation"
        session = client.create_session(str(studies / "case_1.nii.gz"))["session_id"]
        asked = {"result_extension": ".nrrd", "result_dtype": "uint8"}
        segmentation, about = client.infer("tiny", "", dict(asked), session_id=session)
        np.testing.assert_array_equal(read_label(Path(segmentation)).array_ZYX, expected)
        assert set(about["label_names"].values()) == set(np.unique(expected)) - {0}
        by_id, _ = client.infer("tiny", "case_1", {})
        by_file, _ = client.infer("tiny", "", {}, file=str(studies / "case_1.nii.gz"))
        for path in (by_id, by_file):
            np.testing.assert_array_equal(read_label(Path(path)).array_ZYX, expected)
        client.save_label("case_1", segmentation, params={"label_info": [{"name": "a", "idx": 1}]})
        stored = client.download_label("case_1", "final")
        np.testing.assert_array_equal(read_label(Path(stored)).array_ZYX, expected)
        assert client.datastore()["objects"]["case_1"]["labels"]["final"]
        client.upload_image(str(studies / "case_1.nii.gz"), "new")
        assert client.info()["datastore"] == {"total": 2, "completed": 1}
        assert client.remove_session(session)["name"] == session


def test_the_client_reads_why_something_failed(module, model, tmp_path) -> None:
    with service_client(settings_for(model, tmp_path / "data")) as http:
        client = connect(module, http, tmp_path)
        assert client.train_status(check_if_running=True) is False
        for request, code in (
            (lambda: client.infer("tiny", "nothing", {}), "E-SERVICE-DATASTORE"),
            (lambda: client.infer("other", "nothing", {}), "E-SERVICE-MODEL"),
            (lambda: client.get_session("0" * 32), "E-SERVICE-DATASTORE"),
            (lambda: client.train_start("tiny", {}), "E-SERVICE-NOT-OFFERED"),
            (lambda: client.next_sample("random", {}), "E-SERVICE-NOT-OFFERED"),
        ):
            with pytest.raises(module.MONAILabelClientException) as caught:
                request()
            assert code in caught.value.msg


def test_the_client_logs_in_with_the_token_as_password(module, model, tmp_path) -> None:
    studies = make_studies(tmp_path / "studies")
    settings = settings_for(model, tmp_path / "data", studies=str(studies), token=TOKEN)
    with service_client(settings) as http:
        client = connect(module, http, tmp_path)
        assert client.auth_enabled() is True
        with pytest.raises(module.MONAILabelClientException):
            client.info()
        client.update_auth(client.auth_token("anyone", TOKEN))
        assert client.auth_valid_token() is True
        assert client.infer("tiny", "case_1", {})[0].endswith(".nii.gz")
