"""What a run is to be: its corpus, words and first weights, found before anything is written."""

import copy
import dataclasses
import math
import os

from ptb import cluster, dataset, machine, source
from ptb.reader import PARTS, corpus_files
from ptb.rnn import number_type
from ptb.saving import checkpoint, files, identity
from ptb.terminal.errors import UserError


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run is to be."""

    flags: object  # the script's flags
    config: object  # the configuration, whose vocab_size is a number
    corpus: dataset.Corpus
    source: source.Source
    before: checkpoint.Checkpoint | None = None  # from which the run goes on, as it was found

    @property
    def folder(self):
        """The run's folder."""
        return _folder_of(self.flags, self.corpus)

    @property
    def number_type(self):
        """The name of the type in which matrix products take their operands."""
        return number_type(self.flags)

    @property
    def num_weights(self):
        """How many numbers the variables of the model have."""
        size, vocab_size = self.config.hidden_size, self.config.vocab_size
        cell = (2 * size + 1) * 4 * size
        return (2 * size + 1) * vocab_size + self.config.num_layers * cell

    def memory_of_weights(self):
        """Returns in words how much memory the variables need."""
        needed = machine.in_words(4 * self.num_weights)
        return f"the weights of {type(self.config).__name__} need {needed}"

    def facts(self, raw_data):
        """Returns what decides the run's numbers, see identity.facts_of.

        Args:
          raw_data: what reader.ptb_raw_data returned for the corpus.
        """
        paths = corpus_files(self.corpus.folder)
        texts = {part: text for part, *text in zip(PARTS, paths, raw_data)}
        return identity.facts_of(
            self.config, self.flags, self.number_type, texts, self.source.checksum
        )

    def refuse_impossible(self):
        """Raises UserError for flags that cannot be meant, or a model larger than the memory."""
        if math.isnan(self.flags.save_minutes):  # It would never be time to save.
            raise UserError("--save_minutes is nan; it must be a number")
        if self.flags.use_bf16 and self.flags.use_fp16:
            raise UserError("--use_bf16 and --use_fp16 exclude each other; leave one of them out")
        there = machine.memory_size()
        if 4 * self.num_weights > there:
            raise UserError(
                f"{self.memory_of_weights()} of memory, and this machine has "
                f"{machine.in_words(there)}; lower hidden_size, num_layers or vocab_size in "
                "configs.py"
            )


def make_plan(flags, config):
    """Returns the Plan of the run that the flags name.

    Args:
      flags: the script's flags.
      config: the configuration. Where its vocab_size is None, the one in the plan has the number of
        words there are.

    Raises:
      UserError: there is no corpus; or the words or the first weights cannot be read, see
        source.find.
    """
    corpus = _find_corpus(flags)
    before = values = None

    def find():
        nonlocal before, values
        folder = _folder_of(flags, corpus)
        if not flags.restart and os.path.isdir(folder):
            before, _ = checkpoint.newest(folder)
        *told, values = source.find(flags, config, corpus, folder, before)
        return told

    # Worker 0 alone needs the values: the others get all variables later.
    found = source.Source(*cluster.this_worker().first_says(find), values)
    sizes = found.sizes or {"vocab_size": len(found.vocabulary)}
    config = copy.copy(config)
    config.vocab_size = config.vocab_size or sizes["vocab_size"]
    return Plan(flags, config, corpus, found, before)


def _find_corpus(flags):
    """Returns the dataset.Corpus of the run that the flags name.

    Where it was trained on the sample before, for want of PTB, PTB is not looked for once more.
    """
    folder = _folder_of(flags, dataset.Corpus(dataset.SAMPLE, "sample"))
    worker = cluster.this_worker()
    is_on_sample = worker.first_says(lambda: not flags.restart and checkpoint.is_run(folder))
    explicit = not flags["data_path"].using_default_value
    # Two workers on one machine are not to download the corpus at once.
    return worker.in_turn(lambda: dataset.find_corpus(flags.data_path, explicit, is_on_sample))


def _folder_of(flags, corpus):
    """Returns the folder of the run that the flags name, trained on a dataset.Corpus."""
    name = flags.config.lower() + ("-sample" if corpus.kind == "sample" else "")
    return os.path.join(files.local_path(flags.save_path, "--save_path"), name)
