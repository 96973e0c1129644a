"""TensorFlow as the project uses it: loaded at its first use, without messages, sharing a GPU.

Loading takes seconds. What needs no TensorFlow, such as `python -m ptb.plot`, does not wait for it;
`lstm.py` loads it at once, even for --help.

While they load, TensorFlow's libraries write lines to stderr that no log level holds back. So these
go to a small process, which prints them if loading fails. It has to be another process, because
TensorFlow may end this one: it does on a processor without the instructions that it needs. Who sets
TF_CPP_MIN_LOG_LEVEL below 3 sees all messages at once.

Every other module of `ptb` takes TensorFlow from here.
"""

import contextlib
import os
import subprocess
import sys

from ptb.terminal.errors import UserError

KEEPER = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # A terminal sends Ctrl-C to this process as well.
sys.stderr.buffer.write(sys.stdin.buffer.read())
"""


class _TensorFlow:
    """`tensorflow.compat.v1`, which is loaded when something of it is first asked for."""

    def __getattr__(self, name):
        is_quiet = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3"
        is_loaded = "tensorflow" in sys.modules
        with _stderr_kept() if is_quiet and not is_loaded else contextlib.nullcontext():
            import tensorflow.compat.v1

        value = getattr(tensorflow.compat.v1, name)
        setattr(self, name, value)  # The next time Python finds it without this method.
        return value


@contextlib.contextmanager
def _stderr_kept():
    """Within it, what is written to stderr is kept, and printed only if that fails or aborts.

    Ctrl-C is no failure, and is said in one line.
    """
    try:
        keeper = subprocess.Popen([sys.executable, "-I", "-S", "-c", KEEPER], stdin=subprocess.PIPE)
    except (OSError, TypeError):  # No process can be started here.
        yield
        return
    with keeper:  # Its end closes the pipe, and a keeper that is still there prints what came.
        stderr = os.dup(2)
        os.dup2(keeper.stdin.fileno(), 2)
        try:
            yield
            keeper.kill()
        except KeyboardInterrupt:
            keeper.kill()
            sys.excepthook = say_interrupted
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def say_interrupted(kind, error, traceback):
    """Takes the place of Python's traceback for a KeyboardInterrupt."""
    if issubclass(kind, KeyboardInterrupt):
        print(f"{os.path.basename(sys.argv[0])}: interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


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
