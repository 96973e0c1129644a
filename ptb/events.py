"""Event files, as TensorBoard reads them: records of Event messages.

A `tf.summary.FileWriter` writes from a thread of its own, and what it cannot write is lost without
a word; here it is an error, at once.
"""

import glob
import os
import socket
import sys
import time

import tensorflow.compat.v1 as tf
from google.protobuf.message import DecodeError

PREFIX = "events.out.tfevents."


class Writer:
    """A new event file in a folder, beside those of earlier processes.

    Args:
      folder: it exists.
      last: {tag: the last step that counts}; later points in earlier files are removed, and so are
        those of other tags.

    Attributes:
      graph_is_there: whether this file or an earlier one has the graph.

    Raises:
      OSError, tf.errors.OpError: a file cannot be written.
    """

    def __init__(self, folder, last):
        paths = sorted(glob.glob(os.path.join(glob.escape(folder), PREFIX + "*")))
        self.graph_is_there = any([_cut(path, last) for path in paths])
        name = f"{PREFIX}{time.time():.6f}.{socket.gethostname()}"
        self._records = tf.io.TFRecordWriter(os.path.join(folder, name))
        self._write(file_version="brain.Event:2")

    def add(self, step, values):
        """Writes {tag: number} as the points at a step; they are in the file at once."""
        value = [tf.Summary.Value(tag=tag, simple_value=number) for tag, number in values.items()]
        self._write(step=step, summary=tf.Summary(value=value))

    def add_graph(self, graph):
        """Writes a graph's structure."""
        self._write(graph_def=graph.as_graph_def().SerializeToString())
        self.graph_is_there = True

    def close(self):
        """Closes the file."""
        self._records.close()

    def _write(self, **fields):
        event = tf.Event(wall_time=time.time(), **fields)
        self._records.write(event.SerializeToString())
        self._records.flush()


def read(path):
    """Returns (the events in a file, whether it is whole); those before the damage are returned."""
    events = []
    try:
        for event in tf.train.summary_iterator(path):
            events.append(event)
    except (tf.errors.DataLossError, DecodeError):
        return events, False
    return events, True


def _cut(path, last):
    """Removes points after their tag's last step, and a torn end; returns whether a graph is there.
    """
    events, whole = read(path)
    if not whole:
        print(f"{path} is damaged: the curves' points after that are gone.", file=sys.stderr)
    kept = [
        event for event in events
        if all(event.step <= last.get(value.tag, -1) for value in event.summary.value)
    ]
    if not whole or len(kept) < len(events):
        unfinished = os.path.join(os.path.dirname(path), ".unfinished.events")
        with tf.io.TFRecordWriter(unfinished) as records:
            for event in kept:
                records.write(event.SerializeToString())
        os.replace(unfinished, path)
    return any(event.graph_def for event in kept)
