"""What strings the rooms together: run, validate, report, demo."""
