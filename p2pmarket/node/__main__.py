"""`python -m p2pmarket.node` is `p2pmarket node`."""

import sys

from p2pmarket.cli import main

if __name__ == "__main__":
    sys.exit(main(["node", *sys.argv[1:]]))
