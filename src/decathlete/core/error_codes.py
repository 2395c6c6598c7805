"""The catalogue of error codes: what each one means and what to do about it.

The command line prints a code with every error, and the page ``docs/reference/errors.md`` is generated from this
catalogue (``python docs/_site/errors.py``). A code never changes its meaning; scripts may compare it. The sentences of
messages may change.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ErrorCode:
    """One kind of error.

    Attributes:
        code: stable name, e.g. ``"E-IMAGE-GEOMETRY"``.
        error: name of the exception class in :mod:`decathlete.errors` that usually carries the code.
        title: the error in a few words.
        meaning: what is wrong, one paragraph.
        remedy: what to do, one paragraph.
    """

    code: str
    error: str
    title: str
    meaning: str
    remedy: str


def documentation_of(code: str) -> str:
    """Return the place in the documentation that explains ``code``.

    >>> documentation_of("E-MEMORY")
    'docs/reference/errors.md#e-memory'
    """
    return f"docs/reference/errors.md#{code.lower()}"


_ENTRIES = (
    ErrorCode(
        code="E-GENERAL",
        error="DecathleteError",
        title="Other error",
        meaning="Something went wrong that has no code of its own; the message says what.",
        remedy="Follow the line with the arrow. If it does not help, open an issue with the whole message.",
    ),
    ErrorCode(
        code="E-FILE",
        error="DecathleteError",
        title="A file cannot be opened",
        meaning="The operating system did not let Decathlete read or write a file or folder.",
        remedy="Check the path, its permissions and whether the disk or network share is connected.",
    ),
    ErrorCode(
        code="E-OPTION",
        error="OptionError",
        title="An option does not fit",
        meaning="An option, or a combination of options, is not valid for this dataset, plan, model or device.",
        remedy="Correct the option that the message names. `decathlete COMMAND --help` lists all options.",
    ),
    ErrorCode(
        code="E-OPTION-CONFLICT",
        error="OptionError",
        title="Options contradict each other",
        meaning="Two options were given that exclude each other, or one that has no effect with the other.",
        remedy="Leave out one of the options that the message names.",
    ),
    ErrorCode(
        code="E-OPTION-FOLD",
        error="OptionError",
        title="No such fold",
        meaning="A fold was named that does not exist in the split of this dataset, or the text names no fold. Or the "
        "named folds hold out no case, so that there would be no scores.",
        remedy="Name folds from 0, as in `--fold 0`, `--folds 0-4` or `--folds 0,2`. To change the number of folds, "
        "run `decathlete preprocess` with `--n-folds` and `--overwrite`.",
    ),
    ErrorCode(
        code="E-OPTION-SYNTAX",
        error="OptionError",
        title="The text of an option cannot be read",
        meaning="The value of an option does not have the expected form, such as `1h30m` for a duration or `1,2,3` "
        "for a list of numbers.",
        remedy="Write the value as the line with the arrow shows.",
    ),
    ErrorCode(
        code="E-OPTION-REGIONS",
        error="OptionError",
        title="Regions do not fit the labels",
        meaning="The regions of `--regions` or `--brats` use values that the dataset does not declare, or they cannot "
        "be stored in one label map and read back.",
        remedy="Name regions by declared values, outer regions first, as in "
        "`--regions 'whole tumour=1,2,3;core=2,3;enhancing=3'`.",
    ),
    ErrorCode(
        code="E-OPTION-MIRROR-PAIRS",
        error="OptionError",
        title="Mirror pairs do not fit the labels",
        meaning="The pairs of `--mirror-pairs` name classes that the dataset does not declare, name a class twice, or "
        "separate a region from its mirror image. Or, in partially annotated data, mirrored patches need more "
        "different sets of annotated classes than label maps can tell apart.",
        remedy="Write two declared classes for each pair, as in `--mirror-pairs 'left kidney=right kidney'`, or "
        "`--mirror-pairs none`.",
    ),
    ErrorCode(
        code="E-PACKAGE-MISSING",
        error="MissingPackageError",
        title="An optional package is missing",
        meaning="The work needs an optional Python package that is not installed or cannot be imported.",
        remedy="Install the package or the extra that the message names, or choose the alternative that it offers.",
    ),
    ErrorCode(
        code="E-COMPONENT-UNKNOWN",
        error="OptionError",
        title="No such component",
        meaning="No loss, optimizer, transform or other component is registered under this name.",
        remedy="`decathlete components` lists all names. A component of your own is named `module:Class`.",
    ),
    ErrorCode(
        code="E-COMPONENT-IMPORT",
        error="OptionError",
        title="A component cannot be imported",
        meaning="The module of a component is missing, raises an error on import, or registers nothing of this kind.",
        remedy="Check that the package is installed in this environment and that importing the module succeeds.",
    ),
    ErrorCode(
        code="E-DATASET",
        error="DatasetError",
        title="The dataset cannot be used",
        meaning="The dataset is incomplete or its files do not fit together; the message lists every problem.",
        remedy="Correct the files that the message names. `decathlete check` lists all problems and warnings.",
    ),
    ErrorCode(
        code="E-DATASET-NOT-FOUND",
        error="DatasetError",
        title="The dataset was not found",
        meaning="No dataset with this name, number or path exists, or several datasets have this number.",
        remedy="Use the path of the folder, or set `--data` to the folder that contains the raw datasets.",
    ),
    ErrorCode(
        code="E-DATASET-MANIFEST",
        error="ManifestError",
        title="The manifest dataset.json is not valid",
        meaning="`dataset.json` is missing, is not valid JSON, or contradicts itself.",
        remedy="Correct the fields that the message names. Both the form of the Medical Segmentation Decathlon and "
        "that of nnU-Net v2 are read.",
    ),
    ErrorCode(
        code="E-DATASET-CHECK",
        error="DatasetError",
        title="The check found errors",
        meaning="Reading every file of the dataset found errors that prevent preprocessing.",
        remedy="Fix the listed files and run the command again.",
    ),
    ErrorCode(
        code="E-DATASET-DUPLICATES",
        error="DatasetError",
        title="Two cases have the same images, channels or label maps",
        meaning="The images of two cases are equal in every voxel. If one is trained on and the other held out, the "
        "scores are too good. Or two channels of a case are equal, or different images have equal label maps: a file "
        "was probably copied by mistake.",
        remedy="Keep one of the cases. Replace the files that were copied.",
    ),
    ErrorCode(
        code="E-DATASET-LABELS",
        error="DatasetError",
        title="Labels are missing",
        meaning="There is nothing to learn from or to score: no case has a label map, a label map is empty, or a "
        "declared class never occurs.",
        remedy="Add label maps, or correct the labels that `dataset.json` declares.",
    ),
    ErrorCode(
        code="E-DATASET-CONTOURS",
        error="DatasetError",
        title="A DICOM label is incomplete or does not fit",
        meaning="Parts of a structure set or segmentation are not used or are missing, and are background: contours "
        "lie beyond the image, are copies or not closed, or slices between others have none; a structure contains no "
        "voxel; or a class has no structure in some cases. Or the label refers to another series than the image of its "
        "case, or several label objects of one image have a structure of the same name.",
        remedy="Correct the label in the program that drew it, or the names of its structures (`--structures`, or "
        "`dicom_structures` in `dataset.json`). Of several objects with the same structure, keep one.",
    ),
    ErrorCode(
        code="E-DATASET-COHORT",
        error="DatasetError",
        title="Some cases differ from the others",
        meaning="Spacing, size, CT values or the direction of the axes of some cases lie far from those of all other "
        "cases, without anything between. A wrong unit, header or export is the usual reason. It is an error only if "
        "a case would become too large at the spacing of the others.",
        remedy="Look at the cases that the message names, and correct their headers or export them again. A warning "
        "may be ignored if the difference is real.",
    ),
    ErrorCode(
        code="E-DATASET-FOLDS",
        error="DatasetError",
        title="The folds have a problem",
        meaning="A fold trains without a class that it holds out, or given folds leave out cases, hold cases out "
        "twice, or separate cases of one patient. Random folds train on every class wherever that is possible.",
        remedy="Add cases with the class that the message names, or list other folds in a file for `--splits`.",
    ),
    ErrorCode(
        code="E-DATASET-SPLITS",
        error="ManifestError",
        title="The list of folds is not valid",
        meaning="The file of `--splits`, or `splits_final.json` beside `dataset.json`, is not a list of folds, or it "
        "does not fit the cases of the dataset.",
        remedy="Correct the file. Its form: a list with one object for each fold, whose `train` and `val` are lists of "
        "case names. Without the file, the cases are split at random.",
    ),
    ErrorCode(
        code="E-DATASET-NAMES",
        error="DatasetError",
        title="Names of cases differ only in upper and lower case",
        meaning="Files are named after cases. Disks that do not distinguish upper and lower case (most of Windows and "
        "macOS) store the files of `Case_1` and `case_1` under one name, so that one replaces the other. A warning; on "
        "other disks both are used.",
        remedy="Rename the files of one of them, and its entry in dataset.json.",
    ),
    ErrorCode(
        code="E-DATASET-UNUSED",
        error="DatasetError",
        title="Files of the dataset are not used",
        meaning="The dataset's folder contains images or other files to which dataset.json does not lead: another "
        "suffix, another folder, or no entry in its lists. A warning; everything else is used.",
        remedy="List the files in dataset.json or move them to the right folder, or remove them.",
    ),
    ErrorCode(
        code="E-DATASET-TABLE",
        error="DatasetError",
        title="The CSV file cannot be used",
        meaning="The table of cases is not valid CSV, lacks a column, or names cases twice.",
        remedy="Correct the lines that the message names. Columns: case, image (or one column for each channel), "
        "label, and optionally group and split.",
    ),
    ErrorCode(
        code="E-IMAGE",
        error="ImageError",
        title="An image cannot be used",
        meaning="One image file or DICOM series cannot be read or written; the message says why.",
        remedy="Correct or replace the file, or leave out its case.",
    ),
    ErrorCode(
        code="E-IMAGE-KIND",
        error="NotAnImageError",
        title="The DICOM file is not an image",
        meaning="The file contains structures (RTSTRUCT), a report or another object without voxels. Beside slices "
        "such files are left out.",
        remedy="Name the folder with the slices of the image.",
    ),
    ErrorCode(
        code="E-IMAGE-NOT-FOUND",
        error="ImageError",
        title="An image was not found",
        meaning="An image file or folder that was named does not exist, or a folder contains no images.",
        remedy="Check the path; on network shares, check that the share is mounted.",
    ),
    ErrorCode(
        code="E-IMAGE-NAME",
        error="ImageError",
        title="The name of an image cannot be stored",
        meaning="The name of a file contains bytes that are not UTF-8 (often from an old archive or disk), or a line "
        "break. Records of results are JSON and cannot hold such a name.",
        remedy="Rename the file.",
    ),
    ErrorCode(
        code="E-IMAGE-DAMAGED",
        error="ImageError",
        title="An image is damaged",
        meaning="The file is truncated, damaged, or of another format than its name says. Its voxels are fewer or more "
        "than its header declares, or a checksum is wrong.",
        remedy="Export or copy the file again from its source.",
    ),
    ErrorCode(
        code="E-IMAGE-FORMAT",
        error="ImageError",
        title="The image format is not supported",
        meaning="The file has none of the formats that `decathlete components image_format` lists, or has an alpha "
        "channel, complex numbers, points in time or too many axes.",
        remedy="Convert the file to NIfTI (`.nii.gz`) with one number for each voxel and channel; save pictures as "
        "grey or RGB without alpha.",
    ),
    ErrorCode(
        code="E-IMAGE-LOSSY",
        error="ImageError",
        title="A label map has a lossy format",
        meaning="The label map is a JPEG, or a TIFF with JPEG compression. The compression changes values, most of all "
        "at the borders of structures.",
        remedy="Export the label map again without loss, as PNG or TIFF with deflate or LZW.",
    ),
    ErrorCode(
        code="E-IMAGE-HEADER",
        error="ImageError",
        title="The header of an image is not valid",
        meaning="A line or a field of the header is missing, unknown, too long or unreadable, there are too many or "
        "too few numbers, the size of a voxel is not declared, or the header names a file of voxels in another folder.",
        remedy="Correct the field that the message names, or export the file again. Voxels in a file of their own must "
        "be in the folder of the header.",
    ),
    ErrorCode(
        code="E-IMAGE-RANGE",
        error="ImageError",
        title="The size or the spacing of an image is not plausible",
        meaning="An axis has no voxels or more than 32,767, or neighbouring voxels are less than 0.000001 mm or more "
        "than 200 mm apart. Usually the header is damaged, or its unit is wrong.",
        remedy="Correct the spacing or its unit in the header, or cut the image into smaller parts.",
    ),
    ErrorCode(
        code="E-IMAGE-GEOMETRY",
        error="GridMismatchError",
        title="Images do not share one grid",
        meaning="The channels of a case, an image and its label map, or a prediction and its reference differ in "
        "shape, spacing, direction or origin.",
        remedy="Resample one image to the grid of the other, or correct the header that is wrong.",
    ),
    ErrorCode(
        code="E-IMAGE-CHANNELS",
        error="ImageError",
        title="The number of channels is wrong",
        meaning="An image has more or fewer channels than the dataset or the model declares.",
        remedy="Use the same channels in every case, in the declared order.",
    ),
    ErrorCode(
        code="E-IMAGE-VALUES",
        error="ImageError",
        title="Voxel values cannot be used",
        meaning="An image contains NaN, infinite or far too large voxels or a single value, or a label map contains "
        "values that are not integers or not declared.",
        remedy="Replace these voxels, declare the values under `labels`, or leave out the case.",
    ),
    ErrorCode(
        code="E-IMAGE-SPACING",
        error="ImageError",
        title="The spacing is missing",
        meaning="The file format has a field for the distance between voxels, but in this file it is missing, 0, "
        "negative or not a number. A guess of 1 mm would give wrong sizes, volumes and distances.",
        remedy="Export the file again with its spacing. If you know it, add `--spacing Z,Y,X` (mm): it is used for "
        "files that do not contain it.",
    ),
    ErrorCode(
        code="E-IMAGE-TRANSFORMS",
        error="ImageError",
        title="The two transforms of a NIfTI file disagree",
        meaning="The qform and the sform are both set and place the image differently. Decathlete uses the sform and "
        "keeps both; other programs may use the qform and show the image elsewhere.",
        remedy="Find out which transform is right, and write it to both fields of the header.",
    ),
    ErrorCode(
        code="E-IMAGE-DICOM",
        error="ImageError",
        title="The DICOM series is ambiguous",
        meaning="A folder contains several DICOM series, or slices that are missing, doubled, unevenly spaced or of "
        "different sizes; or the intensities are stored in a way that is not supported (a lookup table, a palette of "
        "several frames, a slope of 0).",
        remedy="Put the slices of one series into one folder; export missing slices again, and intensities as numbers "
        "with RescaleSlope and RescaleIntercept.",
    ),
    ErrorCode(
        code="E-PLAN",
        error="PlanError",
        title="No plan can be made",
        meaning="The dataset, the fingerprint and the options do not allow a plan, or the plan does not fit the data.",
        remedy="Follow the line with the arrow; `decathlete preprocess --help` lists what can be changed.",
    ),
    ErrorCode(
        code="E-PLAN-CONFIGURATION",
        error="PlanError",
        title="The images do not justify the configuration",
        meaning="A low resolution helps only where a patch at full resolution covers less than a quarter of the image, "
        "and only if its grid is coarser than that of full resolution.",
        remedy="Train the configuration `3d`, or set a coarser grid for `3d_lowres` alone with "
        "`--set target_spacing=Z,Y,X`.",
    ),
    ErrorCode(
        code="E-PLAN-MEMORY",
        error="PlanError",
        title="The plan needs more memory",
        meaning="Not even the smallest patch fits into the memory that was allowed for training.",
        remedy="Allow more memory with `--memory`, or plan a smaller network.",
    ),
    ErrorCode(
        code="E-STORE",
        error="StoreError",
        title="Prepared data cannot be used",
        meaning="The folder of prepared data does not contain what the command needs.",
        remedy="Run `decathlete preprocess` again.",
    ),
    ErrorCode(
        code="E-STORE-MISSING",
        error="StoreError",
        title="The dataset is not prepared",
        meaning="The folder of prepared data does not exist, or preprocessing was not finished.",
        remedy="Run `decathlete preprocess` with the same options; finished cases are kept.",
    ),
    ErrorCode(
        code="E-STORE-DAMAGED",
        error="StoreError",
        title="Prepared data are damaged",
        meaning="Files of prepared cases are missing, truncated or cannot be read.",
        remedy="Run `decathlete preprocess` again; it prepares the damaged cases again.",
    ),
    ErrorCode(
        code="E-STORE-PLAN",
        error="StoreError",
        title="Prepared with another plan",
        meaning="The prepared data were not made with the plan of the model.",
        remedy="Prepare the cases with the model's plan (`decathlete preprocess --model`), or use raw images.",
    ),
    ErrorCode(
        code="E-MODEL",
        error="ModelError",
        title="The model cannot be used",
        meaning="A model folder, a checkpoint or a run is incomplete, or it does not fit the input or other models.",
        remedy="Follow the line with the arrow; check that the path names the folder of a trained model.",
    ),
    ErrorCode(
        code="E-MODEL-AGREEMENT",
        error="ModelError",
        title="Models do not fit each other",
        meaning="The models that are used together segment different structures, use different channels, or "
        "differ in temperature or post-processing.",
        remedy="Name models of one dataset that were made with the same settings.",
    ),
    ErrorCode(
        code="E-MODEL-DIGEST",
        error="ModelError",
        title="The weights do not match the record",
        meaning="The SHA-256 of a weights file differs from the one in model.json: the file was changed, "
        "truncated, or belongs to another model.",
        remedy="Copy the whole model folder again from where it was trained.",
    ),
    ErrorCode(
        code="E-MODEL-NOT-FINITE",
        error="ModelError",
        title="Weights contain NaN, infinite or huge values",
        meaning="A tensor of the model has values that are not finite, or a learned weight above 1e6. Such a model "
        "predicts nothing useful.",
        remedy="Copy the model again from its source. If its training diverged, train it again, with a lower learning "
        "rate or in fp32.",
    ),
    ErrorCode(
        code="E-MODEL-LOGITS",
        error="ModelError",
        title="The network computed NaN or infinite values",
        meaning="The logits of a case are not finite: half precision overflowed, the image has extreme intensities, or "
        "the weights are damaged. No label map was written for this case.",
        remedy="Predict with `--precision fp32`. If that does not help, check the intensities of the image, then copy "
        "or train the model again.",
    ),
    ErrorCode(
        code="E-MODEL-POSTPROCESSING",
        error="ModelError",
        title="A post-processing step does not fit",
        meaning="A step of post-processing is unknown, or names a structure that the model does not have.",
        remedy="Use a step that `decathlete components postprocessing` lists, and structures of the model.",
    ),
    ErrorCode(
        code="E-MODEL-STAGE",
        error="ModelError",
        title="The first stage of a cascade is missing",
        meaning="A cascade needs the held-out predictions of every fold of its first stage, all of them by one plan, "
        "and folds that hold out every case.",
        remedy="Train every fold of the first stage: `decathlete run DATASET --configuration 3d_lowres --folds 0-`. If "
        "the folds are given (`--splits`, or lists in the dataset), each case must be held out in one of them.",
    ),
    ErrorCode(
        code="E-MODEL-SEVERAL-PLANS",
        error="ModelError",
        title="The model has members with different plans",
        meaning="The command needs one plan, but the members of this model have several.",
        remedy="Use one member's model, or a command that accepts several plans, such as `predict`.",
    ),
    ErrorCode(
        code="E-MODEL-WEIGHTS-DAMAGED",
        error="ModelError",
        title="A weights file is damaged",
        meaning="A weights file is truncated, or is not in the safetensors format.",
        remedy="Copy the whole model folder again from where it was trained.",
    ),
    ErrorCode(
        code="E-MODEL-WEIGHTS-FIT",
        error="ModelError",
        title="The weights do not fit the network",
        meaning="Tensors are missing, unknown, or of another shape or type than the plan's network needs.",
        remedy="Keep model.json and the weights of one model together.",
    ),
    ErrorCode(
        code="E-MODEL-WEIGHTS-MISSING",
        error="ModelError",
        title="A weights file is missing",
        meaning="model.json names a weights file that is not in the folder.",
        remedy="Copy the whole model folder again from where it was trained.",
    ),
    ErrorCode(
        code="E-MODEL-NOT-FOUND",
        error="ModelError",
        title="The model was not found",
        meaning="The path does not exist or is not a model or a run.",
        remedy="Name the folder of a run (`results/<dataset>/<configuration>/fold_<k>`) or its folder `model`.",
    ),
    ErrorCode(
        code="E-MODEL-DAMAGED",
        error="ModelError",
        title="The model is damaged",
        meaning="A file of the model is truncated, was changed, or cannot be read.",
        remedy="Copy the model again from its source, or train again with `--resume`.",
    ),
    ErrorCode(
        code="E-MODEL-UNSAFE",
        error="ModelError",
        title="The checkpoint is not safe to load",
        meaning="Reading the checkpoint would run code from the file. Nothing was loaded.",
        remedy="Use this file only if you trust its source, after saving its weights alone (a state dict).",
    ),
    ErrorCode(
        code="E-MODEL-UNSUPPORTED",
        error="ModelError",
        title="The model cannot be converted",
        meaning="The model uses something that the other program, or Decathlete, cannot represent.",
        remedy="The message lists every obstacle. Predict with the program that trained the model.",
    ),
    ErrorCode(
        code="E-MODEL-ACCURACY",
        error="ModelError",
        title="The exported model is not accurate enough",
        meaning="The exported program gives other results than the model by more than the allowed difference.",
        remedy="Export with a higher precision, use other images for the calibration (int8), or predict with "
        "Decathlete itself.",
    ),
    ErrorCode(
        code="E-DOWNLOAD",
        error="DownloadError",
        title="The download failed",
        meaning="A file could not be downloaded from the given address.",
        remedy="Check the address, or use another with `--url`.",
    ),
    ErrorCode(
        code="E-DOWNLOAD-NETWORK",
        error="DownloadError",
        title="The server cannot be reached",
        meaning="The server did not answer, or the connection failed several times in a row. The downloaded bytes are "
        "kept.",
        remedy="Check the network and the proxy (`https_proxy`) and run the same command again: it resumes.",
    ),
    ErrorCode(
        code="E-DOWNLOAD-CHECKSUM",
        error="DownloadError",
        title="The file is not the published one",
        meaning="The checksum of the downloaded file differs from the published one.",
        remedy="Download the file again; if this happens again, use another mirror (`--url`).",
    ),
    ErrorCode(
        code="E-ARCHIVE",
        error="ArchiveError",
        title="The archive cannot be unpacked",
        meaning="The archive is damaged, incomplete, or not a tar or zip file.",
        remedy="Do not use this file; download the archive again from its publisher.",
    ),
    ErrorCode(
        code="E-ARCHIVE-UNSAFE",
        error="ArchiveError",
        title="The archive is not safe to unpack",
        meaning="A member of the archive would be written outside of its folder, is a link or a device, or the "
        "archive would fill the disk. Nothing was unpacked.",
        remedy="Do not use this file; download the archive again from its publisher.",
    ),
    ErrorCode(
        code="E-MEMORY",
        error="InsufficientMemoryError",
        title="Out of memory",
        meaning="The memory of the computer or the GPU is too small for the work.",
        remedy="Reduce the batch size or the number of workers, plan for less memory (`preprocess --memory`), limit "
        "prediction with `--memory`, close other programs, or use a larger computer.",
    ),
    ErrorCode(
        code="E-DISK-FULL",
        error="OutputError",
        title="The disk is full",
        meaning="The disk has less free space than the work needs.",
        remedy="Free disk space, or choose a folder on another disk, then run the same command again.",
    ),
    ErrorCode(
        code="E-CLUSTER",
        error="ClusterError",
        title="The cluster cannot be used",
        meaning="Something that is needed to work on a Dask cluster went wrong; the message says what.",
        remedy="Follow the line with the arrow, and look at the log of the worker that the message names.",
    ),
    ErrorCode(
        code="E-CLUSTER-CONNECT",
        error="ClusterError",
        title="The scheduler does not answer",
        meaning="No Dask scheduler answered at the address of `--cluster` within the time limit.",
        remedy="Start `dask scheduler`, check address and port, and check that no firewall lies between. With TLS, "
        "check the certificates in Dask's configuration.",
    ),
    ErrorCode(
        code="E-CLUSTER-WORKERS",
        error="ClusterError",
        title="No worker can do the work",
        meaning="No worker is connected to the scheduler, all workers were lost, or none offers the resources that the "
        "work needs, such as a GPU.",
        remedy="Start workers (`dask worker`), with `--resources` where the message names resources. Finished cases "
        "are kept: run the same command again.",
    ),
    ErrorCode(
        code="E-CLUSTER-STORAGE",
        error="ClusterError",
        title="The workers do not see the same files",
        meaning="A file of the command's folders is missing or different on a worker, or a file that a worker wrote is "
        "not there. Data, prepared data, models and results must lie on storage that all machines share.",
        remedy="Mount the storage under the same path on every machine, and use folders on it.",
    ),
    ErrorCode(
        code="E-CLUSTER-VERSION",
        error="ClusterError",
        title="A worker has another version",
        meaning="A worker runs another version of Decathlete or of Python than the command, or has no Decathlete.",
        remedy="Start the workers from the same environment as the command, or install the same versions there.",
    ),
    ErrorCode(
        code="E-CLUSTER-CRASH",
        error="ClusterError",
        title="Worker processes died",
        meaning="Each worker that processed this case or fold died: it was killed (often by lack of memory), or a "
        "library crashed. The work was given to another worker twice; other cases are not affected.",
        remedy="Look at the logs of the workers. Start workers with more memory, or check the files of this case.",
    ),
    ErrorCode(
        code="E-SERVICE",
        error="ServiceError",
        title="The service cannot fulfil the request",
        meaning="A request to `decathlete serve` is not valid, or the service failed while it worked on it.",
        remedy="Follow the remedy in the answer. If it does not help, look at the log of the service.",
    ),
    ErrorCode(
        code="E-SERVICE-BUSY",
        error="ServiceError",
        title="The service is busy",
        meaning="As many jobs wait, or as many uploads are under way, as the service allows.",
        remedy="Send the request again later, or allow more with `--max-jobs`.",
    ),
    ErrorCode(
        code="E-SERVICE-JOB",
        error="ServiceError",
        title="There is no such job",
        meaning="The job never existed, was deleted, or expired.",
        remedy="Upload the image again. `--keep` sets how long jobs are kept.",
    ),
    ErrorCode(
        code="E-SERVICE-MODEL",
        error="ServiceError",
        title="There is no such model",
        meaning="The service does not offer a model of this name.",
        remedy="Use a name from `GET /api/v1/models`, or start the service with this `--model`.",
    ),
    ErrorCode(
        code="E-SERVICE-STATE",
        error="ServiceError",
        title="The job is not in the right state",
        meaning="The result of a job was requested before it was finished, or after it failed.",
        remedy="Wait until the state of the job is `done`. If it failed, its status contains the reason.",
    ),
    ErrorCode(
        code="E-SERVICE-SIZE",
        error="ServiceError",
        title="The upload is too large",
        meaning="The upload, or the image in it, is larger than the service allows.",
        remedy="Crop the image, or start the service with a larger `--max-upload` or `--max-image`.",
    ),
    ErrorCode(
        code="E-SERVICE-TIME",
        error="ServiceError",
        title="The work took too long",
        meaning="An upload or the computation of a job took longer than the service allows.",
        remedy="Use a faster connection or a faster computer, or start the service with a larger `--max-time`.",
    ),
    ErrorCode(
        code="E-SERVICE-CRASH",
        error="ServiceError",
        title="The job stopped the service several times",
        meaning="The service ended without an error message each time it computed this job, so it does not try again.",
        remedy="Look at the log of the system (often memory was full). Crop the image, or predict it with `decathlete "
        "predict`.",
    ),
    ErrorCode(
        code="E-SERVICE-TOKEN",
        error="ServiceError",
        title="The token is missing or wrong",
        meaning="The service requires a token, and the request has none or another one.",
        remedy="Log in on the page, or send the header `Authorization: Bearer TOKEN`.",
    ),
    ErrorCode(
        code="E-SERVICE-ORIGIN",
        error="ServiceError",
        title="The request comes from another site",
        meaning="The Host or Origin header of the request names an address that the service does not expect.",
        remedy="Use the address of the service itself, or start it with `--allow-host` or `--allow-origin`.",
    ),
    ErrorCode(
        code="E-SERVICE-DATASTORE",
        error="ServiceError",
        title="There is no such image, label map or session",
        meaning="A viewer named an image, a label map or a session that does not exist or has expired.",
        remedy="Upload the image again, or use an id from `GET /datastore/?output=all`. `--studies` names a folder of "
        "images.",
    ),
    ErrorCode(
        code="E-SERVICE-DICOMWEB",
        error="ServiceError",
        title="The DICOMweb server does not answer",
        meaning="The server of `--studies` cannot be reached, or it answers with an error.",
        remedy="Check the address and that the server is running.",
    ),
    ErrorCode(
        code="E-SERVICE-NOT-OFFERED",
        error="ServiceError",
        title="The service does not offer this",
        meaning="A viewer used a part of MONAI Label's interface that Decathlete does not have, such as training, or a "
        "result was requested in a format whose package is not installed.",
        remedy="Train with `decathlete run`, and start the service with the new model. For DICOM SEG and structure "
        "sets, install the extra [dicom] where the service runs.",
    ),
    ErrorCode(
        code="E-SERVICE-REQUEST",
        error="ServiceError",
        title="The request is not valid",
        meaning="A parameter, a header or the body of a request does not have the expected form.",
        remedy="Compare the request with the API page of the service, `/docs`.",
    ),
    ErrorCode(
        code="E-TRITON",
        error="TritonError",
        title="Triton Inference Server cannot be used",
        meaning="Something that is needed to work with Triton Inference Server went wrong; the message says what.",
        remedy="Follow the line with the arrow, and look at the log of the server.",
    ),
    ErrorCode(
        code="E-TRITON-MISSING",
        error="TritonError",
        title="No Triton Inference Server is installed",
        meaning="`tritonserver` is not on the PATH, nvidia-pytriton is not installed, or the server has no Python "
        "backend for this version of Python.",
        remedy="Run `make triton` in Decathlete's folder and name the environment that it makes, "
        "`--server DECATHLETE/.venv-triton`, or another installation; or use NVIDIA's container.",
    ),
    ErrorCode(
        code="E-TRITON-SERVER",
        error="TritonError",
        title="The server does not start or does not answer",
        meaning="The server exited, or it did not become ready or answer within the time limit. A model that cannot be "
        "loaded keeps a server from being ready.",
        remedy="Read the log of the server for the reason, and check address, port and `--timeout`.",
    ),
    ErrorCode(
        code="E-TRITON-REQUEST",
        error="TritonError",
        title="The server rejected a request",
        meaning="A model is not loaded, its inputs have another shape or type, or it could not compute the request.",
        remedy="Check the name of the model (`--name`) and that it was exported from the model that you name.",
    ),
    ErrorCode(
        code="E-TRITON-VERIFY",
        error="TritonError",
        title="The server gives other results than the model",
        meaning="Logits or label maps from the server differ from those of the model here by more than the thresholds "
        "of `triton verify` allow.",
        remedy="Export the model again, and check that the server loaded it. A low precision needs wider thresholds.",
    ),
    ErrorCode(
        code="E-OUTPUT",
        error="OutputError",
        title="The output cannot be written",
        meaning="A file or folder cannot be created or written.",
        remedy="Choose a folder that you may write to.",
    ),
    ErrorCode(
        code="E-OUTPUT-EXISTS",
        error="OutputError",
        title="The output contains other results",
        meaning="The output folder contains files that were made from other inputs or with different settings.",
        remedy="Choose another folder, or add `--overwrite` to replace the files.",
    ),
    ErrorCode(
        code="E-OUTPUT-INPUT",
        error="OutputError",
        title="The output lies in the input",
        meaning="The output folder is part of the raw dataset or of the input; those are never changed.",
        remedy="Choose a folder outside of the input.",
    ),
    ErrorCode(
        code="E-OUTPUT-DICOM",
        error="OutputError",
        title="No DICOM object can be made of the result",
        meaning="The DICOM series lacks positions or identifiers that a segmentation object has to refer to, or this "
        "kind of object cannot represent the segmentation, such as overlapping regions in a LABELMAP.",
        remedy="Export the series with all identifiers, choose `--segmentation-type binary`, or predict with "
        "`--format nifti`.",
    ),
    ErrorCode(
        code="E-OUTPUT-LOCKED",
        error="OutputError",
        title="Another process is working here",
        meaning="Another process writes to the same folder or file, or reads prepared data that would be replaced. The "
        "message names its number (pid), its computer and when it began.",
        remedy="Wait until the other process has finished, end it, or use another folder. Nothing has to be removed by "
        "hand: a lock ends with its process.",
    ),
    ErrorCode(
        code="E-CASES-FAILED",
        error="CasesFailedError",
        title="Some cases failed",
        meaning="Some of many cases failed, each for the listed reason; all others are finished and kept.",
        remedy="Fix or remove these cases and run the same command again.",
    ),
    ErrorCode(
        code="E-FOLDS-FAILED",
        error="FoldsFailedError",
        title="Some folds failed",
        meaning="Some folds of a cross-validation failed, each for the listed reason; all others are finished and "
        "kept. Test images were not predicted.",
        remedy="Fix the cause and run the same command again, or leave out these folds with `--folds`.",
    ),
    ErrorCode(
        code="E-INTERRUPTED",
        error="InterruptedRunError",
        title="The work was interrupted",
        meaning="A signal stopped the work (Ctrl-C, or the end of a job's time). What is needed to resume was saved. "
        "The message says whether a stopped training has a model of its weights so far.",
        remedy="Run the same command again; `decathlete train` needs `--resume`.",
    ),
    ErrorCode(
        code="E-TRAINING-PROCESS",
        error="DecathleteError",
        title="A training process was lost",
        meaning="One of several training processes exited unexpectedly or lost contact with the others.",
        remedy="Look at its output above the message (often the system ended it because memory was full), then run "
        "the same command again; `decathlete train` needs `--resume`.",
    ),
    ErrorCode(
        code="E-TRAINING-DIVERGED",
        error="DecathleteError",
        title="Training diverged",
        meaning="The loss or its gradient was not finite in many steps in a row.",
        remedy="Train with a lower `--learning-rate` or with `--precision fp32`.",
    ),
)

CODES: dict[str, ErrorCode] = {entry.code: entry for entry in _ENTRIES}
"""Every code, in the order of the documentation."""
