"""Ctrl-C and SIGTERM end a run at the end of its step, not in the middle of it."""

import signal

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """The run was asked to stop, and has; the message says how to go on.

    Args:
      signum: the signal that asked; a script ends with exit status 128 + signum.
    """

    def __init__(self, signum, message):
        super().__init__(message)
        self.signum = signum


class Requests:
    """While it is entered, the first signal is kept in `signum`; the second ends the process."""

    def __init__(self):
        self.signum = None
        self._before = {}

    def __enter__(self):
        for signum in SIGNALS:
            self._before[signum] = signal.signal(signum, self._keep)
        return self

    def __exit__(self, *_):
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _keep(self, signum, _):
        self.signum = signum
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
