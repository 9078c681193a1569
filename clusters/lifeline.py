"""Run as a script: becomes another program, which gets a signal when the program that asked ends.

    lifeline.py PARENT SIGNAL COMMAND ...

The process id stays what it is. Linux alone knows how; elsewhere it only becomes the program.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, signal, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit("whoever started this has ended already")
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
