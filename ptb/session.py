"""The session of a run: a Supervisor's, without its background services; and its folder."""

import contextlib
import os
import tempfile

import tensorflow
import tensorflow.compat.v1 as tf

from ptb.errors import UserError


def make_deterministic(seed):
    """From here on the same operations of the default graph give the same bits.

    What that changes on a CPU is the update of the embedding: the rows of a word that occurs twice
    are added in order, where else threads might race (20,000 rows in a step did, 700 did not). It
    holds for the whole process, where TensorFlow then asks every graph for a seed.
    """
    tf.set_random_seed(seed)
    tensorflow.config.experimental.enable_op_determinism()


def make_supervisor(**kwargs):
    """Returns a `tf.train.Supervisor` that initializes variables and owns the saver, no more.

    Without a logdir it neither restores nor saves on its own clock, and no thread evaluates
    summaries of the model while the loop is training it.
    """
    tf.logging.set_verbosity(tf.logging.ERROR)  # its class is marked as deprecated, with a warning
    return tf.train.Supervisor(logdir=None, summary_op=None, save_model_secs=0, **kwargs)


@contextlib.contextmanager
def managed_session(sv):
    """A supervisor's managed session, in which no error passes for success.

    `Supervisor.managed_session` takes OutOfRangeError, also that of a damaged file, as the normal
    end of the data and drops it; here it is raised as a RuntimeError. Operations without a kernel
    for a device go where they have one (soft placement).
    """
    with sv.managed_session(config=tf.ConfigProto(allow_soft_placement=True)) as session:
        try:
            yield session
        except tf.errors.OutOfRangeError as error:
            raise RuntimeError(f"out of range inside the session: {error.message}") from error


def make_folder(path):
    """Makes a folder to save in, where it is missing, and tries to write there.

    Raises:
      UserError: it cannot be made, or nothing can be written there.
    """
    try:
        os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"--save_path: cannot write to {path} ({error.strerror})") from error
