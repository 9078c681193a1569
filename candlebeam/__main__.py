"""`python -m candlebeam` is the command `candlebeam`."""

from candlebeam.cli import run

if __name__ == "__main__":
    run()
