"""Evaluation of predictions on the original grid: metrics, scores of cases, cross-validation."""
