"""``python -m decathlete``."""

from decathlete.cli.main import main

main()
