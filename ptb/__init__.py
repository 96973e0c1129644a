"""What `lstm.py` calls: the reader, the LSTM, the run in its folder, the trained model at work."""

import importlib.util
import os
import sys

# Whether this process runs a program of the project; it is "-m" here for `python -m ptb.plot`.
_program = os.path.basename(sys.argv[0]) if sys.argv else ""
_is_ours = _program in ("lstm.py", "-m")


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


def _refuse_without_requirements():
    """Ends a program of the project in one line where Python or a package is not what it needs.

    Another program that imports this package gets Python's own error.
    """
    if sys.version_info < (3, 10) and _is_ours:
        version = ".".join(map(str, sys.version_info[:3]))
        print(f"{sys.executable} is Python {version}; use 3.10 to 3.13", file=sys.stderr)
        sys.exit(2)
    missing = [name for name in ("numpy", "tensorflow") if importlib.util.find_spec(name) is None]
    if missing and _is_ours:
        folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        path = os.path.join(folder, "requirements.txt")
        print(
            f"{_program.replace('-m', 'ptb')}: {' and '.join(missing)} must be installed: "
            f'"{sys.executable}" -m pip install -r "{path}"', file=sys.stderr,
        )
        sys.exit(2)


_open_missing_streams()
_refuse_without_requirements()
if _is_ours:
    from ptb.terminal.quiet import say_interrupted

    sys.excepthook = say_interrupted  # for a Ctrl-C while the packages load
