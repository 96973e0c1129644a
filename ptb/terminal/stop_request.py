"""A request to stop, such as Ctrl-C, kept until the work can stop without losing anything."""

import contextlib
import signal
import sys
import threading

from ptb.terminal.errors import READER_GONE, STOP_SIGNALS, Output


class StopRequest(contextlib.ExitStack):
    """While it is entered, a signal that asks to stop is kept in `signum`.

    These are Ctrl-C, the end of a terminal, and what batch systems send before they end a job. A
    signal that is ignored stays ignored, as under `nohup`. After the first request a second Ctrl-C
    ends the process at once. Outside the main thread Python has no signals, and none is kept.

    What is printed meanwhile raises nothing. Where stdout cannot be written to, that asks to stop
    as well: `signum` is READER_GONE, unless a signal comes, and `failure` the OSError. Nobody needs
    what goes to stderr.
    """

    def __init__(self):
        super().__init__()  # What it does is undone when it is left.
        self.signum = None
        self.failure = None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for signum in STOP_SIGNALS:
                handler = signal.getsignal(signum)
                if handler not in (signal.SIG_IGN, None):
                    self.callback(signal.signal, signum, handler)
                    signal.signal(signum, self._keep)
        stdout, stderr = Output(sys.stdout, self._lose_output), Output(sys.stderr)
        self.enter_context(contextlib.redirect_stdout(stdout))
        self.enter_context(contextlib.redirect_stderr(stderr))
        return self

    def _keep(self, signum, _):
        self.signum = signum
        if signal.getsignal(signal.SIGINT) == self._keep:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def _lose_output(self, error):
        self.failure = error
        self.signum = self.signum or READER_GONE
