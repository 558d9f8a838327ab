"""`python -m p2pmarket` is `p2pmarket`."""

import sys

from p2pmarket.cli import main

if __name__ == "__main__":
    sys.exit(main())
