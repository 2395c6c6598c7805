"""The choices between a few words that users make, each said once.

They stand here, apart from what they choose between, so that the command line can list them without loading it.
"""

from __future__ import annotations

from typing import Literal

Orientation = Literal["canonical", "stored"]
"""The working orientation: every image turned to RAS, or as its file stores it."""
Order = Literal["nnunet", "recipe"]
"""Of preprocessing's steps: normalise, then resample; or resample, then normalise."""
Block = Literal["plain", "residual"]
"""Of the encoder."""
Norm = Literal["instance", "batch", "group"]
"""Normalisation layers."""
Shortcut = Literal["pooled", "strided"]
"""How a residual block's shortcut gets to a coarser grid: by mean pooling, or by the stride of its 1x1 convolution."""
PrecisionChoice = Literal["auto", "fp32", "bf16", "fp16"]
"""Arithmetic: ``auto`` takes bf16 where the device is made for it."""
Precision = Literal["fp32", "bf16", "fp16"]
"""Number format in which a network computes."""
Blend = Literal["gaussian", "constant"]
"""Weights of overlapping windows."""
Layout = Literal["auto", "channels_first", "channels_last"]
"""How feature maps lie in memory; ``auto``: channels last on CPUs, where that was measured to be faster, else first."""
Grid = Literal["original", "prepared"]
"""That scores are taken on: the files' own, or the resampled and cropped one that the network sees."""
PreparedFor = Literal["train", "val", "test"]
"""Cases are prepared to be trained on; or, by a trained model's plan, to be predicted: with or without a label."""
Modality = Literal["CT", "MRI"]
"""Of images: CT has a scale, HU; MRI (and all else) has none."""
PresetName = Literal["recipe"]
"""Defaults other than ours: those of NVIDIA's nnU-Net for PyTorch, version of 2021."""
Affinity = Literal[
    "disabled", "single", "single_unique", "socket", "socket_unique_interleaved", "socket_unique_continuous"
]
"""How the training process of each GPU is bound to processors."""
ForegroundRule = Literal["object", "positive"]
"""What the foreground channel marks: voxels of the object, or those that are positive once normalised."""
Weights = Literal["final", "best"]
"""Of a trained model: from the end of training, or from where validation was best."""
BucketRegion = Literal["us", "eu"]
"""Where the public bucket of the Decathlon stands."""
WandbMode = Literal["offline", "online"]
"""Whether what Weights & Biases logs stays in the run's folder or is sent to its server."""
BenchmarkMode = Literal["train", "predict"]
"""What a benchmark measures."""
DatasetLayout = Literal["decathlon", "nnunet"]
"""How a raw dataset lies in its folder: the Medical Segmentation Decathlon's way, or nnU-Net v2's."""
ImageSuffix = Literal[".nii.gz", ".nii", ".nrrd", ".mha"]
"""Kinds of image files that can be written."""
