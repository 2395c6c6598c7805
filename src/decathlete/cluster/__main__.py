"""The process of a task that a worker starts: ``python -m decathlete.cluster FILE_DESCRIPTOR``."""

import sys

from decathlete.cluster.child import main

if __name__ == "__main__":
    main(int(sys.argv[1]))
