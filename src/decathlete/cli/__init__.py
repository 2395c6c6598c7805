"""The command line: a table from command to function; parses, calls, prints; nothing else."""
