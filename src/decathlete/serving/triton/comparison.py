"""Compare what a server computes with what the model computes here, case by case."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decathlete.core.documents import parse_json
from decathlete.core.files import replace_folder
from decathlete.core.labels import LabelSet
from decathlete.core.schema import Schema
from decathlete.core.scratch import scratch_folder
from decathlete.dataset.spec import Case
from decathlete.errors import TritonError
from decathlete.inference.output.probabilities import ProbabilityFile
from decathlete.inference.output.restore import Restorer
from decathlete.inference.predict import Predictor
from decathlete.inference.prediction import Prediction, PreparedInput
from decathlete.inference.windows.flips import mean_over_flips
from decathlete.inference.windows.sweep import VolumeSweep
from decathlete.io.images import Image, read_channels
from decathlete.serving.triton.client import TritonClient
from decathlete.serving.triton.protocol import InferenceRequest

_XYZ = [2, 1, 0, 3]


class CaseComparison(Schema):
    """The differences of one case.

    Attributes:
        logit_difference: greatest difference of logits, as a share of the greatest logit; ``None`` for a pipeline.
        dice: of each structure, between the label map from the server and that of the model here; a structure that
            both lack is left out.
        n_voxels: of the image.
        n_changed: voxels with another label.
        margin: greatest difference between the probabilities of the two best classes among the changed voxels.
        differing: other outputs of a pipeline that differ: ``volumes_ml``, ``warnings``, ``label_affine``.
    """

    case_id: str
    logit_difference: float | None
    dice: dict[str, float]
    n_voxels: int
    n_changed: int
    margin: float
    differing: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _SentImage:
    """An image that the server computes."""

    case_id: str
    image: Image
    request: InferenceRequest
    is_file: bool


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Compares cases of one model on a server.

    Attributes:
        model: name on the server.
        predictor: the same model, loaded here.
        dump: folder for inputs and outputs; ``None``: they are not written.
    """

    client: TritonClient
    model: str
    predictor: Predictor
    dump: Path | None = None

    def networks(self, cases: Iterable[Case]) -> Iterator[CaseComparison]:
        """Send all windows of each image, and compare logits and label map.

        Raises:
            TritonError: the server rejects a request, or does not answer.
            ImageError: an image cannot be read.
        """
        return map(self._network, cases)

    def pipelines(self, cases: Iterable[Case], *, as_files: bool) -> Iterator[CaseComparison]:
        """Send images, as volumes or as the bytes of their files, and compare the label maps and what comes with them.

        The server computes other images, which it batches, while one is compared here.

        Raises:
            TritonError: the server rejects a request, or does not answer.
            ImageError: an image cannot be read.
        """
        sent: deque[_SentImage] = deque()

        def requests() -> Iterator[InferenceRequest]:
            for case in cases:
                image = self._read(case)
                request = InferenceRequest(
                    model=self.model,
                    inputs=file_inputs(case.images[0]) if as_files else volume_inputs(image),
                    outputs=("label", "label_affine", "volumes_ml", "report"),
                )
                sent.append(_SentImage(case_id=case.id, image=image, request=request, is_file=as_files))
                yield request

        for answer in self.client.infer_all(requests()):
            yield self._pipeline(sent.popleft(), {name: value[0] for name, value in answer.items()})

    def _network(self, case: Case) -> CaseComparison:
        prepared = self.predictor.prepare(self._read(case))
        with self._dump_folder(case.id) as folder:
            difference, label_ZYX, served_ZYX = self._compute_both(prepared, folder)
        return self._compare(case.id, prepared, label_ZYX, served_ZYX, difference, ())

    def _pipeline(self, sent: _SentImage, served: Mapping[str, NDArray[Any]]) -> CaseComparison:
        prepared = self.predictor.prepare(sent.image)
        prediction = self.predictor.compute(prepared)
        report = parse_json(served["report"].tobytes().decode())
        with self._dump_folder(sent.case_id) as folder:
            if folder is not None:
                arrays: dict[str, Any] = dict(sent.request.inputs)
                arrays |= {f"served_{name}": value for name, value in served.items()}
                np.savez(folder / "case.npz", **arrays, label=prediction.label_ZYX)
        # Warnings about two transforms that disagree need the header, which only a file has. Before those of the
        # prediction are those of the reader.
        n_of_reader = len(report["warnings"]) - len(prediction.warnings)
        same = {
            "volumes_ml": _volumes_agree(report["volumes_ml"], prediction, served["label"]),
            "warnings": not sent.is_file or report["warnings"][n_of_reader:] == list(prediction.warnings),
            "label_affine": np.allclose(served["label_affine"], sent.image.geometry.matrix[:, _XYZ], atol=1e-6),
        }
        differing = tuple(name for name, is_same in same.items() if not is_same)
        return self._compare(sent.case_id, prepared, prediction.label_ZYX, served["label"], None, differing)

    def _read(self, case: Case) -> Image:
        return read_channels(
            case.images, spacing=case.spacing, formats=case.formats, n_channels=self.predictor.n_channels
        )

    def _compute_both(
        self, prepared: PreparedInput, folder: Path | None
    ) -> tuple[float, NDArray[np.integer[Any]], NDArray[np.integer[Any]]]:
        """Return the greatest difference of logits, the label map of the model here, and that of the server."""
        ensemble, case = self.predictor.ensembles[0], prepared.cases[0]
        metadata = self.client.metadata(self.model)
        (input_name,), (output_name,) = metadata.inputs, metadata.outputs
        sweeps = [
            VolumeSweep(case.image_CZYX, plan=ensemble.plan, device=self.predictor.device, window=self.predictor.window)
            for _ in range(2)
        ]
        restorers = [
            Restorer(case.restoration, self.predictor.labels, temperature=ensemble.temperature) for _ in range(2)
        ]
        requests = (
            InferenceRequest(model=self.model, inputs={input_name: window[None].contiguous().numpy()})
            for window in sweeps[0].windows()
        )
        apart, greatest = 0.0, torch.finfo().tiny
        with torch.inference_mode(), sweeps[0], sweeps[1]:
            answers = self.client.infer_all(requests)
            for number, (window, outputs) in enumerate(zip(sweeps[1].windows(), answers, strict=True)):
                both = [mean_over_flips(ensemble.engines, window[None], ()), self._logits(outputs[output_name])]
                _check_shape(both, self.model)
                apart = max(apart, float((both[0] - both[1]).abs().max()))
                greatest = max(greatest, float(both[0].abs().max()))
                if folder is not None:
                    np.savez(
                        folder / f"window_{number:05}.npz",
                        window=window.numpy(),
                        model=both[0][0].numpy(),
                        server=both[1][0].numpy(),
                    )
                for sweep, restorer, logits in zip(sweeps, restorers, both, strict=True):
                    for slab_KZYX in sweep.add(logits[0]):
                        restorer.add(slab_KZYX)
        labels = [self.predictor.describe(prepared, r.finish(), None, seconds=0.0).label_ZYX for r in restorers]
        return apart / greatest, labels[0], labels[1]

    def _logits(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.array(values, dtype=np.float32))  # a copy: those of the server are read-only

    def _compare(
        self,
        case_id: str,
        prepared: PreparedInput,
        label_ZYX: NDArray[np.integer[Any]],
        served_ZYX: NDArray[np.integer[Any]],
        logit_difference: float | None,
        differing: tuple[str, ...],
    ) -> CaseComparison:
        if served_ZYX.shape != label_ZYX.shape:
            raise TritonError(
                f"the label map of {case_id} has the shape {served_ZYX.shape}, not {label_ZYX.shape}",
                where=self.model,
                remedy="check that the model was exported from this model",
                code="E-TRITON-VERIFY",
            )
        changed_ZYX = served_ZYX != label_ZYX
        return CaseComparison(
            case_id=case_id,
            logit_difference=logit_difference,
            dice=dice_by_structure(label_ZYX, served_ZYX, self.predictor.labels),
            n_voxels=label_ZYX.size,
            n_changed=int(changed_ZYX.sum()),
            margin=self._margin(prepared, changed_ZYX) if changed_ZYX.any() else 0.0,
            differing=differing,
        )

    def _margin(self, prepared: PreparedInput, changed_ZYX: NDArray[np.bool_]) -> float:
        """Return how far the model here is from another decision, at most, in the changed voxels."""
        with scratch_folder() as folder:
            prediction = self.predictor.compute(prepared, probabilities=partial(ProbabilityFile, folder))
            store = prediction.probabilities
            assert isinstance(store, ProbabilityFile)  # for the type checker: made by the line above
            store.put_in_order()
            margins = [
                _decision_margin(store.planes(z, z + 1)[:, 0][:, changed_YX], self.predictor.labels)
                for z, changed_YX in enumerate(changed_ZYX)
                if changed_YX.any()
            ]
            store.discard()
        return max(margins)

    @contextmanager
    def _dump_folder(self, case_id: str) -> Iterator[Path | None]:
        if self.dump is None:
            yield None
            return
        with replace_folder(self.dump / self.model / self.client.options.protocol / case_id) as folder:
            yield folder


def volume_inputs(image: Image) -> dict[str, NDArray[Any]]:
    """Return the inputs of a pipeline for an image in memory."""
    return {
        "volume": image.array_CZYX[None],
        "affine": np.ascontiguousarray(image.geometry.matrix[:, _XYZ])[None],
    }


def file_inputs(path: Path) -> dict[str, NDArray[Any]]:
    """Return the inputs of a pipeline for a file."""
    return {"file": np.frombuffer(path.read_bytes(), np.uint8)[None]}


def dice_by_structure(
    label_ZYX: NDArray[np.integer[Any]], other_ZYX: NDArray[np.integer[Any]], labels: LabelSet
) -> dict[str, float]:
    """Return the Dice of each structure that at least one of two label maps contains."""
    found: dict[str, float] = {}
    for structure in labels.structures:
        one, other = np.isin(label_ZYX, structure.values), np.isin(other_ZYX, structure.values)
        total = int(one.sum()) + int(other.sum())
        if total:
            found[structure.name] = 2 * int((one & other).sum()) / total
    return found


def _decision_margin(probabilities_KV: NDArray[np.float32], labels: LabelSet) -> float:
    """Return the greatest margin among some voxels: between the two best classes, or from 1/2 for regions."""
    if labels.activation == "sigmoid":
        return float((2 * np.abs(probabilities_KV - 0.5)).min(axis=0).max())
    ordered_KV = np.sort(probabilities_KV, axis=0)
    return float((ordered_KV[-1] - ordered_KV[-2]).max())


def _check_shape(both: list[Tensor], model: str) -> None:
    if both[0].shape != both[1].shape:
        raise TritonError(
            f"its logits have the shape {tuple(both[1].shape)}, those of the model here {tuple(both[0].shape)}",
            where=model,
            remedy="check that it was exported from this model",
            code="E-TRITON-VERIFY",
        )


def _volumes_agree(
    served_ml: Mapping[str, float], prediction: Prediction, served_ZYX: NDArray[np.integer[Any]]
) -> bool:
    """Return whether volumes differ by no more than the voxels that have another label, which a threshold limits."""
    if served_ml.keys() != prediction.volumes_ml.keys() or served_ZYX.shape != prediction.label_ZYX.shape:
        return False
    changed_ml = np.count_nonzero(served_ZYX != prediction.label_ZYX) * prediction.geometry.voxel_volume_mm3 / 1000
    return all(abs(served_ml[name] - ml) <= changed_ml + 1e-9 for name, ml in prediction.volumes_ml.items())
