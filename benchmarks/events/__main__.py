"""`python -m benchmarks.events`: see run.py for the options."""

import sys

from benchmarks.events.run import main

if __name__ == "__main__":
    sys.exit(main())
