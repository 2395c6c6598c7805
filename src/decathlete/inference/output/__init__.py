"""Write logits to files: restoration to the file's grid, probabilities, provenance."""
