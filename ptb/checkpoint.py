"""A run on disk: its weights and its position, saved whole, checked, and taken up again.

    <save_path>/<config>/
      checkpoint-000012/           the last one, and the one before
        model.ckpt.index, .data    the variables, as a `tf.train.Saver` writes and reads them
        state.npz                  the LSTM's state: c0, h0, c1, h1 …
        vocabulary.txt             the words by id, one a line
        run.json                   what is trained (configuration, corpus, seed …) and where it is
        SHA256SUMS                 of these files, as `sha256sum -c` reads it
      history.csv, events.out.…    see ptb/monitor.py
      lock                         held by the process that trains here, and free when it is gone

A checkpoint is written under another name, flushed to disk and then renamed: it is there whole or
not at all. Nothing in it is an absolute path, so the folder can be moved.
"""

import contextlib
import dataclasses
import fcntl
import itertools
import json
import os
import shutil
import sys
import time
import typing
from zipfile import BadZipFile

import numpy as np
import tensorflow.compat.v1 as tf

from ptb import stop
from ptb.config import POSITIVE, WHOLE
from ptb.dataset import sha256_of
from ptb.errors import UserError
from ptb.reader import corpus_files
from ptb.rnn import LSTMStateTuple

PREFIX = "checkpoint-"
UNFINISHED = ".unfinished"
MODEL = "model.ckpt"
KEPT = 2  # checkpoints
STATE = "state.npz"
VOCABULARY = "vocabulary.txt"
RECORD = "run.json"
SUMS = "SHA256SUMS"
FREE_TO_CHANGE = ("rnn_mode", "config.max_max_epoch", "tensorflow")  # between two starts


class Epoch(typing.NamedTuple):
    """What is remembered of an epoch; seconds are those of training and validation."""

    learning_rate: float
    train_perplexity: float
    valid_perplexity: float
    words_per_second: float  # in training
    seconds: float


@dataclasses.dataclass
class Position:
    """Where a run is: what its next training step needs, besides the variables."""

    epoch: int = 0  # epochs done
    step: int = 0  # steps of the next one done
    costs: float = 0.0  # their sum
    seconds: float = 0.0  # they took
    state: tuple | None = None  # after them, an LSTMStateTuple for each layer; None is zero
    history: list = dataclasses.field(default_factory=list)  # an Epoch for each one done
    test: float | None = None  # perplexity, once the run is finished


class Checkpoint(typing.NamedTuple):
    """What is in a checkpoint besides the variables, and where those are."""

    path: str
    facts: dict  # what decides the run's numbers, as `facts` makes it
    position: Position
    vocabulary: list  # the words, by id

    @property
    def model(self):
        """The path of the variables, as a `tf.train.Saver` wants it."""
        return os.path.join(self.path, MODEL)


class Damaged(Exception):
    """A checkpoint is not what was written; the message names the file."""


class Run:
    """A run's folder, locked for as long as the run lasts, and the position in the run.

    Args:
      folder: it exists.
      facts: what is trained: JSON values by name.
      vocabulary: the words, by id.
      minutes: between two checkpoints within an epoch.

    Raises:
      UserError: another process trains there; or there are checkpoints, and none is whole, or the
        last one is of something else.
    """

    def __init__(self, folder, facts, vocabulary, minutes):
        self.folder = folder
        self._facts = facts
        self._vocabulary = vocabulary
        self._seconds = 60 * minutes
        self._lock = _lock(folder)
        self.position = Position()
        shutil.rmtree(os.path.join(folder, UNFINISHED), ignore_errors=True)
        self._found, self._damaged = newest(folder)
        if self._found:
            self._compare(self._found)
            self.position = self._found.position

    def _compare(self, found):
        before, now = _flat(found.facts), _flat(self._facts)
        different = [
            f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
            for name in sorted({*before, *now})
            if name not in FREE_TO_CHANGE and before.get(name) != now.get(name)
        ]
        if not different and found.vocabulary != self._vocabulary:
            pairs = itertools.zip_longest(found.vocabulary, self._vocabulary)
            number, (was, is_) = next((i, p) for i, p in enumerate(pairs) if p[0] != p[1])
            different = [f"word {number} of the vocabulary was {was!r} and is {is_!r}"]
        if different:
            raise UserError(
                f"{self.folder} has another run: {'; '.join(different)}. Use another --save_path, "
                "or --restart, which moves that run aside"
            )

    def restore(self, session):
        """Loads the variables of the checkpoint, where there is one; `saver` must be set."""
        if self._found:
            restore(self.saver, session, self._found.model, tf.global_variables())

    @contextlib.contextmanager
    def in_session(self, session):
        """Within it the run can be saved, and a signal stops it at the end of a step.

        At the end the folder is free for another process.
        """
        self._session = session
        self._saved_at = time.monotonic()
        with self._lock, stop.Requests() as self._requests:
            yield

    def after_step(self):
        """Saves where it is time to; saves and raises Stopped where the user asked to stop."""
        self.position.test = None  # that of a finished run which is trained on
        signum = self._requests.signum
        if signum or time.monotonic() - self._saved_at >= self._seconds:
            path = self.save()
            if signum:
                raise stop.Stopped(signum, f"stopped; the same command goes on from {path}")

    def after_epoch(self, epoch):
        """Moves the position to the start of the next epoch, and saves; `epoch` is an Epoch."""
        history = [*self.position.history, epoch]
        self.position = Position(epoch=len(history), history=history)
        self.save()

    def finish(self, test_perplexity):
        """Notes that the run is finished, saves, and returns the path of the model."""
        self.position.test = test_perplexity
        return os.path.join(self.save(), MODEL)

    def is_finished(self, max_max_epoch):
        """Returns whether no epoch is left, and the test is done.

        Raises:
          UserError: an epoch has begun that would not be trained to its end.
        """
        if self.position.step and self.position.epoch >= max_max_epoch:
            raise UserError(
                f"max_max_epoch is {max_max_epoch}, and {self.folder} is within epoch "
                f"{self.position.epoch + 1}; raise it to that or more"
            )
        return self.position.test is not None and self.position.epoch >= max_max_epoch

    def save(self):
        """Writes a checkpoint, removes all but the last two whole ones, and returns its path.

        Raises:
          UserError: it cannot be written; the checkpoints on disk stay.
        """
        unfinished = os.path.join(self.folder, UNFINISHED)
        try:
            with writing(self.folder):
                number = max(_numbers(self.folder), default=0) + 1
                path = _path(self.folder, number)
                os.mkdir(unfinished)
                self.saver.save(
                    self._session, os.path.join(unfinished, MODEL), write_meta_graph=False,
                    write_state=False,
                )
                write(unfinished, self._facts, self.position, self._vocabulary)
                _flush(unfinished)
                os.rename(unfinished, path)
                _flush(self.folder, files=False)
                whole = [n for n in _numbers(self.folder) if n not in self._damaged]
                for old in _numbers(self.folder):
                    if old not in whole[-KEPT:]:
                        shutil.rmtree(_path(self.folder, old))
        except UserError:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        self._saved_at = time.monotonic()
        return path


@contextlib.contextmanager
def writing(folder):
    """Within it, what cannot be written in a run's folder is a UserError."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "message", error)
        raise UserError(
            f"cannot save in {folder}: {reason}; the last whole checkpoint stays, and the same "
            "command continues from it"
        ) from error


def newest(folder):
    """Returns (the newest whole Checkpoint in a folder, the numbers of damaged ones after it).

    It is None where there is no checkpoint at all. Each damaged one is named on stderr.

    Raises:
      UserError: there are checkpoints, and none is whole; or they may not be read.
    """
    damaged = set()
    try:
        for number in reversed(_numbers(folder)):
            path = _path(folder, number)
            try:
                return read(path), damaged
            except Damaged as error:
                damaged.add(number)
                print(f"{path} is damaged: {error}.", file=sys.stderr)
    except PermissionError as error:
        raise UserError(f"{error.filename}: {error.strerror}; make it readable") from error
    if damaged:
        raise UserError(
            f"{folder}: no checkpoint there is whole; train anew: lstm.py's --restart moves the "
            "folder aside first"
        )
    return None, damaged


def find(path):
    """Returns the Checkpoint that a path names, or None where there is none.

    It is the newest whole one of a run's folder, a checkpoint's own folder, or the model in that.

    Raises:
      UserError: it is damaged.
    """
    for folder in path, os.path.dirname(path):
        if os.path.exists(os.path.join(folder, RECORD)):
            try:
                return read(folder)
            except Damaged as error:
                raise UserError(f"{folder} is damaged: {error}; name the run's folder") from error
    return newest(path)[0] if os.path.isdir(path) else None


def restore(saver, session, model, variables):
    """Loads variables into the session; `saver` is one of them and `model` its path.

    Raises:
      UserError: they are not there, have another shape (which a saver does not notice), or cannot
        be read.
    """
    try:
        shapes = dict(tf.train.list_variables(model))
        for variable in variables:
            found, shape = shapes.get(variable.op.name), variable.shape.as_list()
            if found != shape:
                raise ValueError(f"{variable.op.name} has shape {found}, not {shape}")
        saver.restore(session, model)
    except (tf.errors.OpError, ValueError) as error:
        reason = getattr(error, "message", str(error)).splitlines()[0]
        raise UserError(f"{model}: not the variables of this model: {reason}") from error


def _path(folder, number):
    return os.path.join(folder, f"{PREFIX}{number:06d}")


def _numbers(folder):
    """Returns the numbers of the checkpoints in a folder, whole or not."""
    names = [name.removeprefix(PREFIX) for name in os.listdir(folder) if name.startswith(PREFIX)]
    return sorted(int(name) for name in names if name.isdecimal())


def facts(config, corpus_folder, flags):
    """Returns what decides a run's numbers, as JSON values by name."""
    return {
        "config": {
            **{name: int(getattr(config, name)) for name in WHOLE},
            **{name: float(getattr(config, name)) for name in POSITIVE},
        },
        "corpus": {os.path.basename(f): sha256_of(f) for f in corpus_files(corpus_folder)},
        "number_type": "float16" if flags.use_fp16 else "float32",
        "rnn_mode": flags.rnn_mode,
        "seed": flags.seed,
        "tensorflow": tf.__version__,
    }


def write(path, facts, position, vocabulary):
    """Writes into a folder what a checkpoint has besides the variables; the checksums last."""
    fields = {name: value for name, value in vars(position).items() if name != "state"}
    state = {f"{part}{layer}": array for layer, pair in enumerate(position.state or ())
             for part, array in zip("ch", pair)}
    np.savez(os.path.join(path, STATE), **state)
    with open(os.path.join(path, VOCABULARY), "w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{word}\n" for word in vocabulary)
    with open(os.path.join(path, RECORD), "w", encoding="utf-8") as file:
        json.dump({"facts": facts, "position": fields}, file, indent=1)
    sums = {name: sha256_of(os.path.join(path, name)) for name in sorted(os.listdir(path))}
    with open(os.path.join(path, SUMS), "w", encoding="utf-8") as file:
        file.writelines(_lines(sums))


def read(path):
    """Returns the Checkpoint in a folder.

    Raises:
      Damaged: a file is missing, added or changed, or has not what it should.
      PermissionError: a file may not be read.
    """
    name = SUMS
    try:
        with open(os.path.join(path, SUMS), encoding="utf-8") as file:
            lines = file.readlines()
        sums = dict(reversed(line.removesuffix("\n").split("  ")) for line in lines)
        there = {*os.listdir(path)} - {SUMS}
        if lines != _lines(sums) or not {RECORD, STATE, VOCABULARY, f"{MODEL}.index"} <= {*sums}:
            raise ValueError
        for name in sorted({*sums, *there}):
            if name not in there:
                raise Damaged(f"{name} is missing")
            if sha256_of(os.path.join(path, name)) != sums.get(name):
                raise Damaged(f"{name} is not what was written")
        name = VOCABULARY
        with open(os.path.join(path, VOCABULARY), encoding="utf-8", newline="\n") as file:
            vocabulary = file.read().removesuffix("\n").split("\n")
        if len({*vocabulary}) != len(vocabulary):
            raise ValueError
        name = RECORD
        with open(os.path.join(path, RECORD), encoding="utf-8") as file:
            record = json.load(file)
        facts = _checked(record["facts"], dict)
        position = _position(record["position"])
        name = STATE
        with np.load(os.path.join(path, STATE), allow_pickle=False) as arrays:
            layers = range(len(arrays.files) // 2)
            state = tuple(LSTMStateTuple(arrays[f"c{k}"], arrays[f"h{k}"]) for k in layers)
        if state:
            shape = (facts["config"]["batch_size"], facts["config"]["hidden_size"])
            kinds = {(array.shape, str(array.dtype)) for pair in state for array in pair}
            if (len(state), kinds) != (
                facts["config"]["num_layers"], {(shape, facts["number_type"])}
            ):
                raise ValueError
            position.state = state
        return Checkpoint(path, facts, position, vocabulary)
    except PermissionError:
        raise  # nothing is damaged
    except (OSError, ValueError, LookupError, TypeError, AttributeError, BadZipFile) as error:
        raise Damaged(f"{name} cannot be read") from error


def _lines(sums):
    """Returns the lines of SHA256SUMS for {name: checksum}."""
    return [f"{checksum}  {name}\n" for name, checksum in sums.items()]


def _position(fields):
    """Returns a Position of what run.json has; raises ValueError, TypeError where that is none."""
    position = Position(**fields)
    for number in position.epoch, position.step:
        if _checked(number, int) < 0:
            raise ValueError
    _checked(position.costs, float)
    _checked(position.seconds, float)
    _checked(position.state, type(None))  # it is in a file of its own
    position.history = [Epoch(*_checked(values, list)) for values in position.history]
    if len(position.history) != position.epoch:
        raise ValueError
    for number in itertools.chain(*position.history):
        _checked(number, float)
    if position.test is not None:
        _checked(position.test, float)
    return position


def _checked(value, kind):
    if type(value) is not kind:
        raise TypeError
    return value


def set_aside(folder):
    """Renames a run's folder, where there is one, to the first free <folder>-old-<n>.

    Raises:
      UserError: another process trains there, or it cannot be renamed.
    """
    if not os.path.exists(folder):
        return
    _lock(folder).close()  # nobody trains there
    number = 1
    while os.path.exists(f"{folder}-old-{number}"):
        number += 1
    try:
        os.rename(folder, f"{folder}-old-{number}")
    except OSError as error:
        raise UserError(f"{folder} cannot be moved aside: {error.strerror}") from error
    print(f"The run in {folder} is now in {folder}-old-{number}.")


def _lock(folder):
    """Returns an open file that keeps other processes out of a folder for as long as it is open."""
    path = os.path.join(folder, "lock")
    file = None
    try:
        file = open(path, "w")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if file:
            file.close()
        if isinstance(error, BlockingIOError):
            message = f"{folder}: another process is training there; wait, or"
        else:
            message = f"{path} cannot be locked: {error.strerror};"
        raise UserError(f"{message} use another --save_path") from error
    return file


def _flat(facts, prefix=""):
    """Returns {"a.b": value} of {"a": {"b": value}}."""
    flat = {}
    for name, value in facts.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def _flush(folder, files=True):
    """Returns when a folder's entries, and its files, are on the disk."""
    for path in [*(os.path.join(folder, name) for name in os.listdir(folder) if files), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
