"""What a run shows besides the article's lines."""

import math
import time

import tensorflow.compat.v1 as tf


def print_start(flags, config, corpus, data, words, session, run):
    """Prints what is about to run, on what, where it saves, and what it goes on from.

    Args:
      flags: the script's flags.
      config: the configuration.
      corpus: the dataset.Corpus.
      data: the word ids to train on, valid and test.
      words: the vocabulary.
      session: the session, which knows the devices; its graph has the parameters.
      run: the checkpoint.Run.
    """
    train, valid, test = (f"{len(ids):,}" for ids in data)
    number_type = "float16" if flags.use_fp16 else "float32"
    parameters = sum(math.prod(v.shape.as_list()) for v in tf.trainable_variables())
    devices = sorted({d.device_type for d in session.list_devices() if "XLA" not in d.device_type})
    print(
        f"Configuration {flags.config.lower()}: {config.num_layers} x {config.hidden_size} units, "
        f"{parameters:,} parameters, {flags.rnn_mode} mode, {number_type}, seed {flags.seed}\n"
        f"Corpus {corpus.folder} ({corpus.kind}): {train} words to train on, {valid} valid, "
        f"{test} test, {len(words):,} types\n"
        f"TensorFlow {tf.__version__} on {' and '.join(devices)}, saving in {run.folder}"
    )
    if run.position.epoch or run.position.step:
        print(f"Going on after {run.position.epoch} epochs and {run.position.step} steps.")


def print_results(run):
    """Prints the results of a finished run, and how to go on."""
    position = run.position
    train, valid = position.history[-1]
    print(
        f"The run in {run.folder} is finished:\n"
        f"Epoch: {position.epoch} Train Perplexity: {train:.3f}\n"
        f"Epoch: {position.epoch} Valid Perplexity: {valid:.3f}\n"
        f"Test Perplexity: {position.test:.3f}\n"
        "To train on, raise max_max_epoch in configs.py; to train anew, add --restart."
    )


class Forecast:
    """Says once, after the first hundred steps, how long the training that is left will take."""

    def __init__(self, steps_left):
        self._total = steps_left
        self._steps = 0

    def after_step(self):
        """To be called after every training step."""
        self._steps += 1
        if self._steps == 10:  # the first ones are slow
            self._start = time.monotonic()
        if self._steps == 100 < self._total:
            seconds_per_step = (time.monotonic() - self._start) / 90
            print(f"Training will take about {duration(seconds_per_step * (self._total - 100))}.")


def duration(seconds):
    """Returns seconds as a person says them: "40 seconds", "25 minutes", "3 hours", "2.5 days"."""
    for unit, length, limit in ("seconds", 1, 90), ("minutes", 60, 90), ("hours", 3600, 36):
        if seconds < limit * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.1f} days"
