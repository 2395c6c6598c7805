"""How good predictions are, on the original grid."""
