"""The browser part for suites in other languages: `visit.py WORLD URL LEAVES_AT DECISION` prints the address that it leaves to."""

import sys

from lib.world import World

if __name__ == "__main__":
    _, _, url, leaves_at, decision = sys.argv
    print(World.told().decides(url, leaves_at, decision))
