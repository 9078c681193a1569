"""`python -m candlebeam` is the command `candlebeam`."""

from candlebeam.cli import main

main()
