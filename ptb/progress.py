"""How far long work is: one line on a terminal, that goes when the work is done."""

import sys
import time

PATIENCE = 1.0  # seconds of work before anything is shown
INTERVAL = 0.2  # seconds between two updates


class Progress:
    """Shows `what: done of total` on stderr where that is a terminal; nothing in a file or pipe.

        with Progress("Reading ptb.train.txt", total=size) as progress:
            ...
            progress.update(done)

    The total may be 0: unknown.
    """

    def __init__(self, what, total):
        self._what = what
        self._total = total
        self._next = time.monotonic() + PATIENCE
        self._shown = False

    def update(self, done):
        """Shows that `done` of the total is done."""
        if time.monotonic() < self._next or not sys.stderr.isatty():
            return
        amount = f"{100 * done / self._total:.0f}%" if self._total else f"{done:,}"
        print(f"\r{self._what}: {amount}\033[K", end="", file=sys.stderr, flush=True)
        self._next = time.monotonic() + INTERVAL
        self._shown = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
