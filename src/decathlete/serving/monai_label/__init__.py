"""The REST interface of MONAI Label, for the plug-ins of 3D Slicer and OHIF."""
