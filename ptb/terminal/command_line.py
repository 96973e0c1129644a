"""What a person types or edits (flags, configurations), and the one line that a mistake gets."""

import argparse
import contextlib
import decimal
import errno
import functools
import importlib.util
import math
import numbers
import os
import re
import shlex
import subprocess
import sys
import traceback

from absl import flags  # They are those of tf.app.flags; TensorFlow installs them.

from ptb.terminal.errors import (
    DISK_FULL,
    READER_GONE,
    Output,
    Stopped,
    UserError,
    memory_needed,
    shortened,
    silence,
)

FLAGS = flags.FLAGS
WHOLE = {  # the fields of a configuration that are whole numbers, with the smallest value of each
    "num_layers": 1,
    "num_steps": 1,
    "hidden_size": 1,
    "max_epoch": 0,
    "max_max_epoch": 1,
    "batch_size": 1,
    "vocab_size": 1,
}
TUTORIALS_FLAGS = {  # {what an error says of a flag of the tutorial: what it is here}
    "'model'": "it is --config here",
    "'num_gpus'": "a GPU is used without a flag; ptb/docs/workers.md says how to use several",
    "--rnn_mode=block": "the tutorial's block mode is fused here",
    "--rnn_mode=cudnn": "the tutorial's cudnn mode is fused here",
}
OTHER_NAMES = {  # {a flag of other scripts: the field of a configuration that it means}
    "epochs": "max_max_epoch",
    "num_epochs": "max_max_epoch",
    "max_epochs": "max_max_epoch",
    "lr": "learning_rate",
    "clip": "max_grad_norm",
    "dropout": "keep_prob",
    "layers": "num_layers",
    "nlayers": "num_layers",
    "nhid": "hidden_size",
    "bptt": "num_steps",
    "batch": "batch_size",
}
# what Python says of a flag's value that is no number, or not a whole one
PYTHONS_WORDS = re.compile("invalid literal for int.*|could not convert string to float.*")
LARGEST = 2**31 - 1  # the largest int32, which word ids are, and sizes in many operations
# The fields that are positive numbers.
POSITIVE = ("init_scale", "learning_rate", "max_grad_norm", "keep_prob", "lr_decay")


def run(main, argv=None):
    """Parses the flags, calls `main(argv)` and exits; the strict twin of `tf.app.run`.

    `tf.app.run` ignores flags it does not know and words that belong to none, and shows a traceback
    for a bad value. Here each of these is one line; see errors_in_one_line.
    """
    argv = sys.argv if argv is None else argv
    status = None
    with errors_in_one_line(argv[0]):
        if {"-h", "-help", "--help", "--helpfull", "--helpshort"}.intersection(argv[1:]):
            script = sys.modules[main.__module__]
            if script.__doc__:  # python -OO leaves it out.
                print(script.__doc__.strip())
            print(FLAGS.module_help(argv[0] if script.__name__ == "__main__" else script))
        else:
            _parse(argv)
            status = main(argv[:1])
    sys.exit(status)


def _parse(argv):
    """Sets the flags to what a command line says; raises UserError for a mistake in it."""
    try:
        rest = FLAGS(argv)[1:]
    except (flags.Error, UnicodeDecodeError) as error:
        hints = [hint for flag, hint in TUTORIALS_FLAGS.items() if flag in str(error)]
        field = getattr(error, "flagname", "").replace("-", "_")
        field = OTHER_NAMES.get(field, field)
        if field in (*WHOLE, *POSITIVE):
            hints.append(f"{field} is set in configs.py")
        problem = PYTHONS_WORDS.sub("it takes a number", str(error))
        raise UserError("; ".join([problem, *hints, "--help lists the flags"])) from error
    if rest:
        raise UserError(f"unexpected word '{rest[0]}': flags are written --name=value")


def print_whatever_it_is():
    """Makes stdout and stderr print what they cannot encode as escapes, and each line at once.

    A path or a word need not be in the terminal's encoding. In a file or a pipe, too, every line is
    to be seen at once, and as a whole: with PYTHONUNBUFFERED Python would write the end of a line
    apart, and the lines of workers that share a terminal would run into each other. A notebook's
    streams do all this by themselves.
    """
    for stream in sys.stdout, sys.stderr:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(
                errors="backslashreplace", line_buffering=True, write_through=False
            )


def command_of(flags, **changes):
    """Returns the command that starts the script with its flags as they are but for some changes.

    Args:
      flags: the script's flags.
      changes: {flag: its value in the command; None leaves it out}.
    """
    script = flags.find_module_defining_flag("config")  # As absl knows it, see prepare_flags.
    given = [
        flag.serialize() for flag in flags.flags_by_module_dict()[script]
        if not flag.using_default_value and flag.name not in changes
    ]
    given += [f"--{name}={value}" for name, value in changes.items() if value is not None]
    path = sys.modules[script].__file__ if script in sys.modules else script
    return as_typed([sys.executable, path, *given])


def as_typed(command):
    """Returns the words of a command in one line, quoted for the shell of the system."""
    return subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command)


def prepare_flags(module_name):
    """Removes the flags that an earlier run of a module has defined in the same process.

    Those that it defines now have their default values until somebody parses a command line, which
    in a notebook or a test nobody does. It may have been imported before and be a script now, or
    the other way round.

    Args:
      module_name: its __name__; a script's flags are known by its path instead.
    """

    def stem(name):
        return os.path.basename(name).removesuffix(".py")

    module_name = _flags_owner(module_name)
    for owner, its_flags in [*FLAGS.flags_by_module_dict().items()]:
        if stem(owner) == stem(module_name):
            for flag in [*its_flags]:
                delattr(FLAGS, flag.name)
    FLAGS.mark_as_parsed()


def _flags_owner(module_name):
    """Returns under which name absl knows the flags of a module."""
    return sys.argv[0] if module_name == "__main__" else module_name


def takes_arguments(main):
    """Makes a script's main parse the arguments that it gets, as it does in another program.

    main(["lstm.py", "--config", "tst"]) is that command: the flags that it does not name have their
    default values. Without arguments, as in main([]), the flags stay what they are. A program that
    imports the script may define flags of the same names; they replace those of the script.
    """
    script_flags = FLAGS.flags_by_module_dict().get(_flags_owner(main.__module__), [])
    for flag in script_flags:
        flag.allow_override = True

    @functools.wraps(main)
    def called(argv=None):
        argv = [*(argv or [])]
        if argv and argv[0].startswith("-"):  # The name of the program was left out.
            argv.insert(0, main.__module__)
        if argv[1:]:
            for flag in script_flags:
                flag.unparse()
            _parse(argv)
        return main(argv[:1])

    return called


class Parser(argparse.ArgumentParser):
    """An ArgumentParser for a module run with `python -m`; a mistake is a UserError."""

    def __init__(self, *args, **kwargs):
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(*args, formatter_class=layout, allow_abbrev=False, **kwargs)
        self._commands = None
        self._words = []

    def parse_known_args(self, args=None, namespace=None):
        self._words = args or []
        return super().parse_known_args(args, namespace)

    def error(self, message):
        help_ = "--help"
        if re.search("required: [^-]", message) and "--average_with" in self._words:
            message += " (--average_with takes all words that follow it; name it last)"
        if re.match("unrecognized arguments: [^-]", message):
            message += " (files come before options; several words of a prompt need quotes)"
        if message.endswith("required: command"):
            message += f", one of {', '.join(self._commands.choices)}"
            help_ = f"{self.prog} --help"
        raise UserError(f"{message}; {help_} shows the use")

    def command(self, function, help_):
        """Adds a command and returns the Parser of its arguments.

        Args:
          function: what the command does; its name is that of the command after a `_`, and the
            parsed arguments have it as `function`.
          help_: a sentence.
        """
        if self._commands is None:
            self._commands = self.add_subparsers(
                metavar="command", required=True, parser_class=Parser
            )
        added = self._commands.add_parser(function.__name__[1:], help=help_, description=help_)
        added.set_defaults(function=function)
        return added

    def add_model(self, of_one=False):
        """Adds the arguments that name a trained model: those of LanguageModel.load.

        Args:
          of_one: whether an average of several models is refused.
        """
        self.add_argument("model", help="a run's folder, or a checkpoint of the tutorial")
        self.add_argument("--data_path", help="the corpus of the tutorial's checkpoint")
        self.add_argument("--best", action="store_true",
                          help="take the epoch with the lowest valid perplexity, not the last")
        self.add_argument("--average_with", nargs="+", action="extend", default=[], metavar="RUN",
                          type=_refuse_average if of_one else str,
                          help=argparse.SUPPRESS if of_one else "further models, named last; the "
                          "answer is the mean of the probabilities of all")


def _refuse_average(_):
    raise argparse.ArgumentTypeError("this is asked of one model; leave the others out")


@contextlib.contextmanager
def errors_in_one_line(script):
    """Within it, what the user can fix or has asked for ends the program in a line on stderr.

    The exit status is 2 for a UserError, output to a full disk, or too little memory; 128 and the
    signal's number where a signal stopped it, which is 130 for Ctrl-C; 141 without a line where the
    reader of its output has gone. Other exceptions keep their traceback. Where stderr cannot be
    written to, the program goes on without it.
    """
    script = os.path.basename(script)
    print_whatever_it_is()
    with contextlib.redirect_stderr(Output(sys.stderr)):
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
            if error.errno not in (errno.EPIPE, *DISK_FULL):
                raise
            silence(sys.stdout)
            if error.errno == errno.EPIPE:  # Whoever read the output has gone, as `| head` does.
                sys.exit(128 + READER_GONE)
            sys.exit(_failed(script, f"the output cannot be written ({error.strerror})"))
        except Exception as error:
            needed = memory_needed(error)
            if needed is None:
                raise
            message = f"out of memory ({needed}); end other programs, or use a larger machine"
            sys.exit(_failed(script, message))


def import_edited(name):
    """Imports a module that users edit; a mistake in it is one line and exit status 2.

    `from <name> import *` then brings its configurations along, and none of its other names, which
    might take the place of names that the script uses.
    """
    script = os.path.basename(sys.argv[0])
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:  # It has none where it is a folder.
        sys.exit(_failed(script, f"{name}.py is missing; it belongs beside {script}"))
    try:
        module = importlib.import_module(name)
        module.__all__ = [key for key in vars(module) if _is_configuration(module, key)]
        return module
    except (Exception, SystemExit) as error:  # The edited lines may raise anything.
        file = spec.origin
        lines = [at.lineno for at in traceback.extract_tb(error.__traceback__)
                 if at.filename == file]
        said = str(error)
        if isinstance(error, SyntaxError) and error.filename == file:
            lines.append(error.lineno)
            said = error.msg  # The rest of what it says is the line.
        where = f"{name}.py, line {lines[-1]}" if lines else f"{name}.py"
        message = f"{where}: {type(error).__name__}: {said}; fix the file"
        sys.exit(_failed(script, message))


def _failed(script, message):
    """Prints a message as one line; returns the exit status of a mistake in usage."""
    lines = map(str.strip, str(message).splitlines())
    print(f"{script}: {' '.join(lines)}", file=sys.stderr)
    return 2


def get_config(name, module):
    """Returns an instance of the class `<Name>Config` of a module, its values checked.

    Args:
      name: the class name without `Config`, in any case: "small" is `SmallConfig`.
      module: where the classes are.

    Raises:
      UserError: no such class, or two of them, or a value that cannot work.
    """
    file = f"{module.__name__}.py"
    classes = [key for key in vars(module) if _is_configuration(module, key)]
    found = [key for key in classes if key.removesuffix("Config").lower() == name.lower()]
    if not found:
        known = dict.fromkeys(key.removesuffix("Config").lower() for key in classes)
        others = [
            key for key, value in vars(module).items() if isinstance(value, type)
            and key not in classes and key[0] != "_" and value.__module__ == module.__name__
        ]
        raise UserError(
            f"--config {name}: unknown; {file} has {', '.join(known) or 'none'}"
            + (f"; the name of a configuration ends with Config, unlike {', '.join(others)}"
               if others else "")
        )
    if len({getattr(module, key) for key in found}) > 1:
        raise UserError(
            f"--config {name}: {file} has {' and '.join(found)}, which differ in capitals only; "
            "rename one"
        )
    config_class = getattr(module, found[0])
    _refuse_annotations(config_class, file)
    try:
        config = config_class()
        check_config(config)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # A class of the user's may raise anything.
        raise UserError(
            f"{config_class.__name__}: {type(error).__name__}: {error}; fix it in {file}"
        ) from error
    return config


def _is_configuration(module, key):
    """Returns whether a name in a module is that of a configuration."""
    return isinstance(getattr(module, key), type) and key.endswith("Config") and key != "Config"


def _refuse_annotations(config_class, file):
    """Raises UserError where a field has a colon in place of the equals sign: it gets no value."""
    for each in config_class.__mro__:
        for field, value in vars(each).get("__annotations__", {}).items():
            if field not in vars(each):
                raise UserError(
                    f"{each.__name__}.{field}: {value!r} has a colon and therefore no value; write "
                    f"{field} = … in {file}"
                )


def check_config(config):
    """Makes every number of a configuration a plain int or float, whatever Python calls a number.

    Raises UserError where a field is missing, unknown or impossible.
    """

    def fail(field, problem):
        raise UserError(f"{type(config).__name__}.{field} {problem}; fix it in configs.py")

    fields = [field for field in dir(config) if not field.startswith("_")]
    for field in (*WHOLE, *POSITIVE):
        if field not in fields:
            fail(field, "is missing")
    for field in fields:
        value = getattr(config, field)
        if field == "vocab_size" and value is None:
            continue  # The corpus decides.
        if field in WHOLE:
            if not isinstance(value, numbers.Integral) or isinstance(value, bool):
                fail(field, f"is {_as_written(value)}, not a whole number")
            if value < WHOLE[field]:
                fail(field, f"is {_as_written(value)}; the smallest possible is {WHOLE[field]}")
            if value > LARGEST:
                fail(field, f"is {_as_written(value)}; the largest possible is {LARGEST}")
            number = int(value)
        elif field in POSITIVE:
            if not isinstance(value, (numbers.Real, decimal.Decimal)) or isinstance(value, bool):
                fail(field, f"is {_as_written(value)}, not a number")
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            except ValueError:  # Of a Decimal that is a signaling NaN.
                number = math.nan
            if not 0 < number < math.inf:
                fail(field, f"is {_as_written(value)}, not a finite number above 0")
            if not 1.2e-38 < number < 3.4e38:
                fail(field, f"is {_as_written(value)}, which float32 cannot hold")
            if field == "keep_prob" and number > 1:
                fail(field, f"is {value!r}; a probability is at most 1")
        else:
            fail(field, "is not a field of a configuration")
        if type(value) is not type(number):  # TensorFlow and JSON take no others.
            setattr(config, field, number)


def _as_written(value):
    """Returns a value as the user wrote it, unless that is too long for a line."""
    try:
        text = repr(value)
    except ValueError:  # Python writes out no integer of more than 4,300 digits.
        return "a number of thousands of digits"
    return shortened(text)
