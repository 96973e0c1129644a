"""Runs a script's main the way a person expects: strict flags, one line for an error."""

import argparse
import contextlib
import errno
import importlib
import os
import sys
import traceback

import tensorflow.compat.v1 as tf

from ptb.errors import UserError
from ptb.stop import Stopped

flags = tf.app.flags
FLAGS = flags.FLAGS


def run(main, argv=None):
    """Parses the flags, calls `main(argv)` and exits; the strict twin of `tf.app.run`.

    `tf.app.run` ignores flags it does not know and words that belong to none, and shows a traceback
    for a bad value. Here each of these is one line; see errors_in_one_line.
    """
    argv = sys.argv if argv is None else argv
    if {"-h", "-help", "--help", "--helpfull", "--helpshort"}.intersection(argv[1:]):
        print(sys.modules[main.__module__].__doc__.strip())
        print(FLAGS.main_module_help())
        sys.exit(0)
    with errors_in_one_line(argv[0]):
        try:
            words = FLAGS(argv)[1:]
        except flags.Error as error:
            raise UserError(f"{error}; --help lists the flags") from error
        if words:
            raise UserError(f"unexpected word '{words[0]}': flags are written --name=value")
        # Each epoch's lines are seen at once in a file or pipe too.
        sys.stdout.reconfigure(line_buffering=True)
        sys.exit(main(argv[:1]))


class Parser(argparse.ArgumentParser):
    """An ArgumentParser for a module run with `python -m`; a mistake is a UserError."""

    def __init__(self, *args, **kwargs):
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(*args, formatter_class=layout, allow_abbrev=False, **kwargs)

    def error(self, message):
        raise UserError(f"{message}; --help shows the use")


@contextlib.contextmanager
def errors_in_one_line(script):
    """Within it, what the user can mend or has asked for ends the program in a line on stderr.

    The exit status is 2 for a UserError, or output to a full disk; 130 or 143 where a signal
    stopped it; 141 without a line where the reader of its output has gone. Other exceptions keep
    their traceback.
    """
    script = os.path.basename(script)
    try:
        yield
        sys.stdout.flush()
    except UserError as error:
        sys.exit(_failed(script, error))
    except Stopped as stopped:
        print(f"{script}: {stopped}", file=sys.stderr)
        sys.exit(128 + stopped.signum)
    except KeyboardInterrupt:
        print(f"{script}: interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # quiet at exit too
        if error.errno == errno.EPIPE:  # whoever read the output has gone, as `| head` does
            sys.exit(141)
        sys.exit(_failed(script, "the output cannot be written: no space left on the disk"))


def import_edited(name):
    """Imports a module that users edit; a mistake in it is one line and exit status 2."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever the edited lines raise
        where = error if isinstance(error, SyntaxError) else traceback.extract_tb(
            error.__traceback__)[-1]
        message = f"{name}.py, line {where.lineno}: {type(error).__name__}: {error}; mend the file"
        sys.exit(_failed(os.path.basename(sys.argv[0]), message))


def _failed(script, message):
    """Prints a message as one line; returns the exit status of a mistake in usage."""
    print(f"{script}: {' '.join(str(message).split())}", file=sys.stderr)
    return 2
