"""What a training reports: records, progress, loggers."""
