"""Prediction: windows, test-time augmentation, engines, restoration to the file's own grid."""
