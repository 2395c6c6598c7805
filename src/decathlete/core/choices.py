"""Options that are one of a few words.

They are defined here, apart from the code that they select, so that the command line can list them without loading it.
"""

from __future__ import annotations

from typing import Literal

Configuration = Literal["2d", "3d", "3d_lowres", "3d_cascade"]
"""Configurations of one dataset: slices; volumes at full resolution; at low resolution; and a cascade of both."""
NetworkName = Literal["plain", "resenc-m", "resenc-l", "resenc-xl", "mednext-s", "mednext-b", "mednext-m", "mednext-l"]
"""Networks with a memory target of their own: nnU-Net's plain U-Net, its residual encoders, and MedNeXt."""
Orientation = Literal["canonical", "stored"]
"""Orientation in which images are processed: reoriented to RAS, or as the file stores it."""
Order = Literal["nnunet", "recipe"]
"""Order of the preprocessing steps: normalise, then resample; or resample, then normalise."""
Block = Literal["plain", "residual"]
"""Blocks of the encoder."""
Norm = Literal["instance", "batch", "group"]
"""Normalisation layers."""
Shortcut = Literal["pooled", "strided"]
"""How the shortcut of a residual block is downsampled: by mean pooling, or by the stride of its 1x1 convolution."""
PrecisionChoice = Literal["auto", "fp32", "bf16", "fp16"]
"""Arithmetic precision; ``auto``: bf16 on devices that support it in hardware."""
Precision = Literal["fp32", "bf16", "fp16"]
"""Number format in which a network computes."""
Blend = Literal["gaussian", "constant"]
"""Weighting of overlapping windows."""
Layout = Literal["auto", "channels_first", "channels_last"]
"""Memory format of feature maps; ``auto``: channels last on CPUs where that was measured to be faster, else first."""
Grid = Literal["original", "prepared"]
"""Grid on which predictions are scored: that of the files, or the resampled and cropped grid of the network."""
PreparedFor = Literal["train", "val", "test"]
"""Use of prepared cases: training; or prediction with a trained model's plan, with (val) or without (test) labels."""
Modality = Literal["CT", "MRI"]
"""Modality of images: CT has an absolute scale (HU); MRI and everything else has none."""
PresetName = Literal["recipe"]
"""Alternative defaults: those of NVIDIA's nnU-Net for PyTorch, version of 2021."""
Affinity = Literal[
    "disabled", "single", "single_unique", "socket", "socket_unique_interleaved", "socket_unique_continuous"
]
"""How the training process of each GPU is pinned to CPUs."""
ForegroundRule = Literal["object", "positive"]
"""Content of the foreground channel: voxels of the object, or voxels that are positive after normalisation."""
Weights = Literal["final", "best"]
"""Weights of a trained model: those at the end of training, or those with the best validation score."""
BucketRegion = Literal["us", "eu"]
"""Location of the public bucket with the Decathlon's data."""
WandbMode = Literal["offline", "online"]
"""Whether the log of Weights & Biases stays in the run's folder or is sent to its server."""
BenchmarkMode = Literal["train", "predict"]
"""Quantity that a benchmark measures: speed of training or of prediction."""
DatasetLayout = Literal["decathlon", "nnunet"]
"""Folder layout of a raw dataset: that of the Medical Segmentation Decathlon, or that of nnU-Net v2."""
OutputFormat = Literal["nifti", "dicom-seg", "rtstruct"]
"""Kind of file of a prediction: NIfTI, DICOM segmentation, or RT structure set."""
DicomKind = Literal["dicom-seg", "rtstruct"]
"""Kind of DICOM object of a prediction."""
SegmentationType = Literal["binary", "labelmap"]
"""Type of DICOM segmentations: a bit mask for each structure, or one map of numbers."""
