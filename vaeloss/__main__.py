"""``python -m vaeloss``, where the script ``vaeloss`` is not in the path."""

import sys

from vaeloss.cli import main

if __name__ == "__main__":
    sys.exit(main())
