"""`python -m pipelab`."""

import sys

from pipelab.shell.main import main

if __name__ == "__main__":
    sys.exit(main())
