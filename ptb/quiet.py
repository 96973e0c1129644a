"""Loads TensorFlow without the lines that its libraries write to stderr while they load.

No log level holds these lines back. So they go to a small process that keeps them: it forgets them
when TensorFlow is loaded, and prints them when that fails, even where TensorFlow ends this process,
as it does on a processor without the instructions that it needs. Who sets TF_CPP_MIN_LOG_LEVEL
below 3 sees all of them at once.

Every other module of `ptb` takes TensorFlow from here.
"""

import contextlib
import os
import subprocess
import sys

LOADED = b"\0"  # the last byte that the keeper gets where all went well
KEEPER = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
kept = sys.stdin.buffer.read()
if not kept.endswith({LOADED!r}):
    sys.stderr.buffer.write(kept)
"""


@contextlib.contextmanager
def _stderr_kept():
    """Keeps what is written to stderr while the block runs, and prints it if the block fails."""
    try:
        keeper = subprocess.Popen([sys.executable, "-I", "-S", "-c", KEEPER], stdin=subprocess.PIPE)
    except (OSError, ValueError, TypeError):  # No process can be started here.
        yield
        return
    stderr = os.dup(2)
    os.dup2(keeper.stdin.fileno(), 2)
    try:
        yield
        with contextlib.suppress(OSError):  # Somebody may have ended the keeper.
            os.write(2, LOADED)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        keeper.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            keeper.wait(timeout=10)


def _say_interrupted(*_):
    """Takes the place of Python's traceback, for Ctrl-C while TensorFlow loads."""
    print(f"{os.path.basename(sys.argv[0])}: interrupted", file=sys.stderr)


if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3" and "tensorflow" not in sys.modules:
    try:
        with _stderr_kept():
            import tensorflow  # noqa: F401
    except KeyboardInterrupt:
        sys.excepthook = _say_interrupted
        raise

import tensorflow.compat.v1 as tf  # noqa: E402, F401 (after its messages are dealt with)
