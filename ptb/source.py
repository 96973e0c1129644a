"""Where a run has its words and, unless they are drawn, its first weights from."""

import glob
import os
import sys
import typing

from ptb import reader
from ptb.saving import checkpoint, files, tutorial
from ptb.saving.identity import SIZES
from ptb.terminal.errors import UserError


class Source(typing.NamedTuple):
    """Where a run has its words from and, unless they are drawn, its first weights."""

    vocabulary: list  # the words by id
    path: str | None = None  # of the weights, as a `tf.train.Saver` takes it
    checksum: str | None = None  # SHA-256 of the file that has them, path.data-00000-of-00001
    sizes: dict | None = None  # their num_layers, hidden_size and vocab_size
    values: dict | None = None  # {name of a variable: array}; not for a run that goes on


def find(flags, config, corpus, folder, before):
    """Returns the Source of the run that the flags name.

    With --init_from it is the model named there. A run that goes on needs that no more: its own
    checkpoint has the vocabulary and tells what the run came from, so that the model may be gone
    by then, and the flag may be left out.

    Args:
      flags: the script's flags.
      config: the configuration.
      corpus: the dataset.Corpus.
      folder: the run's folder.
      before: the checkpoint.Checkpoint from which the run goes on; None where it begins.

    Raises:
      UserError: no model is there, it is damaged, within the run's own folder, or of other sizes
        than the configuration; or the corpus cannot be read.
    """
    source = None
    if before and "init_from" in before.facts:
        sizes = {name: before.facts["config"][name] for name in SIZES}
        source = Source(
            before.vocabulary, before.variables_path, before.facts["init_from"], sizes
        )
    if flags.init_from:
        path = files.local_path(flags.init_from)
        if files.is_within(path, folder):
            raise UserError(
                f"--init_from {path}: it is in {folder}, where the new run would be saved; use "
                "another --save_path, or leave out --init_from"
            )
        try:
            named = read(path, corpus.folder)
        except UserError as error:
            if not source:
                raise UserError(f"--init_from: {error}") from error
            print(f"--init_from: {error}; the run goes on without it.", file=sys.stderr)
        else:
            _refuse_other_sizes(named, config)
            source = named
    return source or Source(reader.read_vocabulary(corpus.folder, config.vocab_size))


def _refuse_other_sizes(source, config):
    """Raises UserError where the weights of a Source do not fit into a configuration's model."""
    different = [
        f"{name} is {size} there and {getattr(config, name)} in {type(config).__name__}"
        for name, size in source.sizes.items() if getattr(config, name) not in (size, None)
    ]
    if different:
        raise UserError(
            f"--init_from {source.path}: {'; '.join(different)}; make it the same in configs.py"
        )


def read(path, data_path):
    """Returns the Source that is a run's folder, or a checkpoint, the tutorial's as well.

    Args:
      path: what checkpoint.find or tutorial.find takes.
      data_path: the corpus folder from which a checkpoint of the tutorial gets its words.

    Raises:
      UserError: there is none, it is damaged, or it has weights that are not finite.
    """
    for _ in checkpoint.tries(path):
        found = checkpoint.find(path)
        if found is None:
            found = tutorial.find(path)
            sizes = found.num_layers, found.size, found.vocab_size
            vocabulary = read_tutorials_vocabulary(found, data_path)
            return _with_weights(found.variables_path, vocabulary, sizes, found.names)
        sizes = [found.facts["config"][name] for name in SIZES]
        try:
            return _with_weights(found.variables_path, found.vocabulary, sizes, {})
        except UserError:
            if os.path.exists(found.path):
                raise
            # The run, which is training, has just removed this checkpoint and has a newer one.


def _with_weights(path, vocabulary, sizes, names):
    """Returns the Source with the weights at a path; see Source and checkpoint.read_weights."""
    values = checkpoint.read_weights(path, sizes, names)
    if not checkpoint.are_finite(values):
        raise UserError(
            f"{path} has weights that are not finite: its training diverged; name an earlier "
            "checkpoint"
        )
    try:
        checksum = files.sha256_of(*sorted(glob.glob(f"{glob.escape(path)}.data-*")))
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from error
    return Source(vocabulary, path, checksum, dict(zip(SIZES, sizes)), values)


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
