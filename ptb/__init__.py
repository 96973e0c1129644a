"""What `lstm.py` calls: the reader, the LSTM, the run on disk, the trained model at work."""

import os


def _import_tensorflow_quietly():
    """Imports TensorFlow without the lines its libraries write to stderr while they load.

    No log level holds these back. Who sets TF_CPP_MIN_LOG_LEVEL below 3 sees them; a failed import
    raises as ever.
    """
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "3":
        return
    stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        import tensorflow  # noqa: F401
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)


_import_tensorflow_quietly()
