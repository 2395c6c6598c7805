"""The trained model as a service: page, API, MONAI Label, DICOM node, Triton."""
