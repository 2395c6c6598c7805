"""Import and export of models: nnU-Net v2, and NVIDIA's nnU-Net for PyTorch (here called the recipe)."""
