"""What a run shows besides the article's lines: start, live line, event files, history."""

import contextlib
import csv
import datetime
import math
import os
import time

import tensorflow.compat.v1 as tf

from ptb import events
from ptb.checkpoint import UNFINISHED, Epoch, writing
from ptb.evaluate import perplexity
from ptb.progress import Line

HISTORY = "history.csv"
HISTORY_COLUMNS = ["epoch", *Epoch._fields]
POINTS = 100  # of the training loss in an epoch, about
WARM_UP = 10  # steps: the first ones are slow


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
    """Prints the results of a finished run, and how to go on; history.csv is there again too."""
    with writing(run.folder):
        write_history(run)
    position = run.position
    last = position.history[-1]
    print(
        f"The run in {run.folder} is finished:\n"
        f"Epoch: {position.epoch} Train Perplexity: {last.train_perplexity:.3f}\n"
        f"Epoch: {position.epoch} Valid Perplexity: {last.valid_perplexity:.3f}\n"
        f"Test Perplexity: {position.test:.3f}\n"
        "To train on, raise max_max_epoch in configs.py; to train anew, add --restart."
    )


class Monitor:
    """Follows a run while it trains: shows it, and has it saved.

    Within `with`, a live line stands under the printed lines, on a terminal only. In the run's
    folder grow the event files, for TensorBoard, and history.csv. All values are those that the
    loop has fetched anyway. What an earlier process wrote beyond its last checkpoint is removed.

    Args:
      run: the checkpoint.Run.
      config: the configuration.
      epoch_size: training steps of an epoch.
      valid_size: steps of a validation.

    Raises:
      UserError: a file cannot be written.
    """

    def __init__(self, run, config, epoch_size, valid_size):
        self._run = run
        self._config = config
        self._epoch_size = epoch_size
        self._valid_size = valid_size
        self._words = config.batch_size * config.num_steps  # of a step
        self._interval = max(epoch_size // POINTS, 1)
        self._total_steps = config.max_max_epoch * epoch_size
        self._steps = 0  # of training, in this process
        self._valid_steps = 0
        self._line = Line()
        self._entered = contextlib.ExitStack()

    def __enter__(self):
        position = self._run.position
        with writing(self._run.folder):
            self._events = events.Writer(self._run.folder, {
                "Training Loss": self._step(),
                "Learning Rate": position.epoch * self._epoch_size,
                "Validation Loss": position.epoch * self._epoch_size,
                "Train Perplexity": position.epoch,
                "Valid Perplexity": position.epoch,
            })
            write_history(self._run)
        self._entered.enter_context(self._line)
        self._entered.enter_context(self._line.below_output())
        return self

    def __exit__(self, *error):
        self._entered.close()
        self._events.close()

    def after_train_step(self, cost):
        """To be called after every training step with its cost (nats / batch_size)."""
        position = self._run.position
        self._steps += 1
        if position.step % self._interval == 0:
            with writing(self._run.folder):
                self._events.add(self._step(), {"Training Loss": cost})
        if self._steps == WARM_UP:
            self._start = time.monotonic()
        run_left = self._total_steps - self._step()
        if self._steps == 100 and run_left:
            print(f"Training will take about {duration(self._seconds(run_left))}.")
        if self._steps > WARM_UP and self._line.is_due():
            so_far = perplexity(position.costs, position.step * self._config.num_steps)
            epoch_left = self._epoch_size - position.step
            self._line.show(
                f"{self._epoch()} {100 * position.step / self._epoch_size:.0f}%  perplexity "
                f"{so_far:.1f}  {self._words * position.step / position.seconds:,.0f} wps  left "
                f"{_clock(self._seconds(epoch_left))}, run {_clock(self._seconds(run_left))}"
            )
        self._run.after_step()

    def after_valid_step(self, _):
        """To be called after every step of a validation."""
        if not self._valid_steps:
            self._valid_start = time.monotonic()
        self._valid_steps += 1
        done = self._valid_steps / self._valid_size
        self._line.show(f"{self._epoch()} validation {100 * done:.0f}%")
        self._run.after_step()

    def after_epoch(self, learning_rate, train_perplexity, valid_perplexity):
        """To be called when the epoch is trained and validated."""
        seconds = self._run.position.seconds
        speed = self._words * self._epoch_size / seconds
        seconds += time.monotonic() - self._valid_start
        self._valid_steps = 0
        loss = math.log(valid_perplexity) * self._config.num_steps  # the mean cost of its steps
        epoch = Epoch(learning_rate, train_perplexity, valid_perplexity, speed, seconds)
        with writing(self._run.folder):
            if not self._events.graph_is_there:  # not at the start, for which it takes too long
                self._events.add_graph(tf.get_default_graph())
            self._events.add(
                self._step(), {"Learning Rate": learning_rate, "Validation Loss": loss}
            )
            self._events.add(self._run.position.epoch + 1, {
                "Train Perplexity": train_perplexity, "Valid Perplexity": valid_perplexity,
            })
        self._run.after_epoch(epoch)
        with writing(self._run.folder):
            write_history(self._run)

    def _step(self):
        """Returns the training steps of the run so far."""
        return self._run.position.epoch * self._epoch_size + self._run.position.step

    def _seconds(self, steps):
        """Returns how long so many training steps take."""
        return steps * (time.monotonic() - self._start) / (self._steps - WARM_UP)

    def _epoch(self):
        return f"Epoch {self._run.position.epoch + 1}/{self._config.max_max_epoch}"


def write_history(run):
    """Writes history.csv, a row for every epoch, in the run's folder; it is whole or the old one.

    Its columns are HISTORY_COLUMNS: the epoch, from 1, and the fields of checkpoint.Epoch.

    Raises:
      OSError: it cannot be written.
    """
    path = os.path.join(run.folder, HISTORY)
    unfinished = os.path.join(run.folder, f"{UNFINISHED}.{HISTORY}")
    with open(unfinished, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(HISTORY_COLUMNS)
        for number, epoch in enumerate(run.position.history, start=1):
            table.writerow([number, *(f"{value:.8g}" for value in epoch)])
    os.replace(unfinished, path)


def _clock(seconds):
    """Returns seconds as a clock shows them: 0:01:30."""
    return str(datetime.timedelta(seconds=round(seconds)))


def duration(seconds):
    """Returns seconds as a person says them: "40 seconds", "25 minutes", "3 hours", "2.5 days"."""
    for unit, length, limit in ("seconds", 1, 90), ("minutes", 60, 90), ("hours", 3600, 36):
        if seconds < limit * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.1f} days"
