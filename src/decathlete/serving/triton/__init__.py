"""NVIDIA's Triton Inference Server: start one, compare it with the model, and measure it."""
