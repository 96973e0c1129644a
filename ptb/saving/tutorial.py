"""A checkpoint of the PTB tutorial of TensorFlow 1.x, by its age and the mode it was trained in.

It has the variables only, under names that differ by version and mode. Shapes and gate order are
the same in all of them, and none holds the forget bias, which is 0. In block mode TensorFlow 1.3,
and no later version, also clips c to [-3, 3], which a checkpoint does not tell.
"""

import glob
import itertools
import os
import re
import typing

from ptb.saving.checkpoint import CELL, LAYER_NAMES, hint_of_runs, read_variables
from ptb.terminal.errors import UserError

TUTORIALS_NAMES = (  # of the variables of a layer
    LAYER_NAMES,  # basic mode, TensorFlow 1.2 to 1.15
    ("basic_lstm_cell/weights", "basic_lstm_cell/biases"),  # TensorFlow 1.0 and 1.1
    ("lstm_cell/kernel", "lstm_cell/bias"),  # block mode, TensorFlow 1.3 to 1.15
    # cuDNN mode: TensorFlow 1.3 saves this readable copy beside the buffer, later versions do not.
    ("cudnn_compatible_lstm_cell/kernel", "cudnn_compatible_lstm_cell/bias"),
)
CUDNN_BUFFER = "Model/lstm_params"  # all layers of cuDNN mode, in an order of cuDNN's own


class TutorialCheckpoint(typing.NamedTuple):
    """Where a checkpoint of the tutorial is, and the layout of the model in it."""

    variables_path: str  # as a `tf.train.Saver` takes it
    num_layers: int
    size: int  # units of a layer
    vocab_size: int  # rows of the embedding
    names: dict  # {name of a variable of ours: its name in the file}, for those of the layers


def find(path):
    """Returns the TutorialCheckpoint that a path names.

    It is a path with or without .index, or a folder, where the checkpoint of most steps is taken.

    Raises:
      UserError: there is none, it cannot be read, or it has not the tutorial's variables.
    """
    path = os.fspath(path).removesuffix(".index")
    if not os.path.exists(f"{path}.index"):
        path = _of_most_steps(path)
    shapes = {name: value.shape for name, value in read_variables(path).items()}
    names = {}
    for layer in itertools.count():
        cell = CELL.format(layer)
        found = [pair for pair in TUTORIALS_NAMES if all(cell + name in shapes for name in pair)]
        if not found:
            break
        names.update({cell + ours: cell + theirs for ours, theirs in zip(LAYER_NAMES, found[0])})
    if not layer and CUDNN_BUFFER in shapes:
        raise UserError(
            f"{path} is of the tutorial's cuDNN mode, which keeps the LSTM in one buffer that only "
            "cuDNN can read; train in its basic or block mode"
        )
    if not layer or len(shapes.get("Model/embedding", ())) != 2:
        raise UserError(f"{path} has not the variables of the PTB tutorial")
    vocab_size, size = shapes["Model/embedding"]
    return TutorialCheckpoint(path, layer, size, vocab_size, names)


def _of_most_steps(folder):
    """Returns the path of the checkpoint of most steps in a folder; UserError where none is."""
    found = glob.glob(os.path.join(glob.escape(folder), "*.index"))
    if not found:
        raise UserError(
            f"{folder}: no trained model there; lstm.py trains one in Out/<config>"
            f"{hint_of_runs(folder)}"
        )
    newest = max(found, key=lambda name: [int(number) for number in re.findall("[0-9]+", name)])
    return newest.removesuffix(".index")
