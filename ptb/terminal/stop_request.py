"""A request to stop, such as Ctrl-C, kept until the work can stop without losing anything."""

import contextlib
import signal
import sys
import threading

from ptb.terminal.errors import READER_GONE, STOP_SIGNALS, Output


class StopRequest:
    """While it is entered, a signal that asks to stop is kept in `signum`.

    These are Ctrl-C, the end of a terminal, and what batch systems send before they end a job. A
    signal that is ignored stays ignored, as under `nohup`. After the first request a second Ctrl-C
    ends the process at once. Outside the main thread Python has no signals, and none is kept.

    What is printed meanwhile raises nothing. Where stdout cannot be written to, that asks to stop
    as well: `signum` is READER_GONE, unless a signal comes, and `failure` the OSError. Nobody needs
    what goes to stderr.
    """

    def __init__(self):
        self.signum = None
        self.failure = None
        self._before = {}
        self._streams = contextlib.ExitStack()

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for signum in STOP_SIGNALS:
                handler = signal.getsignal(signum)
                if handler not in (signal.SIG_IGN, None):
                    self._before[signum] = handler
                    signal.signal(signum, self._keep)
        stdout, stderr = Output(sys.stdout, self._lose_output), Output(sys.stderr)
        self._streams.enter_context(contextlib.redirect_stdout(stdout))
        self._streams.enter_context(contextlib.redirect_stderr(stderr))
        return self

    def __exit__(self, *_):
        self._streams.close()
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _keep(self, signum, _):
        self.signum = signum
        if signal.SIGINT in self._before:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def _lose_output(self, error):
        self.failure = error
        self.signum = self.signum or READER_GONE
