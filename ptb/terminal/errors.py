"""The ways in which a run ends before its time without a fault of the program."""

import contextlib
import errno
import os
import re
import signal
import sys

STOP_SIGNALS = [  # They ask a run to stop.
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGBREAK")
    if hasattr(signal, name)  # Windows has few of them, and one of its own.
]
READER_GONE = 13  # SIGPIPE, which Windows lacks: whoever read the output is gone
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NEEDED = re.compile(  # what TensorFlow says of memory that it did not get; the last is of a copy
    r"OOM when allocating tensor with shape\S+ and type \w+"
    r"|[Oo]ut of memory while trying to allocate [\d.]+ ?\w*|[Ff]ailed to allocate [^\n]+"
    r"|CUDA_ERROR_OUT_OF_MEMORY|Dst tensor is not initialized"
)


class UserError(ValueError):
    """Says in one line what is wrong, where, and what to do; a script ends with exit status 2."""


def shortened(text, longest=40):
    """Returns as much of a text as a message has room for, in characters."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


class Stopped(Exception):
    """The run was asked to stop, and has been saved; the message says how to go on.

    Args:
      signum: the signal that asked; a script ends with exit status 128 + signum. It is READER_GONE
        where the output could not be written.
      message: one line for the person who reads the end of the output.
    """

    def __init__(self, signum, message):
        super().__init__(message)
        self.signum = signum


def stopped(signum, failure, message):
    """Returns what a run raises when it has met a request to stop: Stopped, or UserError.

    Args:
      signum: the signal that asked.
      failure: the OSError that asked, where that is READER_GONE; None in a process whose own output
        is fine.
      message: what has become of the run.
    """
    if failure and signum == READER_GONE:
        message = f"the output cannot be written ({failure.strerror}); {message}"
        if failure.errno in DISK_FULL:
            return UserError(message)
    return Stopped(signum, message)


def memory_needed(error):
    """Returns what an error says of memory that was not there; None where it is another error."""
    if isinstance(error, MemoryError):
        return str(error) or "Python got no more"
    tensorflow = sys.modules.get("tensorflow")  # Where it is not loaded, it is no error of its.
    if tensorflow and isinstance(error, tensorflow.errors.OpError):
        found = NEEDED.search(error.message)
        return found and found[0]
    return None


class Output:
    """A stdout or stderr that raises nothing: where it cannot be written to, the rest is dropped.

    Args:
      stream: the stream.
      tell: a function that is called with the OSError.
    """

    def __init__(self, stream, tell=lambda error: None):
        self._stream = stream
        self._tell = tell

    def write(self, text):
        self._try(self._stream.write, text)
        return len(text)

    def flush(self):
        self._try(self._stream.flush)

    def _try(self, function, *args):
        try:
            function(*args)
        except OSError as error:
            silence(self._stream)
            self._tell(error)

    def __getattr__(self, name):
        return getattr(self._stream, name)


def silence(stream):
    """Lets what is still written to a stream go nowhere.

    Python writes what is left when it exits, and has another exit status where that fails.
    """
    with contextlib.suppress(OSError, AttributeError):  # Not every stream is a file.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
