"""Runs a script's main the way a person expects: strict flags, one line for an error."""

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
    for a bad value. Here each of these, and any UserError, is one line on stderr and exit status 2.
    Other exceptions keep their traceback.
    """
    argv = sys.argv if argv is None else argv
    script = os.path.basename(argv[0])
    if {"-h", "-help", "--help", "--helpfull", "--helpshort"}.intersection(argv[1:]):
        print(sys.modules[main.__module__].__doc__.strip())
        print(FLAGS.main_module_help())
        sys.exit(0)
    try:
        words = FLAGS(argv)[1:]
        if words:
            raise UserError(f"unexpected word '{words[0]}': flags are written --name=value")
        # Each epoch's lines are seen at once in a file or pipe too.
        sys.stdout.reconfigure(line_buffering=True)
        sys.exit(main(argv[:1]))
    except flags.Error as error:
        sys.exit(_failed(script, f"{error}; --help lists the flags"))
    except UserError as error:
        sys.exit(_failed(script, error))
    except Stopped as stopped:
        print(f"{script}: {stopped}", file=sys.stderr)
        sys.exit(128 + stopped.signum)
    except KeyboardInterrupt:
        print(f"{script}: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # whoever read the output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # quiet at exit too
        sys.exit(141)


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
