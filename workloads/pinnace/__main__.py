"""`python -m pinnace`: the command `pinnace`."""

from pinnace.cli import main

main()
