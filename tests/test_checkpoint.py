"""A run on disk: whole or absent, checked before it is believed, and continued exactly."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import configs
from conftest import ROOT
from ptb import checkpoint
from ptb.errors import UserError
from ptb.rnn import LSTMStateTuple

FACTS = {
    "config": {"hidden_size": 3, "num_layers": 1, "batch_size": 2, "max_max_epoch": 3},
    "number_type": "float32", "seed": 1, "rnn_mode": "fused",
}
WORDS = ["the", "<eos>", "fünf", "<unk>"]
STATE = (LSTMStateTuple(np.full((2, 3), 0.5, np.float32), np.full((2, 3), 0.25, np.float32)),)
EPOCHS = [checkpoint.Epoch(1.0, 9.5, 8.25, 5000.0, 60.0), checkpoint.Epoch(0.5, 7.1, 6.2, 5e3, 6.5)]
FIRST = checkpoint.Position(
    epoch=1, step=7, costs=1 / 3, seconds=1.5, state=STATE, history=EPOCHS[:1]
)
SECOND = checkpoint.Position(epoch=2, history=EPOCHS)


class Saved:
    """A run in a folder, whose one variable is what was last saved."""

    def __init__(self, folder, facts=FACTS):
        self.run = checkpoint.Run(str(folder), facts, WORDS, minutes=5)

    def __enter__(self):
        self._graph = tf.Graph().as_default()
        self._graph.__enter__()
        self.variable = tf.get_variable("Model/v", initializer=np.zeros(1000, np.float32))
        self.run.saver = tf.train.Saver()
        self.session = tf.Session()
        self.session.run(self.variable.initializer)
        self._in_session = self.run.in_session(self.session)
        self._in_session.__enter__()
        self.run.restore(self.session)
        return self

    def __exit__(self, *args):
        self._in_session.__exit__(*args)
        self.session.close()
        self._graph.__exit__(*args)

    def save(self, position, value):
        self.session.run(self.variable.initializer, {self.variable.initializer.inputs[1]:
                                                     np.full(1000, value, np.float32)})
        self.run.position = position
        return self.run.save()

    def value(self):
        return self.session.run(self.variable)


@pytest.fixture
def two(tmp_path):
    """A run's folder with two checkpoints, the variable 1 in the first and 2 in the second."""
    folder = tmp_path / "run"
    folder.mkdir()
    with Saved(folder) as saved:
        saved.save(FIRST, 1)
        saved.save(SECOND, 2)
    return folder


def assert_continues(folder, position, value):
    with Saved(folder) as saved:
        found = saved.run.position
        assert np.all(saved.value() == value)
    for name in vars(position):
        if name == "state" and position.state:
            for (c, h), (found_c, found_h) in zip(position.state, found.state):
                np.testing.assert_array_equal(c, found_c)
                np.testing.assert_array_equal(h, found_h)
        else:
            assert getattr(found, name) == getattr(position, name), name


def test_position_and_variables_come_back(tmp_path):
    with Saved(tmp_path) as saved:
        assert saved.run.position == checkpoint.Position()
        assert np.all(saved.value() == 0)
        saved.save(FIRST, 1)
    assert_continues(tmp_path, FIRST, 1)


def test_last_two_are_kept_and_nothing_else(two):
    with Saved(two) as saved:
        saved.save(FIRST, 3)
        saved.save(SECOND, 4)
    assert sorted(os.listdir(two)) == ["checkpoint-000003", "checkpoint-000004", "lock"]
    newest = two / "checkpoint-000004"
    assert (newest / "vocabulary.txt").read_text(encoding="utf-8").split("\n") == [*WORDS, ""]
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=newest).returncode == 0
    assert str(two) not in "".join(path.read_text("latin-1") for path in newest.iterdir())


def test_folder_can_be_moved(two):
    moved = two.rename(two.parent / "elsewhere")
    assert_continues(moved, SECOND, 2)


def test_unfinished_checkpoint_is_removed(two):
    shutil.copytree(two / "checkpoint-000002", two / ".unfinished")
    assert_continues(two, SECOND, 2)
    assert sorted(os.listdir(two)) == ["checkpoint-000001", "checkpoint-000002", "lock"]


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


def test_file_too_many_is_damage(two, capsys):
    (two / "checkpoint-000002" / "more").write_text("")
    assert_continues(two, FIRST, 1)
    assert "more is not what was written" in capsys.readouterr().err


def test_damaged_checkpoint_stays_until_two_whole_ones_follow(two):
    damage(two / "checkpoint-000002" / "run.json", "empty")
    with Saved(two) as saved:
        saved.save(SECOND, 3)
        assert saved.run.position is SECOND
    assert_continues(two, SECOND, 3)
    assert "checkpoint-000001" in os.listdir(two)


def test_nothing_whole_is_an_error(two):
    for number in 1, 2:
        damage(two / f"checkpoint-{number:06d}" / "state.npz", "truncated")
    with pytest.raises(UserError, match="no checkpoint there is whole; train anew"):
        checkpoint.Run(str(two), FACTS, WORDS, 5)
    assert len(os.listdir(two)) == 3


def correct_sum(path):
    """Makes SHA256SUMS agree with a file that was changed."""
    sums = path.parent / "SHA256SUMS"
    lines = [
        f"{checkpoint.sha256_of(path)}  {path.name}" if line.endswith(f"  {path.name}") else line
        for line in sums.read_text().splitlines()
    ]
    sums.write_text("\n".join(lines) + "\n")


RECORDS = {
    "no position": lambda record: record.pop("position"),
    "no facts": lambda record: record.pop("facts"),
    "facts of another kind": lambda record: record.update(facts=[1]),
    "a name too many": lambda record: record["position"].update(more=1),
    "epoch of another kind": lambda record: record["position"].update(epoch="2"),
    "negative step": lambda record: record["position"].update(step=-1),
    "costs of another kind": lambda record: record["position"].update(costs=None),
    "history of another length": lambda record: record["position"].update(history=[]),
    "history of another kind": lambda record: record["position"].update(history=[1, 2]),
    "epochs of another length": lambda record: record["position"].update(history=[[1.0, 2.0]] * 2),
    "a state": lambda record: record["position"].update(state=[]),
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


STATES = {
    "another shape": dict(c0=np.zeros((2, 4), np.float32), h0=np.zeros((2, 4), np.float32)),
    "another number type": dict(c0=np.zeros((2, 3)), h0=np.zeros((2, 3))),
    "a layer too many": dict.fromkeys(["c0", "h0", "c1", "h1"], np.zeros((2, 3), np.float32)),
    "no h": dict(c0=np.zeros((2, 3), np.float32), d0=np.zeros((2, 3), np.float32)),
}


@pytest.mark.parametrize("how", [*STATES, "no archive", "an array alone"])
def test_state_is_checked_even_where_the_checksums_are_right(how, two, capsys):
    path = two / "checkpoint-000002" / "state.npz"
    if how in STATES:
        np.savez(path, **STATES[how])
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


@pytest.mark.parametrize("change, said", [
    ({"seed": 2}, "seed was 1 and is 2"),
    ({"config": {**FACTS["config"], "hidden_size": 2}}, "config.hidden_size was 3 and is 2"),
    ({"config": {"num_layers": 1, "batch_size": 2}}, "config.hidden_size was 3 and is None"),
    ({"corpus": {"ptb.train.txt": "ab"}}, "corpus.ptb.train.txt was None and is 'ab'"),
    ({"seed": 2, "number_type": "float16"},
     "number_type was 'float32' and is 'float16'; seed was 1 and is 2"),
])
def test_another_run_is_refused_and_every_difference_named(change, said, two):
    with pytest.raises(UserError, match=f"{two} has another run: {said}. Use another --save_path"):
        checkpoint.Run(str(two), {**FACTS, **change}, WORDS, 5)


@pytest.mark.parametrize("words, said", [
    (["the", "<eos>", "funf", "<unk>"], "word 2 of the vocabulary was 'fünf' and is 'funf'"),
    ([*WORDS, "more"], "word 4 of the vocabulary was None and is 'more'"),
])
def test_another_vocabulary_is_refused(words, said, two):
    with pytest.raises(UserError, match=f"{two} has another run: {said}. Use another --save_path"):
        checkpoint.Run(str(two), FACTS, words, 5)


@pytest.mark.parametrize("name, said", [
    ("Model/v", r"Model/v has shape \[1000\], not \[7\]"),
    ("Model/w", r"Model/w has shape None, not \[7\]"),
])
def test_variables_of_another_model_are_refused(name, said, two):
    with tf.Graph().as_default(), tf.Session() as session:
        variable = tf.get_variable(name, [7])
        path = f"{two}/checkpoint-000002/model.ckpt"
        with pytest.raises(UserError, match=f"{path}: not the variables of this model: {said}"):
            checkpoint.restore(tf.train.Saver(), session, path, [variable])


def test_mode_epochs_and_version_may_change(two):
    config = {**FACTS["config"], "max_max_epoch": 9}
    run = checkpoint.Run(str(two), {**FACTS, "config": config, "rnn_mode": "basic",
                                    "tensorflow": "3.0"}, WORDS, 5)
    assert run.position.epoch == 2


def test_folder_is_locked_while_a_run_lasts_and_free_when_its_process_dies(tmp_path):
    code = (
        "import sys, time; from ptb import checkpoint\n"
        "run = checkpoint.Run(sys.argv[1], {}, [], 5)\n"
        "print('locked', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout.readline() == "locked\n"
    with pytest.raises(UserError, match=f"{tmp_path}: another process is training there"):
        checkpoint.Run(str(tmp_path), FACTS, WORDS, 5)
    with pytest.raises(UserError, match="another process is training there"):
        checkpoint.set_aside(str(tmp_path))
    process.kill()
    process.wait()
    checkpoint.Run(str(tmp_path), FACTS, WORDS, 5)


def test_what_cannot_be_locked_or_moved_is_named(two, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "rename", refuse)
        with pytest.raises(UserError, match=f"{two} cannot be moved aside: Operation not perm"):
            checkpoint.set_aside(str(two))
    (two / "lock").unlink()
    (two / "lock").mkdir()
    with pytest.raises(UserError, match=f"{two}/lock cannot be locked: Is a directory; use anoth"):
        checkpoint.Run(str(two), FACTS, WORDS, 5)
    with pytest.raises(UserError, match="file/lock cannot be locked: Not a directory"):
        (two / "file").write_text("")
        checkpoint.set_aside(str(two / "file"))


def test_what_may_not_be_read_is_not_damaged(two, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(checkpoint, "sha256_of", refuse)
    with pytest.raises(UserError, match="run.json: Permission denied|: Permission denied; make"):
        checkpoint.Run(str(two), FACTS, WORDS, 5)


def test_finished_run_that_is_trained_on_is_no_longer_finished(two):
    finished = checkpoint.Position(epoch=2, history=EPOCHS, test=6.5)
    with Saved(two) as saved:
        saved.save(finished, 3)
        assert saved.run.is_finished(2) and not saved.run.is_finished(3)
        saved.run.position.step = 1
        saved.run.after_step()
        saved.save(saved.run.position, 4)
    run = checkpoint.Run(str(two), FACTS, WORDS, 5)
    assert run.position.test is None
    assert not run.is_finished(3)
    with pytest.raises(UserError, match="max_max_epoch is 2, and .* is within epoch 3; raise it"):
        run.is_finished(2)


def test_set_aside_keeps_every_earlier_run(two, capsys):
    checkpoint.set_aside(str(two))
    checkpoint.set_aside(str(two))  # nothing there now
    shutil.copytree(f"{two}-old-1", two)
    checkpoint.set_aside(str(two))
    assert sorted(os.listdir(two.parent)) == ["run-old-1", "run-old-2"]
    assert_continues(pathlib.Path(f"{two}-old-1"), SECOND, 2)
    assert capsys.readouterr().out.count("The run in ") == 2


def test_folder_that_went_away_is_named(two):
    with Saved(two) as saved:
        shutil.rmtree(two)
        with pytest.raises(UserError, match=f"cannot save in {two}: No such file"):
            saved.save(FIRST, 3)


def test_facts_are_what_decides_the_numbers(flags, corpus):
    facts = checkpoint.facts(configs.SmallConfig(), corpus, flags)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["config"]["hidden_size"] == 200 and facts["config"]["keep_prob"] == 1.0
    assert set(facts["config"]) == {n for n in dir(configs.SmallConfig) if n[0] != "_"}
    assert set(facts["corpus"]) == {f"ptb.{part}.txt" for part in ("train", "valid", "test")}
    flags.seed, flags.use_fp16 = 5, True
    changed = checkpoint.facts(configs.LargeConfig(), corpus, flags)
    assert (changed["seed"], changed["number_type"]) == (5, "float16")
    assert changed["config"] != facts["config"]
