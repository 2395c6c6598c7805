"""Models of other programs: nnU-Net v2's, and those of NVIDIA's recipe."""
