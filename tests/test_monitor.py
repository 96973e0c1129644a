"""What a run says and keeps besides the article's lines."""

import math
import types

import pytest
import tensorflow.compat.v1 as tf

import models
from ptb import checkpoint, events, monitor, plot, progress
from ptb.errors import UserError


@pytest.mark.parametrize("seconds, said", [
    (0, "0 seconds"), (89, "89 seconds"), (90, "2 minutes"), (1500, "25 minutes"),
    (5400, "2 hours"), (36 * 3600 - 1, "36 hours"), (216_000, "2.5 days"),
])
def test_duration(seconds, said):
    assert monitor.duration(seconds) == said




class Run:
    """What Monitor uses of a checkpoint.Run."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.position = checkpoint.Position()
        self.steps = 0

    def after_step(self):
        self.steps += 1

    def after_epoch(self, epoch):
        history = [*self.position.history, epoch]
        self.position = checkpoint.Position(epoch=len(history), history=history)


@pytest.fixture
def clock(monkeypatch):
    """The time as monitor sees it: set `now` to let it pass."""
    clock = types.SimpleNamespace(now=100.0)
    monkeypatch.setattr(monitor.time, "monotonic", lambda: clock.now)
    return clock


def follow(run, epoch_size, epochs, clock=None, seconds=0.5, stop=None):
    """Trains in name only: each step costs 3.0 nats and takes some seconds."""
    config = models.TinyConfig()
    config.max_max_epoch = epochs
    with tf.Graph().as_default():
        tf.zeros([1], name="of_this_graph")
        with monitor.Monitor(run, config, epoch_size, valid_size=4) as watch:
            for epoch in range(run.position.epoch, epochs):
                for step in range(run.position.step, epoch_size):
                    if stop == (epoch, step):
                        return
                    if clock:
                        clock.now += seconds
                    run.position.step = step + 1
                    run.position.costs += 3.0
                    run.position.seconds += seconds
                    watch.after_train_step(3.0 + step)
                for _ in range(4):
                    if clock:
                        clock.now += seconds
                    watch.after_valid_step(3.0)
                watch.after_epoch(0.25, 9.5, math.e**2)


def points(folder):
    """Returns {tag: [(step, value)]} and the number of graphs in a folder's event files."""
    found, graphs = {}, 0
    for path in sorted(folder.glob("events.out.tfevents.*")):
        recorded, whole = events.read(str(path))
        assert whole and recorded[0].file_version == "brain.Event:2"
        for event in recorded:
            graphs += b"of_this_graph" in event.graph_def
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found, graphs


def test_forecast_is_said_once_after_a_hundred_steps(clock, tmp_path, capsys):
    """Ten slow steps, then 0.5 s each: 300 steps of which 100 are done leave 100 s."""
    follow(Run(tmp_path), 300, 1, clock)
    assert capsys.readouterr().out == "Training will take about 2 minutes.\n"


def test_a_short_run_has_no_forecast(tmp_path, capsys):
    follow(Run(tmp_path), 50, 2)
    assert capsys.readouterr().out == ""


def test_live_line(clock, tmp_path, terminal, capsys):
    terminal()
    follow(Run(tmp_path), 200, 3, clock)
    shown = capsys.readouterr().err.split("\r")
    # 12 words a step, 0.5 s each; the perplexity is e.
    line = "Epoch 2/3 50%  perplexity 2.7  24 wps  left 0:00:51, run 0:02:32\033[K"
    assert line in shown  # the run's pace includes the validation before
    assert "Epoch 3/3 validation 75%\033[K" in shown
    assert shown[-1] == "\033[K"


def test_live_line_stays_below_what_is_printed(terminal, capfd):
    terminal()
    with progress.Line() as line, line.below_output():
        line.show("half done")
        print("printed")
        assert capfd.readouterr() == ("printed\n", "\rhalf done\033[K\r\033[K")


def test_live_line_is_cut_to_the_terminal(terminal, capsys, monkeypatch):
    terminal()
    monkeypatch.setenv("COLUMNS", "20")
    with progress.Line() as line:
        line.show("123456789 " * 5)
    assert "\r123456789 123456789\033[K\r" in capsys.readouterr().err


def test_nothing_is_shown_in_a_file(clock, tmp_path, capsys):
    run = Run(tmp_path)
    follow(run, 50, 1, clock)
    assert capsys.readouterr() == ("", "")
    assert run.steps == 54


def test_event_files_hold_the_articles_curves(tmp_path):
    follow(Run(tmp_path), 300, 2)
    curves, graphs = points(tmp_path)
    expected = [(epoch * 300 + step, 2.0 + step) for epoch in (0, 1) for step in range(3, 303, 3)]
    assert curves.pop("Training Loss") == expected
    assert curves == {
        "Learning Rate": [(300, 0.25), (600, 0.25)],
        "Validation Loss": [(300, 6.0), (600, 6.0)],  # 2 nats a word, 3 words a step
        "Train Perplexity": [(1, 9.5), (2, 9.5)],
        "Valid Perplexity": [(1, pytest.approx(math.e**2)), (2, pytest.approx(math.e**2))],
    }
    assert graphs == 1


@pytest.mark.parametrize("stop, saved", [
    ((1, 47), 20), ((1, 47), 0), ((0, 30), 0), ((1, 10), 10), ((2, 0), 0),
])
def test_resumed_run_goes_on_without_overlap(stop, saved, tmp_path, capsys):
    """It was killed at `stop`, when its last checkpoint was that of the step `saved`."""
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    unbroken.mkdir(), broken.mkdir()
    follow(Run(unbroken), 60, 3)
    run = Run(broken)
    follow(run, 60, 3, stop=stop)
    if stop == (2, 0):  # killed between the epoch's points and its checkpoint
        run.position = checkpoint.Position(1, 60, 180.0, 30.0, history=run.position.history[:1])
    else:
        run.position.step, run.position.costs = saved, 3.0 * saved
    (earlier,) = broken.glob("events.*")
    with open(earlier, "ab") as file:
        file.write(b"a torn end of a file")
    follow(run, 60, 3)
    assert f"{earlier} is damaged: the curves' points after that" in capsys.readouterr().err
    assert points(broken) == points(unbroken)
    assert plot.read_history(broken)["epoch"] == [1, 2, 3]


def test_history_has_a_row_an_epoch(clock, tmp_path):
    run = Run(tmp_path)
    follow(run, 40, 2, clock)
    assert (tmp_path / "history.csv").read_text() == (
        "epoch,learning_rate,train_perplexity,valid_perplexity,words_per_second,seconds\n"
        "1,0.25,9.5,7.3890561,24,21.5\n2,0.25,9.5,7.3890561,24,21.5\n"
    )


def test_history_is_complete_again_after_it_was_lost(tmp_path):
    run = Run(tmp_path)
    follow(run, 40, 2)
    (tmp_path / "history.csv").unlink()
    follow(run, 40, 2)
    assert plot.read_history(tmp_path)["epoch"] == [1, 2]


def test_event_file_that_may_not_be_read_stays(tmp_path, monkeypatch):
    run = Run(tmp_path)
    follow(run, 40, 1)

    def refuse(path):
        raise tf.errors.PermissionDeniedError(None, None, f"{path}; Permission denied")

    before = {path: path.read_bytes() for path in tmp_path.glob("events.*")}
    monkeypatch.setattr(tf.train, "summary_iterator", refuse)
    with pytest.raises(UserError, match=f"cannot save in {tmp_path}: .*Permission denied"):
        follow(run, 40, 2)
    assert before == {path: path.read_bytes() for path in tmp_path.glob("events.*")}


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "history.csv").mkdir()
    with pytest.raises(UserError, match=f"cannot save in {tmp_path}: Is a directory; the last"):
        follow(Run(tmp_path), 40, 1)
