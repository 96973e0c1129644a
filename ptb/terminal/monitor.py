"""What a person sees of a run besides the article's lines: its start, a live line, its results.

What it shows is told to it; it looks at the clock and the current folder alone, and writes no file.
"""

import datetime
import os
import pathlib
import time

from ptb.saving.history import best_epoch
from ptb.terminal.command_line import as_typed
from ptb.terminal.progress import counted

WARM_UP = 10  # steps that are left out of every forecast, because the first ones are slow
FORECAST_AT = 100  # steps after which the length of the run is said


def print_start(plan, raw_data, machine, folder):
    """Prints what is about to run, on what, and where it saves.

    Args:
      plan: the plan.Plan.
      raw_data: what reader.ptb_raw_data returned for it.
      machine: what computes, in words.
      folder: the run's folder.
    """
    flags, config, corpus = plan.flags, plan.config, plan.corpus
    *texts, num_types = raw_data
    train, valid, test = (f"{len(ids):,}" for ids in texts)
    print(
        f"Configuration {flags.config.lower()}: {config.num_layers} x {config.hidden_size} units, "
        f"{plan.num_weights:,} parameters, {flags.rnn_mode} mode, {plan.number_type}, "
        f"seed {flags.seed}\n"
        f"Corpus {corpus.folder} ({corpus.kind}): {train} words to train on, {valid} valid, "
        f"{test} test, {num_types:,} types\n"
        f"{machine}, saving in {folder}"
    )


def print_beginning(position, max_max_epoch, init_from):
    """Prints where a run begins or goes on, unless it begins with weights that are drawn.

    Args:
      position: the checkpoint.Position from which it goes on.
      max_max_epoch: epochs of the whole run.
      init_from: the path of its first weights; None where they are drawn.
    """
    if position.epoch >= max_max_epoch:
        print(f"{_nothing_left(position, max_max_epoch)} Now comes the test.")
    elif position.epoch or position.step:
        print(f"Going on after {done(position)}.")
    elif init_from:
        print(f"Starting from the weights and the vocabulary of {init_from}.")


def print_results(folder, position, max_max_epoch, best_path):
    """Prints the results of a finished run, and how to go on.

    Args:
      folder: the run's folder.
      position: the checkpoint.Position at its end.
      max_max_epoch: that of the configuration, which may be lower than the epochs that are done.
      best_path: see print_best.
    """
    last = position.history[-1]
    if max_max_epoch < position.epoch:
        print(_nothing_left(position, max_max_epoch))
    print(
        f"The run in {folder} is finished:\n"
        f"Epoch: {position.epoch} Train Perplexity: {last.train_perplexity:.3f}\n"
        f"Epoch: {position.epoch} Valid Perplexity: {last.valid_perplexity:.3f}\n"
        f"Test Perplexity: {position.test:.3f}"
    )
    print_best(position, best_path)
    print("To train on, raise max_max_epoch in configs.py; to train anew, add --restart.")
    print_next(folder)


def print_next(folder):
    """Prints the command that lets the model of a finished run write a text."""
    project = str(pathlib.Path(__file__).resolve().parents[2])
    where = ""
    if os.path.realpath(os.curdir) != os.path.realpath(project):
        folder, where = os.path.abspath(folder), f" in {project}"
    command = ["python", "-m", "ptb.language_model", "generate", folder, "--prompt", "<eos>"]
    print(f"To let the model write{where}: {as_typed(command)}")


def done(position):
    """Returns in words how far a checkpoint.Position is."""
    return f"{counted(position.epoch, 'epoch')} and {counted(position.step, 'step')}"


def _nothing_left(position, max_max_epoch):
    return f"Nothing is left to train: epochs done {position.epoch}, max_max_epoch {max_max_epoch}."


def print_best(position, path):
    """Prints the results of a finished run's best epoch, where that is not the last one.

    Args:
      position: the checkpoint.Position at the end of the run.
      path: the checkpoint of the best epoch; None where it is not there any more.
    """
    best = best_epoch(position.history)
    if best < position.epoch:
        valid, test = position.history[best - 1].valid_perplexity, position.best_test
        print(
            f"Best epoch: {best}, valid perplexity {valid:.3f}, "
            + ("" if test is None else f"test perplexity {test:.3f}, ")
            + (f"in {path}" if path else "of which no whole checkpoint is left")
        )


class Monitor:
    """Shows how far a training is, and says after FORECAST_AT steps how long the run will take.

    Args:
      config: the configuration.
      epoch_size: training steps of an epoch.
      line: the progress.Line that shows it, on a terminal only.
    """

    def __init__(self, config, epoch_size, line):
        self._words_per_step = config.batch_size * config.num_steps
        self._epochs = config.max_max_epoch
        self._epoch_size = epoch_size
        self._steps_here = 0  # training steps that this process has done
        self._warm_since = time.perf_counter()  # when WARM_UP of them were done
        self._line = line

    def train_step(self, position, perplexity):
        """To be told the checkpoint.Position after every training step, and its perplexity."""
        self._steps_here += 1
        if self._steps_here == WARM_UP:
            self._warm_since = time.perf_counter()
        epoch_left = self._epoch_size - position.step
        run_left = epoch_left + (self._epochs - position.epoch - 1) * self._epoch_size
        if self._steps_here == FORECAST_AT and run_left:
            print(f"Training will take about {_in_words(self._seconds_of(run_left))}.")
        if self._steps_here > WARM_UP and self._line.is_due():
            speed = self._words_per_step * position.step / position.seconds
            self._line.show(
                f"Epoch {position.epoch + 1}/{self._epochs} "
                f"{100 * position.step / self._epoch_size:.0f}%  perplexity {perplexity:.1f}  "
                f"{speed:,.0f} wps  left {_clock(self._seconds_of(epoch_left))}, "
                f"run {_clock(self._seconds_of(run_left))}"
            )

    def valid_step(self, position, share_done):
        """To be told the Position and the share done (0 to 1) after every step of a validation."""
        self._line.show(
            f"Epoch {position.epoch + 1}/{self._epochs} validation {100 * share_done:.0f}%"
        )

    def _seconds_of(self, steps):
        """Returns how long so many training steps take."""
        return steps * (time.perf_counter() - self._warm_since) / (self._steps_here - WARM_UP)


def _clock(seconds):
    """Returns seconds as a clock shows them: 0:01:30."""
    return str(datetime.timedelta(seconds=round(seconds)))


def _in_words(seconds):
    """Returns seconds as a person says them: "40 seconds", "25 minutes", "3 hours", "2.5 days"."""
    for unit, length, limit in ("second", 1, 90), ("minute", 60, 90), ("hour", 3600, 36):
        if seconds < limit * length:
            return counted(round(seconds / length), unit)
    return f"{seconds / 86400:.1f} days"
