"""What `lstm.py` calls: the reader, the LSTM, the run in its folder, the trained model at work."""

import os
import sys


def _open_missing_streams():
    """Opens stdin, stdout and stderr onto nothing where they are closed, as after `>&-`.

    Otherwise the next file that is opened would get the number of the missing stream, and what is
    printed would end up in it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # The lowest number that is free is this one.
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))


_open_missing_streams()
