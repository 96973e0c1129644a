"""Where a run has its words and, unless they are drawn, its first weights from."""

import glob
import sys
import typing

from ptb import reader
from ptb.saving import files
from ptb.saving.identity import SIZES
from ptb.terminal.errors import UserError
from ptb.trained_model import read_model


class Source(typing.NamedTuple):
    """Where a run has its words from and, unless they are drawn, its first weights."""

    vocabulary: list  # the words by id
    path: str | None = None  # of the weights, as a `tf.train.Saver` takes it
    checksum: str | None = None  # SHA-256 of the file that has them, path.data-00000-of-00001
    sizes: dict | None = None  # their num_layers, hidden_size and vocab_size
    values: dict | None = None  # {name of a variable: array}


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
    if flags.init_from is not None:
        path = files.local_path(flags.init_from, "--init_from")
        if files.is_within(path, folder):
            raise UserError(
                f"--init_from {path}: it is in {folder}, where the new run would be saved; use "
                "another --save_path, or leave out --init_from"
            )
        try:
            named = _with_checksum(read_model(path, corpus.folder))
        except UserError as error:
            if not source:
                raise UserError(f"--init_from: {error}") from error
            print(f"--init_from: {error}; the run goes on without it.", file=sys.stderr)
        else:
            if not source:  # A run that goes on is refused for another source, not for its sizes.
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


def _with_checksum(model):
    """Returns the Source that has its words and weights from a TrainedModel.

    Raises UserError where their file is gone.
    """
    path = model.variables_path
    try:
        checksum = files.sha256_of(*sorted(glob.glob(f"{glob.escape(path)}.data-*")))
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from error
    sizes = {name: model.config[name] for name in SIZES}
    return Source(model.vocabulary, path, checksum, sizes, model.values)
