"""Models of other programs: nnU-Net v2's, in and out."""
