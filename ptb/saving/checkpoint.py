"""A checkpoint on disk: written whole, verified before it is believed, found, and loaded.

    checkpoint-000012/             the newest of a run's folder, beside the one before, and beside
                                   that of the best epoch so far
      model.ckpt.index, .data-…    the variables, as a `tf.train.Saver` writes and reads them
      state.npz                    the LSTM's state: c0, h0, c1, h1 …
      vocabulary.txt               the words by id, one a line
      run.json                     what is trained (configuration, corpus, seed …) and how far it is
      SHA256SUMS                   the checksums of these files, as `sha256sum -c` reads them

Nothing in it is an absolute path, so the folder can be moved. Other files that somebody puts there,
such as a file manager's .DS_Store, are nobody's business.
"""

import contextlib
import dataclasses
import errno
import glob
import json
import os
import pathlib
import typing
from zipfile import BadZipFile

import numpy as np

from ptb.saving import files
from ptb.saving.history import EpochResult, best_epoch
from ptb.saving.identity import unknown_facts
from ptb.terminal.errors import UserError, memory_needed
from ptb.terminal.quiet import session_config, tf

PREFIX = "checkpoint-"
TRIES = 100  # how often a reader looks again where a run has just removed what it was to read
KEPT = 2  # number of newest checkpoints that stay in a run's folder, besides the best epoch's
VARIABLES = "model.ckpt"
STATE = "state.npz"
VOCABULARY = "vocabulary.txt"
RECORD = "run.json"
SUMS = "SHA256SUMS"
# What Python and NumPy raise for a file that is missing or not what it should be.
UNREADABLE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, OverflowError,
    BadZipFile,
)
STATE_TYPES = ("float32", "float16")  # of all numbers of a state: one of these
CELL = "Model/RNN/multi_rnn_cell/cell_{}/"
LAYER_NAMES = ("basic_lstm_cell/kernel", "basic_lstm_cell/bias")  # of the variables of a layer


@dataclasses.dataclass(frozen=True)
class Position:
    """How far a run is: what its next training step needs, besides the variables."""

    epoch: int = 0  # epochs that are done
    step: int = 0  # steps of the next epoch that are done
    costs: float = 0.0  # sum of the costs of those steps
    seconds: float = 0.0  # duration of those steps
    state: tuple | None = None  # (c, h) of each layer after them; None is the zero state
    history: tuple = ()  # an EpochResult for each epoch that is done
    test: float | None = None  # test perplexity, once the run is finished
    best_test: float | None = None  # that of the best epoch, where this is not the last one


class Checkpoint(typing.NamedTuple):
    """What is in a checkpoint besides the variables."""

    path: str  # the checkpoint's folder
    facts: dict  # what decides the run's numbers, see identity.facts_of
    position: Position
    vocabulary: list  # the words by id
    sums: dict | None = None  # {name of a file: its checksum}; None where nothing was read

    @property
    def variables_path(self):
        """The path of the variables, as a `tf.train.Saver` takes it."""
        return os.path.join(self.path, VARIABLES)


class Damaged(Exception):
    """A checkpoint is not what was written; the message names the file."""


def save(folder, facts, position, vocabulary, values):
    """Writes the next checkpoint of a run's folder and returns its path.

    It counts as written, and has its name, only when it has been read back.

    Args:
      folder: the run's folder.
      facts, position, vocabulary: see Checkpoint.
      values: {name of a variable: array}.

    Raises:
      OSError, tf.errors.OpError: it cannot be written; nothing of it is left.
    """
    number = max(_numbers(folder), default=0) + 1
    while os.path.lexists(_path(folder, number)):  # Somebody's file may have the name.
        number += 1
    path = _path(folder, number)
    with files.whole(path) as unfinished:
        os.mkdir(unfinished)
        write_variables(os.path.join(unfinished, VARIABLES), values)
        write(unfinished, facts, position, vocabulary)
        try:
            read(unfinished)
        except Damaged as error:
            raise OSError(errno.EIO, f"what was written cannot be read back: {error}") from error
    return path


def is_run(folder):
    """Returns whether a folder has checkpoints of a run, whole or not, that can be seen."""
    try:
        return bool(_numbers(folder))
    except OSError:
        return False


def is_within_one(path):
    """Returns whether a path is that of a checkpoint's folder or leads into one."""
    path = pathlib.Path(os.path.realpath(path))
    return any(
        all(os.path.exists(folder / name) for name in (RECORD, SUMS))
        for folder in (path, *path.parents)
    )


def hint_of_runs(path):
    """Returns the end of a message which names up to three runs that are in a folder or beside it.

    Those in it come first. Where there are none, it is empty.
    """
    path = os.path.normpath(path)
    runs = [
        run for folder in (path, os.path.dirname(path))
        for run in sorted(glob.glob(os.path.join(glob.escape(folder), "*")))
        if is_run(run) and run != path
    ]
    return f"; there is {', '.join(runs[:3])}" if runs else ""


def prune(folder, damaged):
    """Removes all whole checkpoints but the last KEPT, and for each of these its best epoch's.

    So the best epoch is there whichever of the last ones the run goes on from.

    Args:
      folder: the run's folder.
      damaged: the numbers of checkpoints that seem to be damaged. They stay, because a disk that
        fails for a moment makes a whole checkpoint seem damaged.
    """
    positions = _positions(folder, damaged)
    needed = {*list(positions)[-KEPT:]}
    for number in [*needed]:
        needed.update(_numbers_of_best_epoch(positions, positions[number].history)[:1])
    for number in positions.keys() - needed:
        files.remove(_path(folder, number))


def newest(folder, known=None):
    """Returns (the newest whole Checkpoint of a run's folder or None, numbers of damaged ones).

    Each damaged checkpoint that is newer is named on stderr, once in a process. A run that is
    training removes old checkpoints: where one disappears while it is read, the folder is looked
    through again.

    Args:
      folder: the run's folder.
      known: a Checkpoint that was read before and need not be read again, see read.

    Raises:
      UserError: the folder or a checkpoint cannot be read.
    """
    return _first_whole(folder, lambda: reversed(_numbers(folder)), known)


def of_best_epoch(folder, history, damaged, known=None):
    """Returns the Checkpoint at the end of a run's best epoch; None where none is there or whole.

    It is known by its own history, with which the run's begins. As in `newest`, damaged checkpoints
    are named on stderr, and where one disappears the folder is looked through again.

    Args:
      folder: the run's folder.
      history: an EpochResult for each epoch that is done.
      damaged: the numbers of checkpoints that are not to be looked at.
      known: see newest.

    Raises:
      UserError: the folder or a checkpoint cannot be read.
    """
    return _first_whole(
        folder, lambda: _numbers_of_best_epoch(_positions(folder, damaged), history), known
    )[0]


def _first_whole(folder, numbers, known=None):
    """Returns (the first whole Checkpoint of a run's folder or None, numbers of damaged ones).

    Args:
      folder: the run's folder.
      numbers: a function that returns the numbers of the checkpoints to look at, in order.
      known: see newest.
    """
    for _ in tries(folder):
        damaged = {}
        try:
            for number in numbers():
                path = _path(folder, number)
                try:
                    found = read(path, known)
                    break
                except Damaged as error:
                    damaged[number] = f"{path} is damaged: {error}."
                    if not os.path.exists(path):
                        raise
            else:
                found = None
        except Damaged:
            continue
        except OSError as error:
            raise UserError(f"{error.filename}: {error.strerror}; make it readable") from error
        for message in damaged.values():
            files.warn_once(message, message)
        return found, {*damaged}


def tries(folder):
    """Yields TRIES times; then it is a UserError that a run removes all before it can be read."""
    yield from range(TRIES)
    raise UserError(
        f"{folder}: the run there saves so often that each checkpoint was gone before it could be "
        "read; ask again when it is finished, or let it save less often, with --save_minutes"
    )


def find(path, best=False):
    """Returns the Checkpoint that a path names, or None where there is none.

    It is the newest whole one of a run's folder, or with `best` that of its best epoch; or a
    checkpoint's own folder, or the variables in it.

    Raises:
      UserError: it is damaged, or no checkpoint of the run's folder is whole, or none of its best
        epoch is there.
    """
    path = os.fspath(path)
    folder, name = os.path.split(path)
    if name not in (VARIABLES, f"{VARIABLES}.index"):
        folder = path
    folder = folder or os.curdir
    if any(os.path.exists(os.path.join(folder, name)) for name in (RECORD, SUMS)):
        if best:
            raise UserError(f"{folder} is a checkpoint; --best takes the folder of its run")
        try:
            return read(folder)
        except Damaged as error:
            raise UserError(f"{folder} is damaged: {error}; name the run's folder") from error
    if not os.path.isdir(path):
        return None
    for _ in tries(path):
        last, damaged = newest(path)
        if damaged and not last:
            raise UserError(
                f"{path}: no checkpoint there is whole; train it again with lstm.py --restart"
            )
        if not last or not best:
            return last
        history = last.position.history
        if not history:
            raise UserError(f"{path}: no epoch is done yet; leave out --best, or try again later")
        found = of_best_epoch(path, history, damaged)
        if found:
            return found
        if os.path.exists(last.path):
            raise UserError(
                f"{path}: no whole checkpoint of the best epoch, {best_epoch(history)}, is there; "
                "leave out --best"
            )
        # The run, which is training, has gone on meanwhile and has another best epoch.


def read_weights(path, sizes, names):
    """Returns a model's weights at a path, {name of a variable: array}.

    Args:
      path: where they are, as a `tf.train.Saver` takes it.
      sizes: the model's identity.SIZES.
      names: {name of a variable: its name in the file}, where the two differ.

    Raises:
      UserError: they are not there, have another shape, or cannot be read.
    """
    num_layers, size, vocab_size = sizes
    kernel, bias = LAYER_NAMES
    shapes = {
        "Model/embedding": [vocab_size, size],
        **{CELL.format(layer) + kernel: [2 * size, 4 * size] for layer in range(num_layers)},
        **{CELL.format(layer) + bias: [4 * size] for layer in range(num_layers)},
        "Model/softmax_w": [size, vocab_size],
        "Model/softmax_b": [vocab_size],
    }
    return _fitting(path, shapes, names)


def newest_finite(folder):
    """Returns the newest whole Checkpoint whose variables are finite, or None where there is none.

    Every checkpoint that is written now is such a one; earlier versions wrote others as well.
    """
    for number in reversed(_numbers(folder)):
        with contextlib.suppress(Damaged, UserError):
            found = read(_path(folder, number))
            if are_finite(read_variables(found.variables_path)):
                return found
    return None


def are_finite(values):
    """Returns whether no number is NaN or infinite in {name: array}."""
    return all(np.isfinite(array).all() for array in values.values())


def read_variables(path):
    """Returns {name: array} of the variables at a path, as a `tf.train.Saver` takes it.

    Raises:
      UserError: they are not there, or cannot be read.
    """
    folder, name = os.path.split(path)
    try:
        with files.plain_folder(folder) as plain:
            found = tf.train.load_checkpoint(os.path.join(plain, name))
            return {name: found.get_tensor(name) for name in found.get_variable_to_shape_map()}
    except (tf.errors.OpError, ValueError) as error:
        if memory_needed(error):
            raise
        raise UserError(f"{path} cannot be read; it is damaged, or no checkpoint") from error


def write_variables(path, values):
    """Writes variables {name: array} at a path, the bytes that a `tf.train.Saver` writes there.

    The session is one of its own: a worker's has to tell the others meanwhile that it is there.
    """
    values = dict(sorted(values.items()))
    with tf.Graph().as_default() as graph, tf.device("/cpu:0"):
        tensors = [tf.placeholder(value.dtype, value.shape) for value in values.values()]
        save = tf.raw_ops.SaveV2(
            prefix=path, tensor_names=[*values], shape_and_slices=[""] * len(values),
            tensors=tensors,
        )
    with tf.Session(graph=graph, config=session_config()) as session:
        session.run(save, dict(zip(tensors, values.values())))


def assign(session, variable, value):
    """Sets a variable in a session, whose graph may be finished, to an array."""
    initializer = variable.initializer
    session.run(initializer, {initializer.inputs[1]: value})


def restore(session, path, variables):
    """Loads variables into the session, whose graph may be finished.

    Args:
      session: the session.
      path: where they are, as a `tf.train.Saver` takes it.
      variables: the variables.

    Raises:
      UserError: they are not there, have another shape, or cannot be read.
    """
    shapes = {variable.op.name: variable.shape.as_list() for variable in variables}
    values = _fitting(path, shapes, {})
    for variable in variables:
        assign(session, variable, values[variable.op.name])


def _fitting(path, shapes, names):
    """Returns {name: array} of the variables of a model; see read_weights.

    Args:
      path, names: see read_weights.
      shapes: {name: shape, a list}.
    """
    found = read_variables(path)
    values = {name: found.get(names.get(name, name)) for name in shapes}
    for name, shape in shapes.items():
        there = None if values[name] is None else list(values[name].shape)
        if there != shape:
            raise UserError(
                f"{path}: not the variables of this model: {names.get(name, name)} has shape "
                f"{there}, not {shape}"
            )
    return values


def write(path, facts, position, vocabulary):
    """Writes into a folder what a checkpoint has besides the variables; the checksums last."""
    fields = {name: value for name, value in vars(position).items() if name != "state"}
    state = {f"{part}{layer}": array for layer, pair in enumerate(position.state or ())
             for part, array in zip("ch", pair)}
    np.savez(os.path.join(path, STATE), **state)
    with open(os.path.join(path, VOCABULARY), "w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{word}\n" for word in vocabulary)
    with open(os.path.join(path, RECORD), "w", encoding="utf-8") as file:
        record = {"facts": facts, "position": fields}
        json.dump(record, file, indent=1, default=lambda number: number.item())  # It is of NumPy.
    sums = {name: files.sha256_of(os.path.join(path, name)) for name in sorted(os.listdir(path))}
    with open(os.path.join(path, SUMS), "w", encoding="utf-8", newline="\n") as file:
        file.writelines(_lines(sums))


def read(path, known=None):
    """Returns the Checkpoint in a folder.

    Args:
      path: the folder.
      known: a Checkpoint that was read before. Where SHA256SUMS says that it is still the one in
        the folder, the other files, which may be large, are not read again.

    Raises:
      Damaged: a file that was written is missing or changed, or has not what it should.
      UserError: a file may not be read, or a newer version of the project wrote it.
    """
    name = SUMS
    try:
        with open(os.path.join(path, SUMS), encoding="utf-8") as file:
            lines = file.readlines()
        sums = dict(reversed(line.removesuffix("\n").split("  ")) for line in lines)
        needed = {RECORD, STATE, VOCABULARY, f"{VARIABLES}.index"}
        if lines != _lines(sums) or not needed <= {*sums}:
            raise ValueError
        if known and (known.path, known.sums) == (path, sums):
            return known
        for name, checksum in sums.items():
            if not os.path.exists(os.path.join(path, name)):
                raise Damaged(f"{name} is missing")
            if files.sha256_of(os.path.join(path, name)) != checksum:
                raise Damaged(f"{name} is not what was written")
        name = VOCABULARY
        with open(os.path.join(path, VOCABULARY), encoding="utf-8", newline="\n") as file:
            vocabulary = file.read().removesuffix("\n").split("\n")
        if len({*vocabulary}) != len(vocabulary):
            raise ValueError
        name = RECORD
        facts, position = _read_record(path)
        name = STATE
        state = _state(os.path.join(path, STATE), facts)
        position = dataclasses.replace(position, state=state)
        return Checkpoint(path, facts, position, vocabulary, sums)
    except UserError:
        raise  # Nothing is damaged.
    except PermissionError as error:
        raise UserError(f"{error.filename}: {error.strerror}; make it readable") from error
    except UNREADABLE as error:
        raise Damaged(f"{name} cannot be read") from error


def _read_record(path):
    """Returns (facts, Position without the state) of a checkpoint's run.json.

    Raises UserError where a newer version of the project wrote it, and one of UNREADABLE where it
    is not there or not what it should be.
    """
    with open(os.path.join(path, RECORD), encoding="utf-8") as file:
        record = json.load(file)
    facts, fields = _checked(record["facts"], dict), _checked(record["position"], dict)
    known = {field.name for field in dataclasses.fields(Position)}
    unknown = sorted({*record, *fields} - {"facts", "position", *known}) + unknown_facts(facts)
    unknown += [
        f"column {len(result)} of the history" for result in _checked(fields["history"], list)
        if len(_checked(result, list)) > len(EpochResult._fields)
    ]
    if unknown:
        raise UserError(
            f"{path} was written by a newer version of this project, and this one does not know "
            f"what {unknown[0]} in its {RECORD} is; use the newer one"
        )
    return facts, _position(fields)


def _positions(folder, damaged):
    """Returns {number: Position without the state} of a folder's checkpoints.

    Those with one of the numbers in `damaged`, or without a record that can be read, are left out.
    """
    positions = {}
    for number in _numbers(folder):
        with contextlib.suppress(*UNREADABLE):
            if number not in damaged:
                positions[number] = _read_record(_path(folder, number))[1]
    return positions


def _numbers_of_best_epoch(positions, history):
    """Returns the numbers of the checkpoints at the end of a history's best epoch, newest first."""
    epochs = history[: best_epoch(history)]
    return [
        number for number, position in reversed(positions.items())
        if epochs and position.history == epochs and position.step == 0
    ]


def _path(folder, number):
    return os.path.join(folder, f"{PREFIX}{number:06d}")


def _numbers(folder):
    """Returns the numbers of the checkpoints in a folder, whole or not, in order."""
    names = [name.removeprefix(PREFIX) for name in os.listdir(folder) if name.startswith(PREFIX)]
    numbers = sorted(int(name) for name in names if name.isdecimal())
    return [number for number in numbers if os.path.isdir(_path(folder, number))]


def _lines(sums):
    """Returns the lines of SHA256SUMS for {name: checksum}."""
    return [f"{checksum}  {name}\n" for name, checksum in sums.items()]


def _state(path, facts):
    """Returns the state in a file; None where it has no array.

    Raises ValueError where it does not fit the facts, or what NumPy raises where it is no archive.
    """
    with np.load(path, allow_pickle=False) as arrays:
        layers = range(len(arrays.files) // 2)
        state = tuple((arrays[f"c{k}"], arrays[f"h{k}"]) for k in layers)
    if not state:
        return None
    config = facts["config"]
    shape = (config["batch_size"], config["hidden_size"])
    kinds = {(array.shape, str(array.dtype)) for pair in state for array in pair}
    if len(state) != config["num_layers"] or kinds not in [{(shape, t)} for t in STATE_TYPES]:
        raise ValueError
    return state


def _position(fields):
    """Returns the Position of the fields in run.json; ValueError or TypeError where it is none."""
    history = tuple(EpochResult(*map(_number, result)) for result in fields["history"])
    numbers = {
        name: _number(value) for name, value in fields.items()
        if name in ("costs", "seconds") or name in ("test", "best_test") and value is not None
    }
    position = Position(**{**fields, **numbers, "history": history})
    _checked(position.state, type(None))  # It is in a file of its own.
    if _checked(position.step, int) < 0 or len(history) != _checked(position.epoch, int):
        raise ValueError
    return position


def _number(value):
    """Returns a number of a JSON file, whole or not, as a float; TypeError where it is none."""
    return float(value if type(value) is float else _checked(value, int))


def _checked(value, kind):
    if type(value) is not kind:
        raise TypeError
    return value
