"""`python -m p2pmarket.broker_node` is `p2pmarket broker`."""

import sys

from p2pmarket.cli import main

if __name__ == "__main__":
    sys.exit(main(["broker", *sys.argv[1:]]))
