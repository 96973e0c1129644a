"""What programs read of a run later: its history.csv, and event files as TensorBoard reads them.

A `tf.summary.FileWriter` writes from a thread of its own, and what it cannot write is lost without
a word. Here an event file is written at once, and what cannot be written is an error.
"""

import contextlib
import csv
import glob
import os
import socket
import sys
import time
import typing

from google.protobuf.message import DecodeError

from ptb.saving import files
from ptb.terminal.quiet import tf

CSV = "history.csv"
EVENTS = "events.out.tfevents."


class EpochResult(typing.NamedTuple):
    """What is remembered of an epoch."""

    learning_rate: float
    train_perplexity: float
    valid_perplexity: float
    words_per_second: float  # speed of training, validation left out
    seconds: float  # duration of training and validation together


def best_epoch(results):
    """Returns the epoch, counted from 1, with the lowest valid perplexity; 0 where none is done.

    Of several epochs with that perplexity it is the first.
    """
    perplexities = [result.valid_perplexity for result in results]
    return perplexities.index(min(perplexities)) + 1 if perplexities else 0


def write_csv(folder, results):
    """Writes history.csv in a run's folder: a header, and a row for each EpochResult.

    Its columns are the epoch, counted from 1, the fields of EpochResult, and `best`, which is 1 in
    the row of the best epoch so far and 0 in the others.

    Raises:
      OSError: it cannot be written; the file is what it was before.
    """
    path = os.path.join(folder, CSV)
    with (
        files.unless_open(path), files.whole(path) as unfinished,
        open(unfinished, "w", encoding="utf-8", newline="") as file,
    ):
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["epoch", *EpochResult._fields, "best"])
        best = best_epoch(results)
        for number, result in enumerate(results, start=1):
            values = [f"{value:.8g}" for value in result]
            table.writerow([number, *values, int(number == best)])


class EventFile(contextlib.AbstractContextManager):
    """The event file of this process in a run's folder; use it in a `with`.

    It appears with its first point. Those of earlier processes are merged into one, so that a run
    of many starts has two. Other event files in the folder, with tags that are not ours, are left
    alone.

    Args:
      folder: the run's folder; None where it is another worker's, and nothing is written here.
      steps_done: {tag: the last step that counts} for each of our tags. Earlier processes may have
        written points beyond their last checkpoint; these are removed, as they will come again.

    Attributes:
      graph_is_there: whether one of our files has the graph.

    Raises:
      OSError, tf.errors.OpError: a file cannot be written.
    """

    def __init__(self, folder, steps_done):
        self._folder = folder
        self._records = None
        self.graph_is_there = folder is None or _merge(folder, steps_done)

    def __exit__(self, *_):
        if self._records:
            self._records.close()

    def add(self, step, values):
        """Writes {tag: number} as the points at a step; they are in the file at once."""
        points = [tf.Summary.Value(tag=tag, simple_value=number) for tag, number in values.items()]
        self._write(step=step, summary=tf.Summary(value=points))

    def add_graph(self, graph):
        """Writes a graph's structure."""
        self._write(graph_def=graph.as_graph_def().SerializeToString())
        self.graph_is_there = True

    def _write(self, **fields):
        if self._folder is None:
            return
        if self._records is None:
            name = f"{EVENTS}{time.time():.6f}.{socket.gethostname()}"
            self._records = tf.io.TFRecordWriter(os.path.join(self._folder, name))
            self._write(file_version="brain.Event:2")
        event = tf.Event(wall_time=time.time(), **fields)
        self._records.write(event.SerializeToString())
        self._records.flush()


def read_events(path):
    """Returns (the events in a file, whether it is whole); those before the damage are returned."""
    events = []
    try:
        for event in tf.train.summary_iterator(os.fspath(path)):
            events.append(event)
    except (tf.errors.DataLossError, DecodeError):
        return events, False
    return events, True


def _merge(folder, steps_done):
    """Merges our event files into the first of them, without points after their tag's last step.

    Returns whether the graph is there.
    """
    ours, kept, num_events, all_whole = [], {}, 0, True
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), EVENTS + "*"))):
        events, is_whole = read_events(path)
        tags = {point.tag for event in events for point in event.summary.value}
        if not tags or not tags <= steps_done.keys():
            continue
        if not is_whole:
            print(f"{path} is damaged: the curves' points after that are gone.", file=sys.stderr)
        ours.append(path)
        num_events += len(events)
        all_whole = all_whole and is_whole
        for event in events:
            its_tags = tuple(point.tag for point in event.summary.value)
            if all(event.step <= steps_done[tag] for tag in its_tags):
                # A process that is killed while it merges the files leaves some points twice.
                kept.setdefault((its_tags, event.step, bool(event.graph_def)), event)
    if len(ours) > 1 or len(kept) < num_events or not all_whole:
        with files.unless_open(ours[0]):
            with files.whole(ours[0]) as unfinished, tf.io.TFRecordWriter(unfinished) as records:
                for event in kept.values():
                    records.write(event.SerializeToString())
            for path in ours[1:]:
                os.remove(path)
    return any(event.graph_def for event in kept.values())
