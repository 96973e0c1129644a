"""The two ways in which a run ends before its time without a fault of the program."""

import signal

STOP_SIGNALS = [  # They ask a run to stop.
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGBREAK")
    if hasattr(signal, name)  # Windows has few of them, and one of its own.
]


class UserError(ValueError):
    """Says in one line what is wrong, where, and what to do; a script ends with exit status 2."""


class Stopped(Exception):
    """The run was asked to stop, and has been saved; the message says how to go on.

    Args:
      signum: the signal that asked; a script ends with exit status 128 + signum.
      message: one line for the person who reads the end of the output.
    """

    def __init__(self, signum, message):
        super().__init__(message)
        self.signum = signum
