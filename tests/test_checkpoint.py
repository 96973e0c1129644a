"""A run on disk: whole or absent, checked before it is believed, and continued exactly."""

import json
import os
import pathlib
import shutil
import subprocess

import models
import numpy as np
import pytest
from conftest import System, correct_sum

from ptb.rnn import LSTMStateTuple
from ptb.saving import checkpoint, files
from ptb.saving.history import EpochResult, best_epoch
from ptb.terminal.errors import UserError
from ptb.terminal.quiet import tf
from ptb.trained_model import read_model

FACTS = {
    "config": {"hidden_size": 3, "num_layers": 1, "batch_size": 2, "max_max_epoch": 3},
    "number_type": "float32", "seed": 1, "rnn_mode": "fused",
}
WORDS = ["the", "<eos>", "fünf", "<unk>"]
STATE = (LSTMStateTuple(np.full((2, 3), 0.5, np.float32), np.full((2, 3), 0.25, np.float32)),)
RESULTS = (EpochResult(1.0, 9.5, 8.25, 5000.0, 60.0), EpochResult(0.5, 7.1, 6.2, 5e3, 6.5))
FIRST = checkpoint.Position(
    epoch=1, step=7, costs=1 / 3, seconds=1.5, state=STATE, history=RESULTS[:1]
)
SECOND = checkpoint.Position(epoch=2, history=RESULTS)


@pytest.fixture
def save():
    """To be called with a folder, a Position and a value: saves with the one variable at it."""

    def save(folder, position, value):
        _, damaged = checkpoint.newest(str(folder))
        values = {"Model/v": np.full(1000, value, np.float32)}
        checkpoint.save(str(folder), FACTS, position, WORDS, values)
        checkpoint.prune(str(folder), damaged)

    return save


@pytest.fixture
def two(save, tmp_path):
    """A run's folder with two checkpoints, the variable 1 in the first and 2 in the second."""
    folder = tmp_path / "run"
    folder.mkdir()
    save(folder, FIRST, 1)
    save(folder, SECOND, 2)
    return folder


def assert_continues(folder, position, value):
    """The newest whole checkpoint has this position, and its variable this value."""
    found, _ = checkpoint.newest(str(folder))
    assert (found.facts, found.vocabulary) == (FACTS, WORDS)
    with tf.Graph().as_default(), tf.Session() as session:
        variable = tf.get_variable("Model/v", [1000])
        checkpoint.restore(session, found.variables_path, [variable])
        assert np.all(session.run(variable) == value)
    for name in vars(position):
        if name == "state" and position.state:
            for (c, h), (found_c, found_h) in zip(position.state, found.position.state):
                np.testing.assert_array_equal(c, found_c)
                np.testing.assert_array_equal(h, found_h)
        else:
            assert getattr(found.position, name) == getattr(position, name), name


def test_files_are_those_of_a_saver(tmp_path):
    """Byte for byte: their checksum is what a run that starts from them remembers."""
    values = {"Model/w": np.ones([2, 3], np.float32), "Model/b": np.zeros(3, np.float32)}
    models.save(tmp_path / "saver", values)
    checkpoint.write_variables(str(tmp_path / "ours"), values)
    for end in "index", "data-00000-of-00001":
        saver, ours = (tmp_path / f"{name}.{end}" for name in ("saver", "ours"))
        assert saver.read_bytes() == ours.read_bytes()


def test_position_and_variables_come_back(save, tmp_path):
    assert checkpoint.newest(str(tmp_path)) == (None, set())
    save(tmp_path, FIRST, 1)
    assert_continues(tmp_path, FIRST, 1)


def test_last_two_are_kept_and_nothing_else(save, two):
    save(two, FIRST, 3)
    save(two, SECOND, 4)
    assert sorted(os.listdir(two)) == ["checkpoint-000003", "checkpoint-000004"]
    newest = two / "checkpoint-000004"
    assert (newest / "vocabulary.txt").read_text(encoding="utf-8").split("\n") == [*WORDS, ""]
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=newest).returncode == 0
    assert str(two) not in "".join(path.read_text("latin-1") for path in newest.iterdir())


# The best epoch.

def results_of(*valid_perplexities):
    """Returns an EpochResult for each of them; no two are equal, as no two last equally long."""
    return tuple(
        EpochResult(1.0, 9.5, perplexity, 5000.0, 60.0 + number)
        for number, perplexity in enumerate(valid_perplexities)
    )


def positions(valid_perplexities, saves=1):
    """Yields the Positions that a run saves: some within each epoch, at its end, after the test."""
    results = results_of(*valid_perplexities)
    for epoch in range(len(results)):
        for step in range(saves):
            yield checkpoint.Position(epoch=epoch, step=step + 1, history=results[:epoch])
        yield checkpoint.Position(epoch=epoch + 1, history=results[: epoch + 1])
    yield checkpoint.Position(epoch=len(results), history=results, test=5.0)


@pytest.mark.parametrize("valid_perplexities, best", [
    ((), 0), ((3.0,), 1), ((3.0, 2.0, 4.0), 2), ((3.0, 2.0, 2.0), 2), ((np.inf, np.inf), 1),
])
def test_best_epoch_is_the_first_with_the_lowest_valid_perplexity(valid_perplexities, best):
    assert best_epoch(results_of(*valid_perplexities)) == best


@pytest.mark.parametrize("saves, pruned", [(0, True), (2, True), (1, False)])
def test_best_epoch_is_there_from_whichever_checkpoint_the_run_goes_on(
    saves, pruned, save, tmp_path
):
    """After every save, even where the newest checkpoint is damaged, or the run was killed."""
    perplexities = [5.0, 3.0, 4.0, 2.0, 2.0, 6.0]
    for number, position in enumerate(positions(perplexities, saves), start=1):
        with pytest.MonkeyPatch.context() as patch:
            if not pruned and number % 3 == 0:
                patch.setattr(checkpoint, "prune", lambda folder, damaged: None)
            save(tmp_path, position, 1)
        numbers = sorted(int(name[-6:]) for name in os.listdir(tmp_path))
        assert numbers[-2:] == [number - 1, number][-len(numbers):]
        if pruned or number % 3:
            assert len(numbers) <= 4
        for lost in [], [number]:
            last = checkpoint.read(str(tmp_path / f"checkpoint-{numbers[-1 - len(lost)]:06d}"))
            epoch = best_epoch(last.position.history)
            found = checkpoint.of_best_epoch(str(tmp_path), last.position.history, lost)
            assert (found.position.epoch, found.position.step) == (epoch, 0) if epoch else not found
            if number == 1:
                break
    epochs = [checkpoint.read(str(path)).position.epoch for path in sorted(tmp_path.iterdir())]
    assert epochs == [4, 6, 6] or not pruned


def test_no_second_copy_of_the_best_epoch_that_is_the_last(save, tmp_path):
    for position in positions([5.0, 3.0]):
        save(tmp_path, position, 1)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-000004", "checkpoint-000005"]
    assert checkpoint.find(str(tmp_path), best=True).path.endswith("checkpoint-000005")
    damage(tmp_path / "checkpoint-000005" / "model.ckpt.index", "empty")
    assert checkpoint.find(str(tmp_path), best=True).path.endswith("checkpoint-000004")


def test_run_goes_on_from_the_best_epoch_where_nothing_newer_is_whole(save, tmp_path, capsys):
    for position in positions([3.0, 5.0, 6.0]):
        save(tmp_path, position, 1)
    assert sorted(os.listdir(tmp_path)) == [f"checkpoint-{n:06d}" for n in (2, 6, 7)]
    for number in 6, 7:
        damage(tmp_path / f"checkpoint-{number:06d}" / "state.npz", "truncated")
    assert checkpoint.newest(str(tmp_path))[0].position.epoch == 1
    assert len(capsys.readouterr().err.splitlines()) == 2


@pytest.mark.parametrize("how, said", [
    ("missing", ""), ("garbled", "checkpoint-000002 is damaged: model.ckpt.index is not what was"),
])
def test_best_epoch_that_is_lost_is_named(how, said, save, tmp_path, capsys):
    for position in positions([3.0, 5.0, 6.0]):
        save(tmp_path, position, 1)
    if how == "missing":
        shutil.rmtree(tmp_path / "checkpoint-000002")
    else:
        damage(tmp_path / "checkpoint-000002" / "model.ckpt.index", how)
    with pytest.raises(UserError, match="no whole checkpoint of the best epoch, 1, is there; le"):
        checkpoint.find(str(tmp_path), best=True)
    assert said in capsys.readouterr().err
    assert checkpoint.find(str(tmp_path)).position.epoch == 3


def test_epoch_of_another_course_of_the_run_is_not_its_best(save, tmp_path):
    """Of an epoch that was trained again after damage, and on another machine."""
    *_, last = positions([3.0, 5.0, 6.0])
    save(tmp_path, checkpoint.Position(epoch=1, history=results_of(2.9)), 1)
    save(tmp_path, last, 1)
    with pytest.raises(UserError, match="no whole checkpoint of the best epoch, 1, is there"):
        checkpoint.find(str(tmp_path), best=True)


def test_there_is_no_best_epoch_before_one_is_done(save, tmp_path):
    save(tmp_path, next(positions([3.0])), 1)
    with pytest.raises(UserError, match=f"{tmp_path}: no epoch is done yet; leave out --best"):
        checkpoint.find(str(tmp_path), best=True)
    with pytest.raises(UserError, match="000001 is a checkpoint; --best takes the folder of its"):
        checkpoint.find(str(tmp_path / "checkpoint-000001"), best=True)


def test_reader_of_the_best_epoch_that_loses_the_race_looks_again(save, tmp_path, monkeypatch):
    """The run has a new best epoch while a reader is between looking and reading."""
    first, second, third, *_ = positions([3.0, 2.0, 6.0], saves=0)
    save(tmp_path, first, 1)
    really = checkpoint.of_best_epoch

    def slowly(*args):
        monkeypatch.setattr(checkpoint, "of_best_epoch", really)
        save(tmp_path, second, 2)
        save(tmp_path, third, 3)
        return really(*args)

    monkeypatch.setattr(checkpoint, "of_best_epoch", slowly)
    assert checkpoint.find(str(tmp_path), best=True).position.epoch == 2


def test_folder_can_be_moved(two):
    moved = two.rename(two.parent / "elsewhere")
    assert_continues(moved, SECOND, 2)


FILES = ["SHA256SUMS", "model.ckpt.data-00000-of-00001", "model.ckpt.index", "run.json",
         "state.npz", "vocabulary.txt"]
DAMAGES = {
    "missing": None,
    "empty": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "a byte short": lambda data: data[:-1],
    "longer": lambda data: data + b"\n",
    "first byte": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "middle byte": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 128])
                                + data[len(data) // 2 + 1 :],
    "last byte": lambda data: data[:-1] + bytes([data[-1] ^ 4]),
    "garbled": lambda data: np.random.default_rng(0).bytes(len(data)),
}


def damage(path, how):
    if DAMAGES[how] is None:
        path.unlink()
    else:
        path.write_bytes(DAMAGES[how](path.read_bytes()))


def test_files_of_a_checkpoint(two):
    """What the damages below go through is all there is."""
    for name in "checkpoint-000001", "checkpoint-000002":
        assert sorted(os.listdir(two / name)) == FILES


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_damaged_checkpoint_is_named_and_the_one_before_continued(name, how, two, capsys):
    damage(two / "checkpoint-000002" / name, how)
    assert_continues(two, FIRST, 1)
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 1
    assert printed[0].startswith(f"{two}/checkpoint-000002 is damaged: ")
    if name != "SHA256SUMS":
        assert f" {name} " in printed[0]


@pytest.mark.parametrize("name", [".DS_Store", ".ipynb_checkpoints", "._run.json", "more"])
def test_what_was_not_written_is_nobodys_business(name, save, two):
    """Not even in both, and it does not stay behind when the checkpoint goes."""
    for folder in "checkpoint-000001", "checkpoint-000002":
        if name == ".ipynb_checkpoints":
            (two / folder / name).mkdir()
        else:
            (two / folder / name).write_text("")
    (two / name).mkdir()
    assert_continues(two, SECOND, 2)
    save(two, FIRST, 3)
    save(two, FIRST, 4)
    assert sorted(os.listdir(two)) == sorted([name, "checkpoint-000003", "checkpoint-000004"])


@pytest.mark.parametrize("name", ["checkpoint-000009", "checkpoint-7", "checkpoint-x"])
def test_file_or_folder_of_another_name_is_no_checkpoint(name, two):
    if name == "checkpoint-7":
        (two / name).mkdir()
    else:
        (two / name).write_text("")
    assert_continues(two, SECOND, 2)


def test_name_that_is_taken_is_left_out(save, two):
    (two / "checkpoint-000003").write_text("somebody's")
    save(two, FIRST, 3)
    assert_continues(two, FIRST, 3)
    assert sorted(os.listdir(two)) == [f"checkpoint-{number:06d}" for number in (2, 3, 4)]
    assert (two / "checkpoint-000003").read_text() == "somebody's"


def test_folder_that_cannot_be_listed_is_named(two, monkeypatch):
    def fail(path):
        raise OSError(116, "Stale file handle", path)

    monkeypatch.setattr(checkpoint, "os", System(listdir=fail))
    with pytest.raises(UserError, match=f"{two}: Stale file handle"):
        checkpoint.newest(str(two))


def test_two_whole_checkpoints_stay_beside_a_damaged_one(save, two):
    damage(two / "checkpoint-000002" / "run.json", "empty")
    save(two, SECOND, 3)
    assert_continues(two, SECOND, 3)
    names = [f"checkpoint-{number:06d}" for number in (1, 2, 3)]
    assert sorted(os.listdir(two)) == names


def test_nothing_whole_is_found_and_none_removed(two):
    for number in 1, 2:
        damage(two / f"checkpoint-{number:06d}" / "state.npz", "truncated")
    assert checkpoint.newest(str(two)) == (None, {1, 2})
    with pytest.raises(UserError, match="run: no checkpoint there is whole; train it again"):
        checkpoint.find(str(two))
    assert len(os.listdir(two)) == 2


def test_reader_that_loses_the_race_looks_again(two, save, monkeypatch, capsys):
    """The run saves twice while a reader is reading: what it was reading is gone."""
    really = files.sha256_of

    def slowly(path):
        monkeypatch.setattr(files, "sha256_of", really)
        save(two, SECOND, 3)
        save(two, FIRST, 4)
        return really(path)

    monkeypatch.setattr(files, "sha256_of", slowly)
    assert checkpoint.newest(str(two))[0].path.endswith("checkpoint-000004")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("best", [False, True])
def test_reader_that_always_loses_the_race_gives_up(best, two, monkeypatch):
    """The run removes each checkpoint while it is read."""
    number = [2]

    def go_on(path):
        newer = f"{two}/checkpoint-{number[0] + 1:06d}"
        os.rename(f"{two}/checkpoint-{number[0]:06d}", newer)
        number[0] += 1
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(files, "sha256_of", go_on)
    with pytest.raises(UserError, match=f"^{two}: the run there saves so often that each checkpo"):
        checkpoint.find(str(two), best)
    assert number == [2 + checkpoint.TRIES]


RECORDS = {
    "no position": lambda record: record.pop("position"),
    "no facts": lambda record: record.pop("facts"),
    "facts of another kind": lambda record: record.update(facts=[1]),
    "epoch of another kind": lambda record: record["position"].update(epoch="2"),
    "negative step": lambda record: record["position"].update(step=-1),
    "true": lambda record: record["position"].update(seconds=True),
    "too large": lambda record: record["position"].update(seconds=10**400),
    "costs of another kind": lambda record: record["position"].update(costs=None),
    "history of another length": lambda record: record["position"].update(history=[]),
    "history of another kind": lambda record: record["position"].update(history=[1, 2]),
    "epochs of another length": lambda record: record["position"].update(history=[[1.0, 2.0]] * 2),
    "a state": lambda record: record["position"].update(state=[]),
    "best test of another kind": lambda record: record["position"].update(best_test="low"),
    "test of another kind": lambda record: record["position"].update(test="low"),
}


@pytest.mark.parametrize("how", RECORDS)
def test_content_is_checked_even_where_the_checksums_are_right(how, two, capsys):
    path = two / "checkpoint-000002" / "run.json"
    record = json.loads(path.read_text())
    RECORDS[how](record)
    path.write_text(json.dumps(record))
    correct_sum(path)
    assert_continues(two, FIRST, 1)
    assert "run.json cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("where, change", [
    ("more", lambda record: record["position"].update(more=1)),
    ("format", lambda record: record.update(format=2)),
    ("cell", lambda record: record["facts"].update(cell="gru")),
    ("weight_decay", lambda record: record["facts"]["config"].update(weight_decay=0.1)),
    ("column 6 of the history", lambda record: record["position"].update(history=[[1.0] * 6] * 2)),
])
def test_checkpoint_of_a_newer_version_is_not_called_damaged(where, change, two, save):
    """No older one answers in its place, and it stays where it is."""
    path = two / "checkpoint-000002" / "run.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    correct_sum(path)
    message = f"^{two}/checkpoint-000002 was written by a newer .* does not know what {where} in "
    for find in checkpoint.newest, checkpoint.find, read_model:
        with pytest.raises(UserError, match=message):
            find(str(two), *["corpus"] * (find is read_model))
    checkpoint.prune(str(two), set())
    assert len(os.listdir(two)) == 2


# Numbers.

WHOLE = EpochResult(1, 9, 8, 5000, 60)


@pytest.mark.parametrize("kind", [int, float, np.float32, np.int64])
def test_numbers_of_any_kind_are_read_as_they_were_written(kind, save, tmp_path):
    result = EpochResult(*map(kind, WHOLE))
    position = checkpoint.Position(
        epoch=1, costs=kind(3), seconds=kind(2), history=(result,), test=kind(7),
        best_test=kind(6),
    )
    save(tmp_path, position, 1)
    assert_continues(tmp_path, position, 1)
    found = checkpoint.find(str(tmp_path)).position
    numbers = *found.history[0], found.costs, found.seconds, found.test, found.best_test
    assert {*map(type, numbers)} == {float}


def test_perplexity_beyond_all_floats_is_read_as_it_was_written(save, tmp_path):
    position = checkpoint.Position(epoch=1, history=(WHOLE._replace(valid_perplexity=np.inf),))
    save(tmp_path, position, 1)
    assert_continues(tmp_path, position, 1)


def test_what_cannot_be_read_back_does_not_count_as_written(two, save):
    """Here a learning rate that is no number; the folder stays what it was."""
    wrong = checkpoint.Position(epoch=1, history=(WHOLE._replace(learning_rate="1"),))
    with pytest.raises(OSError, match="what was written cannot be read back: run.json cannot be r"):
        save(two, wrong, 3)
    assert sorted(os.listdir(two)) == ["checkpoint-000001", "checkpoint-000002"]
    assert_continues(two, SECOND, 2)


STATES = {
    "another shape": dict(c0=np.zeros((2, 4), np.float32), h0=np.zeros((2, 4), np.float32)),
    "another number type": dict(c0=np.zeros((2, 3)), h0=np.zeros((2, 3))),
    "a layer too many": dict.fromkeys(["c0", "h0", "c1", "h1"], np.zeros((2, 3), np.float32)),
    "no h": dict(c0=np.zeros((2, 3), np.float32), d0=np.zeros((2, 3), np.float32)),
}


@pytest.mark.parametrize("how", [*STATES, "no archive", "an array alone", "cut short"])
def test_state_is_checked_even_where_the_checksums_are_right(how, two, capsys):
    path = two / "checkpoint-000002" / "state.npz"
    if how in STATES:
        np.savez(path, **STATES[how])
    elif how == "cut short":
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(file, {
                "descr": "<f4", "fortran_order": False, "shape": (2, 3)
            })
    elif how == "no archive":
        path.write_bytes(b"PK\3\4 and nothing more")
    else:
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
    correct_sum(path)
    assert_continues(two, FIRST, 1)
    assert "state.npz cannot be read" in capsys.readouterr().err


def test_pickle_is_never_loaded(two, tmp_path, capsys):
    class Bomb:
        def __reduce__(self):
            return (pathlib.Path.touch, (tmp_path / "exploded",))

    path = two / "checkpoint-000002" / "state.npz"
    np.savez(path, c0=np.array([Bomb()], dtype=object), h0=np.zeros(1))
    correct_sum(path)
    assert_continues(two, FIRST, 1)
    assert "state.npz cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name, said", [
    ("Model/v", r"Model/v has shape \[1000\], not \[7\]"),
    ("Model/w", r"Model/w has shape None, not \[7\]"),
])
def test_variables_of_another_model_are_refused(name, said, two):
    with tf.Graph().as_default(), tf.Session() as session:
        variable = tf.get_variable(name, [7])
        path = f"{two}/checkpoint-000002/model.ckpt"
        with pytest.raises(UserError, match=f"{path}: not the variables of this model: {said}"):
            checkpoint.restore(session, path, [variable])


def test_restored_where_the_graph_is_finished(two):
    """As a run does, whose Supervisor finishes the graph."""
    with tf.Graph().as_default() as graph, tf.Session() as session:
        variable = tf.get_variable("Model/v", [1000])
        graph.finalize()
        path = f"{two}/checkpoint-000002/model.ckpt"
        checkpoint.restore(session, path, [variable])
        assert np.all(session.run(variable) == 2)


def test_checkpoint_that_is_known_is_not_read_again(two, save, monkeypatch):
    """Unless another one has taken its place."""
    known, _ = checkpoint.newest(str(two))
    read, really = [], files.sha256_of
    monkeypatch.setattr(files, "sha256_of", lambda path: read.append(path) or really(path))
    assert checkpoint.newest(str(two), known) == (known, set()) and read == []
    shutil.rmtree(two / "checkpoint-000002")
    save(two, FIRST, 3)
    read.clear()
    found, _ = checkpoint.newest(str(two), known)
    assert (found.path, found.position.step) == (known.path, FIRST.step) and read


def test_what_may_not_be_read_is_not_damaged(two, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(files, "sha256_of", refuse)
    for path in two, two / "checkpoint-000002":
        with pytest.raises(UserError, match=f"{two}/.*: Permission denied; make it readable"):
            checkpoint.find(str(path))
