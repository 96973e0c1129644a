"""TensorFlow as the project uses it: loaded when it is needed, without messages, sharing a GPU.

Loading takes seconds, so what needs no TensorFlow, such as --help, does not wait for it.

While they load, TensorFlow's libraries write lines to stderr. No log level holds these back. So
they go to a small process that keeps them: it forgets them when TensorFlow is loaded, or when
Ctrl-C stops that, and prints them when it fails, even where TensorFlow ends this process, as it
does on a processor without the instructions that it needs. Who sets TF_CPP_MIN_LOG_LEVEL below 3
sees all of them at once.

Every other module of `ptb` takes TensorFlow from here.
"""

import contextlib
import os
import subprocess
import sys

from ptb.terminal.errors import UserError

FORGET = b"\0"  # the last byte that the keeper gets where nobody needs what it keeps
KEEPER = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
kept = sys.stdin.buffer.read()
if not kept.endswith({FORGET!r}):
    sys.stderr.buffer.write(kept)
"""


@contextlib.contextmanager
def _stderr_kept():
    """Keeps what is written to stderr while the block runs, and prints it if the block fails.

    Ctrl-C is no failure: what was written then has nothing to do with the end of the block.
    """
    try:
        keeper = subprocess.Popen([sys.executable, "-I", "-S", "-c", KEEPER], stdin=subprocess.PIPE)
    except (OSError, ValueError, TypeError):  # No process can be started here.
        yield
        return
    stderr = os.dup(2)
    os.dup2(keeper.stdin.fileno(), 2)
    failed = True
    try:
        yield
        failed = False
    except KeyboardInterrupt:
        failed = False
        raise
    finally:
        if not failed:
            with contextlib.suppress(OSError):  # Somebody may have ended the keeper.
                os.write(2, FORGET)
        os.dup2(stderr, 2)
        os.close(stderr)
        keeper.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            keeper.wait(timeout=10)


def _say_interrupted(*_):
    """Takes the place of Python's traceback, for Ctrl-C while TensorFlow loads."""
    print(f"{os.path.basename(sys.argv[0])}: interrupted", file=sys.stderr)


class _TensorFlow:
    """`tensorflow.compat.v1`, which is loaded when something of it is first asked for."""

    def __getattr__(self, name):
        _load()
        import tensorflow.compat.v1

        value = getattr(tensorflow.compat.v1, name)
        setattr(self, name, value)  # The next time Python finds it without this method.
        return value


def _load():
    """Loads TensorFlow where it is not loaded yet."""
    quiet = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3"
    if quiet and "tensorflow" not in sys.modules:
        try:
            with _stderr_kept():
                import tensorflow  # noqa: F401
        except KeyboardInterrupt:
            sys.excepthook = _say_interrupted
            raise


tf = _TensorFlow()
_process = None  # the id of the one that made the first session


def refuse_forked():
    """Raises UserError in a process that was forked from one that had a session.

    TensorFlow's threads are not there in such a process, and whoever asks it waits for ever.
    """
    global _process
    _process = _process or os.getpid()
    if _process != os.getpid():
        raise UserError(
            "this process was forked from one that uses TensorFlow, which cannot be forked: start "
            'it with multiprocessing.get_context("spawn") and load the model in it'
        )


def session_config():
    """Returns the `tf.ConfigProto` of every session of the project.

    Operations without a kernel for a device go where they have one (soft placement). The memory of
    a GPU is taken as it is needed: TensorFlow would take all of it at once, and nobody could ask a
    model on the same GPU while it still trains.

    Raises UserError in a forked process, see refuse_forked.
    """
    refuse_forked()
    options = tf.ConfigProto(allow_soft_placement=True)
    options.gpu_options.allow_growth = True
    return options
