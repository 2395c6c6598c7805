"""Made-up datasets, written as real files: for tests, examples and the demo."""
