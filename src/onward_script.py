"""What the console script runs: Ctrl-C is owned before the package is imported, which takes a tenth of a second."""

import os
import signal


def leave(number: int, frame: object) -> None:
    """End the process, which has begun nothing, with one line."""
    os.write(2, b"onward: stopped; nothing was begun\n")
    os._exit(130)


def main() -> int:
    """`onward.cli.main`, of which Ctrl-C is the affair from when it is there."""
    mine = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if mine:
        signal.signal(signal.SIGINT, leave)
    from onward.cli import main

    if mine:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return main()
