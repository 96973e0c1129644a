"""What a run shows besides the article's lines."""

import math
import time

import tensorflow.compat.v1 as tf


def print_start(flags, config, corpus, raw_data, session, run_folder):
    """Prints what is about to run, on what, and where it saves.

    Args:
      flags: the script's flags.
      config: the configuration.
      corpus: the dataset.Corpus.
      raw_data: what reader.ptb_raw_data returned.
      session: the session, which knows the devices; its graph has the parameters.
      run_folder: where the run saves.
    """
    *data, vocabulary = raw_data
    train, valid, test = (f"{len(ids):,}" for ids in data)
    number_type = "float16" if flags.use_fp16 else "float32"
    parameters = sum(math.prod(v.shape.as_list()) for v in tf.trainable_variables())
    devices = sorted({d.device_type for d in session.list_devices() if "XLA" not in d.device_type})
    print(
        f"Configuration {flags.config.lower()}: {config.num_layers} x {config.hidden_size} units, "
        f"{parameters:,} parameters, {flags.rnn_mode} mode, {number_type}, seed {flags.seed}\n"
        f"Corpus {corpus.folder} ({corpus.kind}): {train} words to train on, {valid} valid, "
        f"{test} test, {vocabulary:,} types\n"
        f"TensorFlow {tf.__version__} on {' and '.join(devices)}, saving in {run_folder}"
    )


class Forecast:
    """Says once, after the first hundred steps, how long the training that is left will take."""

    def __init__(self, total_steps):
        self._total = total_steps
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
