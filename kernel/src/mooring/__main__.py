"""`python -m mooring`: the same as the `mooring` command."""

from mooring.cli import main

main()
