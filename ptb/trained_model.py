"""A trained model, read from disk: a run's, or one that the PTB tutorial left."""

import itertools
import os
import typing

from ptb import reader
from ptb.saving import checkpoint, files, tutorial
from ptb.saving.identity import SIZES
from ptb.terminal.errors import UserError


class TrainedModel(typing.NamedTuple):
    """A trained model."""

    path: str  # what names it
    description: str  # what it is, in one line
    vocabulary: list  # the words by id
    config: dict  # num_layers, hidden_size and vocab_size; of a run all fields
    number_type: str  # see rnn.number_type
    variables_path: str  # where its variables are, as a `tf.train.Saver` takes it
    values: dict  # {name of a variable: array}
    is_tutorials: bool = False


def read_models(folders, data_path=None, best=False):
    """Returns the TrainedModels of one folder or several; see LanguageModel.load.

    Raises UserError where one cannot be read, or has another vocabulary than the first.
    """
    if isinstance(folders, (str, os.PathLike)):
        folders = [folders]
    models = [read_model(files.local_path(folder), data_path, best) for folder in folders]
    if not models:
        raise UserError("the number of models is 0; it must be at least 1")
    first, *others = models
    for other in others:
        pairs = itertools.zip_longest(first.vocabulary, other.vocabulary)
        for number, (word, others_word) in enumerate(pairs, start=1):
            if word != others_word:
                raise UserError(
                    "only models with the same vocabulary have an average: word "
                    f"{number:,} {_is(word)} in {first.path} and {_is(others_word)} in "
                    f"{other.path}; leave one of them out"
                )
    return models


def _is(word):
    """Returns what is said of a word in a vocabulary; None is no word."""
    return "is missing" if word is None else f"is '{word}'"


def read_model(path, data_path=None, best=False):
    """Returns the TrainedModel that a path names; see LanguageModel.load.

    Raises UserError where there is none, or it is damaged, or its weights are not all finite.
    """
    model = _read_model(path, data_path, best)
    if not checkpoint.are_finite(model.values):
        raise UserError(
            f"{model.variables_path} has weights that are not finite: its training diverged; name "
            "an earlier checkpoint"
        )
    return model


def _read_model(path, data_path, best):
    for _ in checkpoint.tries(path):
        found = checkpoint.find(path, best)
        if found is None:
            if best:
                raise UserError(f"{path} is not the folder of a run, which --best needs")
            return _read_tutorials(path, data_path)
        try:
            return _read_checkpoint(path, found, best)
        except UserError:
            if os.path.exists(found.path):
                raise
            # The run, which is training, has just removed this checkpoint and has a newer one.


def _read_checkpoint(path, found, best):
    """Returns the TrainedModel of a run's Checkpoint that was found at a path."""
    config, position = found.facts["config"], found.position
    state = "not finished" if position.test is None else f"test perplexity {position.test:.3f}"
    if best:
        state = f"the best, valid perplexity {position.history[-1].valid_perplexity:.3f}"
    sizes = [config[name] for name in SIZES]
    return TrainedModel(
        path,
        f"{found.path}: {config['num_layers']} x {config['hidden_size']} units, epoch "
        f"{position.epoch}, {state}",
        found.vocabulary, config, found.facts["number_type"], found.variables_path,
        checkpoint.read_weights(found.variables_path, sizes, {}),
    )


def _read_tutorials(path, data_path):
    """Returns the TrainedModel of the tutorial's checkpoint at a path."""
    found = tutorial.find(path)
    sizes = found.num_layers, found.size, found.vocab_size
    return TrainedModel(
        path, f"{found.variables_path}: {found.num_layers} x {found.size} units",
        read_tutorials_vocabulary(found, data_path), dict(zip(SIZES, sizes)), "float32",
        found.variables_path,
        checkpoint.read_weights(found.variables_path, sizes, found.names), is_tutorials=True,
    )


def read_tutorials_vocabulary(found, data_path):
    """Returns the words by id, from the corpus folder that the tutorial was trained on.

    They are those of the tutorial's reader. `<unk>` is among them, except where the corpus has
    none and its words fill all ids. Words that are joined to an `<eos>` are named on stderr.

    Args:
      found: the tutorial.TutorialCheckpoint.
      data_path: the folder; None where nobody has named it.

    Raises:
      UserError: no folder is named, its text cannot be read, or has more words than ids.
    """
    if data_path is None:
        raise UserError(
            f"{found.variables_path} has no vocabulary; name its corpus with --data_path"
        )
    data_path = files.local_path(data_path)
    vocabulary = reader.read_tutorials_vocabulary(data_path)
    if len(vocabulary) < found.vocab_size:
        files.warn_once(found.variables_path, (
            f"{data_path} has {len(vocabulary):,} word types, and {found.variables_path} has rows "
            f"for {found.vocab_size:,}: it makes sense if that is the corpus it was trained on."
        ))
    joined = [word for word in vocabulary if reader.EOS in word and word != reader.EOS]
    if reader.UNK not in vocabulary and len(vocabulary) < found.vocab_size:
        vocabulary.append(reader.UNK)
    if len(vocabulary) > found.vocab_size:
        raise UserError(
            f"{data_path} has {len(vocabulary):,} word types, and {found.variables_path} "
            f"{found.vocab_size:,}: it was trained on another corpus"
        )
    if joined:
        files.warn_once(data_path, (
            f"{data_path}: the tutorial's reader joined {reader.EOS} to the words beside it "
            f"where no space is between them; {joined[0]} is a word of this model."
        ))
    return vocabulary
