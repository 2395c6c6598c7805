"""The pipeline that Triton's Python backend runs: images in, label maps on the images' own grids out.

A request holds one image, either as ``volume`` (channel, z, y, x) with ``affine``, or as the bytes of a ``file``, which
is one image file, or a zip of DICOM series or of one file per channel. ``affine`` maps the voxel (x, y, z) to mm in
RAS+, as in NIfTI. The parameter ``probabilities`` of a request asks for the output of this name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decathlete.core.documents import parse_json
from decathlete.core.geometry import Geometry
from decathlete.core.parallel import Outcome
from decathlete.core.scratch import scratch_folder
from decathlete.core.sizes import format_bytes
from decathlete.errors import DecathleteError, ImageError, OptionError
from decathlete.export.triton_engine import FALLBACK_PRECISION, engine_of, explain_precision
from decathlete.inference.batching.case_predictor import LocalCasePredictor
from decathlete.inference.batching.shared_batches import CaseRequest, CaseResult
from decathlete.inference.options import AUTO, PredictOptions
from decathlete.inference.output.probabilities import ProbabilityArray
from decathlete.inference.predict import Predictor
from decathlete.inference.prediction import Prediction
from decathlete.inference.sources import as_image
from decathlete.io.images import Image, read_channels, read_grid
from decathlete.serving.inputs import ReceivedFile, find_channels
from decathlete.serving.private_log import collect_warnings, private_logging
from decathlete.serving.triton.tensors import check_exchange, make_tensor, read_tensor

UNPACKED_BYTES = 8 * 2**30
"""Maximum size of a zip's content, and of an image in memory."""
_FLOAT_BYTES = 4
_XYZ = [2, 1, 0, 3]  # columns of an affine for voxels (x, y, z) from one for arrays (z, y, x), and back


class PipelineModel:
    """A Decathlete model for Triton. Its methods have the names that the Python backend calls."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the model once, for all requests."""
        import triton_python_backend_utils  # exists only in Triton's process

        self._backend: Any = triton_python_backend_utils
        check_exchange(self._backend)
        parameters = {k: v["string_value"] for k, v in parse_json(args["model_config"]).get("parameters", {}).items()}
        if int(parameters.get("threads", "0")):
            torch.set_num_threads(int(parameters["threads"]))
        on_gpu = args["model_instance_kind"] == "GPU"
        predictor = Predictor.load(
            Path(args["model_repository"]) / args["model_version"] / "bundle",
            options=PredictOptions(
                device=f"cuda:{args['model_instance_device_id']}" if on_gpu else "cpu",
                engine=engine_of(parameters),
                precision=self._precision(parameters, on_cpu=not on_gpu),
            ),
        )
        self._cases = LocalCasePredictor(predictor)
        self._logging = ExitStack()
        self._logging.enter_context(private_logging())  # warnings about an image are for its sender alone

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Segment the images of the requests that Triton has batched, as ``decathlete predict`` does it.

        Small images share batches of windows; the next image is prepared while one is computed. A request that fails
        does not affect the others.
        """
        inputs: dict[str, _Inputs] = {}
        responses: dict[str, Any] = {}
        for number, request in enumerate(requests):
            try:
                inputs[str(number)] = self._inputs(request)
            except Exception as problem:  # whatever is wrong with its tensors or parameters
                responses[str(number)] = self._error(str(problem))
        outcomes = self._cases.run(inputs, read=_read, write=_prediction)
        responses |= {outcome.case_id: self._respond(outcome) for outcome in outcomes}
        return [responses[str(number)] for number in range(len(requests))]

    def finalize(self) -> None:
        """Release the model."""
        del self._cases
        self._logging.close()

    def _precision(self, parameters: Mapping[str, str], *, on_cpu: bool) -> str:
        """Return the precision of the configuration, or another one if this device does not compute in it.

        The configuration may be for any device. A model that cannot be loaded keeps the server from starting.
        """
        precision = parameters.get("precision", AUTO)
        reason = explain_precision(precision, engine=parameters.get("engine", AUTO), on_cpu=on_cpu)
        if not reason:
            return precision
        self._backend.Logger.log_warn(f"the pipeline computes in {FALLBACK_PRECISION}: {reason}")
        return FALLBACK_PRECISION

    def _inputs(self, request: Any) -> _Inputs:
        volume, affine, file = (read_tensor(request, n, self._backend) for n in ("volume", "affine", "file"))
        asked = bool(parse_json(request.parameters() or "{}").get("probabilities"))
        return _Inputs(volume=volume, affine=affine, file=file, probabilities=asked)

    def _respond(self, outcome: Outcome[Prediction]) -> Any:
        if outcome.value is not None:
            return self._answer(outcome.value)
        code = "" if outcome.cause is None else f"{outcome.cause.code}: "
        return self._error(f"{code}{outcome.error}")

    def _error(self, text: str) -> Any:
        error = self._backend.TritonError(text, self._backend.TritonError.INVALID_ARG)
        return self._backend.InferenceResponse(output_tensors=[], error=error)

    def _answer(self, prediction: Prediction) -> Any:
        outputs = {
            "label": torch.from_numpy(np.ascontiguousarray(prediction.label_ZYX)),
            "label_affine": torch.from_numpy(np.ascontiguousarray(prediction.geometry.matrix[:, _XYZ])),
            "volumes_ml": _volumes_of(prediction),
            "report": torch.frombuffer(bytearray(report_of(prediction).encode()), dtype=torch.uint8),
        }
        if prediction.probabilities_KZYX is not None:
            outputs["probabilities"] = torch.from_numpy(np.ascontiguousarray(prediction.probabilities_KZYX))
        return self._backend.InferenceResponse([self._output(name, value) for name, value in outputs.items()])

    def _output(self, name: str, value: Tensor) -> Any:
        return make_tensor(name, value.unsqueeze(0), self._backend)


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """The tensors of a request, and whether it asks for probabilities."""

    volume: Tensor | None
    affine: Tensor | None
    file: Tensor | None
    probabilities: bool

    def read(self, channels: Sequence[str]) -> tuple[Image, Sequence[str]]:
        """Return the image and warnings of its reader.

        Args:
            channels: of the model.

        Raises:
            OptionError: there is none, or several.
            ImageError, ArchiveError, ServiceError: it cannot be read, or is not one for the model.
        """
        if (self.volume is None) == (self.file is None) or (self.volume is None) != (self.affine is None):
            raise OptionError(
                "a request needs either the inputs volume and affine, or the input file",
                remedy="send an image in one of these ways",
            )
        for tensor in (self.volume, self.affine, self.file):
            if tensor is not None and len(tensor) != 1:
                raise OptionError(
                    "a request holds one image, so the first axis of its inputs is 1",
                    remedy="send a request for each image; the server batches them",
                )
        if self.file is not None:
            return read_file(self.file[0].numpy().tobytes(), channels)
        assert self.volume is not None  # for the type checker: checked above
        assert self.affine is not None
        return image_of(self.volume[0].numpy(), self.affine[0].numpy()), ()


def _read(predictor: Predictor, inputs: _Inputs) -> CaseRequest[None]:
    image, warnings = inputs.read(predictor.ensembles[0].plan.channels)
    prepared = predictor.prepare(image)
    prepared = replace(prepared, warnings=(*warnings, *prepared.warnings))
    return CaseRequest(
        prepared=prepared, payload=None, probabilities=ProbabilityArray if inputs.probabilities else None
    )


def _prediction(_: Predictor, result: CaseResult[None]) -> Prediction:
    return result[1]


def _volumes_of(prediction: Prediction) -> Tensor:
    """Return the volume of each structure, mL; NaN if the image has no spacing."""
    volumes = [prediction.volumes_ml.get(name, math.nan) for name in prediction.voxels]
    return torch.tensor(volumes, dtype=torch.float64)


def report_of(prediction: Prediction) -> str:
    """Return the report of a prediction as JSON: volumes and voxels by name, warnings, seconds."""
    return json.dumps(
        {
            "volumes_ml": prediction.volumes_ml,
            "voxels": prediction.voxels,
            "warnings": list(prediction.warnings),
            "seconds": prediction.seconds,
        }
    )


def image_of(volume_CZYX: np.ndarray[Any, Any], affine_XYZ: np.ndarray[Any, Any]) -> Image:
    """Return an image from an array and its NIfTI affine.

    Raises:
        ImageError: the affine is no grid.
    """
    _, z, y, x = volume_CZYX.shape
    try:
        geometry = Geometry.from_matrix((z, y, x), np.asarray(affine_XYZ, np.float64)[:, _XYZ])
    except ValueError as problem:
        raise ImageError(f"the affine is no grid ({problem})", remedy="send the affine of the NIfTI header") from None
    return as_image(volume_CZYX, geometry=geometry)


def read_file(content: bytes, channels: Sequence[str]) -> tuple[Image, Sequence[str]]:
    """Read an image from the bytes of a file, and return it with the warnings of its reader.

    Args:
        content: an image file, or a zip of DICOM series or of one file per channel. Of several series, those of the
            channels are chosen as by ``decathlete predict``.
        channels: of the model.

    Raises:
        ImageError, ArchiveError, ServiceError: it cannot be read, or is not an image for the model.
    """
    with scratch_folder() as folder, collect_warnings() as logged, _named_by_input():
        received = ReceivedFile(name="received", path=folder / "received")
        received.path.write_bytes(content)
        paths = find_channels([received], folder, channels=channels, image_bytes=UNPACKED_BYTES)
        _require_size(paths)
        image = read_channels(paths, n_channels=len(channels))
    return image, [text.replace(f"{folder}/numbered", "input file").replace(f"{folder}/", "") for text in logged]


def _require_size(paths: Sequence[Path]) -> None:
    """Check the size that an image will have in memory, by its headers: a small compressed file may be a large image.

    Raises:
        ImageError: it is too large.
    """
    grids = [read_grid(path) for path in paths]
    n_bytes = _FLOAT_BYTES * sum(n_channels * math.prod(geometry.shape_ZYX) for n_channels, geometry in grids)
    if n_bytes > UNPACKED_BYTES:
        raise ImageError(
            f"the image needs {format_bytes(n_bytes)} of memory, and {format_bytes(UNPACKED_BYTES)} are allowed",
            remedy="crop the image",
        )


@contextmanager
def _named_by_input() -> Iterator[None]:
    """Let errors name the input instead of a temporary file of the server."""
    try:
        yield
    except DecathleteError as problem:
        problem.where = "input file"
        raise
