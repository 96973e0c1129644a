"""What programs read later: event files, each of them whole, ours apart from others'."""

import shutil

import pytest
from conftest import points

from ptb.saving import history
from ptb.terminal.quiet import tf

LAST = {"Training Loss": 7, "Train Perplexity": 2}


def write(folder, steps, steps_done=LAST, tag="Training Loss"):
    """Writes points at the steps, as a process that had done `steps_done` at its start."""
    with history.EventFile(str(folder), steps_done) as events:
        for step in steps:
            events.add(step, {tag: step / 4})
        return events.graph_is_there


def test_points_are_in_the_file_at_once(tmp_path):
    with history.EventFile(str(tmp_path), LAST) as events:
        assert list(tmp_path.iterdir()) == []
        events.add(3, {"Training Loss": 0.5, "Train Perplexity": 2.0})
        assert points(tmp_path)[0] == {"Training Loss": [(3, 0.5)], "Train Perplexity": [(3, 2.0)]}


def test_points_beyond_the_last_checkpoint_are_removed(tmp_path):
    write(tmp_path, range(10))
    write(tmp_path, [])
    assert [step for step, _ in points(tmp_path)[0]["Training Loss"]] == list(range(8))


def test_many_starts_leave_two_files(tmp_path):
    for start in range(6):
        write(tmp_path, [start], {"Training Loss": start - 1})
    assert len(list(tmp_path.iterdir())) == 2
    assert points(tmp_path)[0] == {"Training Loss": [(step, step / 4) for step in range(6)]}


def test_graph_is_kept_once(tmp_path):
    with tf.Graph().as_default() as graph, history.EventFile(str(tmp_path), LAST) as events:
        tf.zeros([1], name="of_this_graph")
        assert not events.graph_is_there
        events.add_graph(graph)
        events.add(1, {"Training Loss": 0.5})
    assert write(tmp_path, [2])
    assert write(tmp_path, [3])
    assert points(tmp_path)[1] == 1


def test_another_worker_writes_nothing(tmp_path, monkeypatch):
    """The folder is worker 0's; here one in which a file would be written by mistake."""
    monkeypatch.chdir(tmp_path)
    with history.EventFile(None, LAST) as events:
        events.add(1, {"Training Loss": 1.0})
        assert events.graph_is_there
    assert list(tmp_path.iterdir()) == []


def test_killed_while_files_are_merged(tmp_path):
    """The merged file is there, and the second one still, too."""
    write(tmp_path, [1, 2], {})
    first, = tmp_path.iterdir()
    write(tmp_path, [3, 4], {"Training Loss": 2})
    second, = {*tmp_path.iterdir()} - {first}
    shutil.copy(second, tmp_path / "kept")
    write(tmp_path, [], {"Training Loss": 4})
    (tmp_path / "kept").rename(second)
    write(tmp_path, [], {"Training Loss": 4})
    assert [step for step, _ in points(tmp_path)[0]["Training Loss"]] == [1, 2, 3, 4]


@pytest.mark.parametrize("tag", ["Loss of somebody", "Training Loss/of somebody"])
def test_files_of_others_are_left_alone(tag, tmp_path):
    """Also where only some of their tags are others'."""
    with history.EventFile(str(tmp_path), LAST) as events:
        events.add(1, {"Training Loss": 1.0})
        events.add(999, {tag: 1.0})
    (theirs,) = tmp_path.iterdir()
    with open(theirs, "ab") as file:
        file.write(b"torn")
    before = theirs.read_bytes()
    write(tmp_path, [1, 2])
    write(tmp_path, [3])
    assert theirs.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3
