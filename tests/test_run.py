"""A run in its folder: opened, refused, followed, stopped; and its session."""

import errno
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import types

import models
import numpy as np
import pytest
from conftest import ROOT, Killed, history_rows, points, train

import configs
from ptb import run
from ptb.dataset import Corpus
from ptb.plan import Plan
from ptb.saving import checkpoint, identity
from ptb.source import Source
from ptb.terminal import progress
from ptb.terminal.errors import Stopped, UserError
from ptb.terminal.quiet import tf
from ptb.terminal.stop_request import StopRequest

EPOCH_SIZE, VALID_SIZE = 60, 4


def flags_for(out, **others):
    """Returns flags like those of lstm.py."""
    defaults = {"config": "some", "save_path": str(out), "restart": False, "save_minutes": 5,
                "use_fp16": False, "use_bf16": False, "rnn_mode": "fused", "seed": 1,
                "init_from": ""}
    return types.SimpleNamespace(**{**defaults, **others})


def opened(out, corpus, epochs=3, vocabulary=("the", "fünf"), kind="own", **flags):
    """Returns run.open_run for a TinyConfig."""
    config = models.TinyConfig()
    config.max_max_epoch = epochs
    plan = Plan(
        flags_for(out, **flags), config, Corpus(str(corpus), kind), Source(list(vocabulary))
    )
    texts = [np.array([0, 1], np.int32)] * 3
    return run.open_run(plan, (*texts, len(vocabulary)))


def follow(out, corpus, stop=None, ask=None, **options):
    """Trains in name only: each step costs 3 nats and more, and the one variable counts the steps.

    Every epoch has a lower valid perplexity than the one before.

    Args:
      out, corpus, options: see opened.
      stop: (epoch, step) at which the process is killed.
      ask: (epoch, step) at which SIGTERM comes.

    Returns the final Position.
    """
    with opened(out, corpus, **options) as this_run, tf.Graph().as_default():
        steps = tf.get_variable("steps", initializer=0.0)
        count = steps.assign_add(1.0)
        model = types.SimpleNamespace(
            input=types.SimpleNamespace(epoch_size=EPOCH_SIZE, batch_size=4, num_steps=3),
            lr=tf.constant(0.25, name="of_this_graph"),
        )
        valid = types.SimpleNamespace(input=types.SimpleNamespace(epoch_size=VALID_SIZE))
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            with this_run.going_on(session, model, valid) as training:
                assert session.run(steps) == training.position.epoch * EPOCH_SIZE + (
                    training.position.step
                )
                for epoch in training.epochs_left():
                    follower = training.train_pass()
                    costs = follower.costs
                    for step in range(follower.step, EPOCH_SIZE):
                        if (epoch, step) == stop:
                            raise Killed
                        if (epoch, step) == ask:
                            os.kill(os.getpid(), signal.SIGTERM)
                        session.run(count)
                        costs += 3.0 + step
                        follower.after_step(step + 1, 3.0 + step, costs, None)
                    follower = training.valid_pass()
                    for step in range(VALID_SIZE):
                        follower.after_step(step + 1, 3.0, 3.0 * (step + 1), None)
                    if (epoch, EPOCH_SIZE) == stop:
                        raise Killed
                    training.end_epoch(0.25, 9.5, math.exp(2 - epoch))
                training.after_test_step()
                training.finish(6.5, None)
                return training.position


def test_event_files_hold_the_articles_curves(tmp_path, corpus):
    follow(tmp_path, corpus, epochs=2)
    curves, graphs = points(tmp_path / "some")
    expected = [(epoch * 60 + step + 1, 3.0 + step) for epoch in (0, 1) for step in range(60)]
    assert curves.pop("Training Loss") == expected
    assert curves == {
        "Learning Rate": [(60, 0.25), (120, 0.25)],
        "Validation Loss": [(60, 6.0), (120, 3.0)],  # 2 nats a word and 1, 3 words a step
        "Train Perplexity": [(1, 9.5), (2, 9.5)],
        "Valid Perplexity": [(1, pytest.approx(math.e**2)), (2, pytest.approx(math.e))],
    }
    assert graphs == 1


def test_about_a_hundred_losses_an_epoch(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr(run, "LOSSES_AN_EPOCH", 20)
    follow(tmp_path, corpus, epochs=1)
    steps = [step for step, _ in points(tmp_path / "some")[0]["Training Loss"]]
    assert steps == list(range(3, 61, 3))


@pytest.mark.parametrize("kill, saved", [
    ((1, 47), (1, 20)), ((1, 47), None), ((0, 30), None), ((1, 10), (1, 9)), ((2, 60), None),
])
def test_resumed_run_goes_on_without_overlap(kill, saved, tmp_path, corpus, capsys):
    """It was killed at `kill`, when its last checkpoint was that after the step `saved`."""
    follow(tmp_path / "unbroken", corpus)
    if saved:
        with pytest.raises(Stopped):
            follow(tmp_path / "broken", corpus, ask=saved)
    with pytest.raises(Killed):
        follow(tmp_path / "broken", corpus, stop=kill)
    folder = tmp_path / "broken" / "some"
    earlier = max(folder.glob("events.*"))
    with open(earlier, "ab") as file:
        file.write(b"a torn end of a file")
    position = follow(tmp_path / "broken", corpus)
    assert f"{earlier} is damaged: the curves' points after that" in capsys.readouterr().err
    assert points(folder) == points(tmp_path / "unbroken" / "some")
    assert history_rows(folder) == history_rows(tmp_path / "unbroken" / "some")
    assert (position.epoch, position.step, position.test) == (3, 0, 6.5)


def test_speed_and_seconds_of_an_epoch(tmp_path, corpus, monkeypatch):
    """Half a second each of 60 steps and 4 of validation; 12 words a step."""
    now = [100.0]

    def passing():
        now[0] += 0.25  # The clock is read twice a step: by the follower, and to save when due.
        return now[0]

    monkeypatch.setattr(run, "time", types.SimpleNamespace(perf_counter=passing))
    result = follow(tmp_path, corpus, epochs=1).history[0]
    assert result.words_per_second == pytest.approx(24, rel=0.02)
    assert result.seconds == pytest.approx(32, rel=0.02)


def test_history_is_complete_again_after_it_was_lost(tmp_path, corpus, capsys):
    follow(tmp_path, corpus, epochs=2)
    path = tmp_path / "some" / "history.csv"
    before = path.read_bytes()
    path.unlink()
    with opened(tmp_path, corpus, epochs=2) as this_run:
        assert this_run.is_finished
        this_run.show_results()
    assert path.read_bytes() == before
    printed = capsys.readouterr().out
    assert "Test Perplexity: 6.500" in printed and "raise max_max_epoch" in printed


def test_finished_run_that_is_trained_on_is_no_longer_finished(tmp_path, corpus):
    follow(tmp_path, corpus, epochs=2)
    with opened(tmp_path, corpus, epochs=3) as this_run:
        assert not this_run.is_finished and this_run.position.test == 6.5
    with pytest.raises(Stopped):
        follow(tmp_path, corpus, epochs=3, ask=(2, 5))
    with opened(tmp_path, corpus, epochs=3) as this_run:
        assert not this_run.is_finished
        assert (this_run.position.step, this_run.position.test) == (6, None)
    with pytest.raises(UserError, match="max_max_epoch is 2, and .* is within epoch 3; raise it"):
        with opened(tmp_path, corpus, epochs=2):
            pass
    assert follow(tmp_path, corpus, epochs=3).epoch == 3


@pytest.mark.parametrize("lacks_test", [False, True])
def test_run_with_more_epochs_than_are_asked_for_says_so(lacks_test, tmp_path, corpus, capsys):
    follow(tmp_path, corpus, epochs=2)
    if lacks_test:
        shutil.rmtree(tmp_path / "some" / "checkpoint-000003")
    capsys.readouterr()
    said = "Nothing is left to train: epochs done 2, max_max_epoch 1."
    if lacks_test:
        assert follow(tmp_path, corpus, epochs=1).epoch == 2
    else:
        with opened(tmp_path, corpus, epochs=1) as this_run:
            this_run.show_results()
    printed = capsys.readouterr().out
    assert said in printed and "Going on" not in printed
    with opened(tmp_path, corpus, epochs=2) as this_run:
        this_run.show_results()
    assert said not in capsys.readouterr().out


def test_run_that_lacks_its_test_only_is_not_finished(tmp_path, corpus):
    """It was killed between the last epoch and the end of the test."""
    follow(tmp_path, corpus, epochs=2)
    shutil.rmtree(tmp_path / "some" / "checkpoint-000003")
    with opened(tmp_path, corpus, epochs=2) as this_run:
        assert this_run.position.epoch == 2 and not this_run.is_finished
    assert follow(tmp_path, corpus, epochs=2).test == 6.5


@pytest.mark.parametrize("restart, said", [
    (False, "stopped; the same command goes on from"),
    (True, "stopped; the same command without --restart goes on from"),
])
def test_stopped_run_says_how_it_goes_on(restart, said, tmp_path, corpus):
    with pytest.raises(Stopped, match=f"{said} {tmp_path}/some/checkpoint-000001$") as stopped:
        follow(tmp_path, corpus, ask=(0, 7), restart=restart)
    assert stopped.value.signum == signal.SIGTERM
    with opened(tmp_path, corpus) as this_run:
        assert this_run.position.step == 8
        assert this_run.position.costs == sum(3.0 + step for step in range(8))


def test_saves_when_it_is_time(tmp_path, corpus):
    with pytest.raises(Killed):
        follow(tmp_path, corpus, save_minutes=0, stop=(0, 9))
    with opened(tmp_path, corpus) as this_run:
        assert this_run.position.step == 9
    assert len(list((tmp_path / "some").glob("checkpoint-*"))) == 2


def test_sample_has_a_folder_of_its_own_and_says_so(tmp_path, corpus, capsys):
    follow(tmp_path, corpus, kind="sample")
    assert os.listdir(tmp_path) == ["some-sample"]
    assert "(on the sample corpus: compares with nothing published)" in capsys.readouterr().out


# Output that cannot be written.

class Lost(io.StringIO):
    """A stdout or stderr that fails with an error number at a text, and from there on."""

    def __init__(self, number, text=""):
        super().__init__()
        self.number, self.text, self.lost = number, text, False

    def write(self, text):
        self.lost = self.lost or self.text in text
        if self.lost:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)

    def isatty(self):
        return True


@pytest.mark.parametrize("number, said, status", [
    (errno.EPIPE, "Broken pipe", 141), (errno.EIO, "Input/output error", 141),
    (errno.ENOSPC, "No space left on device", 2),
])
def test_run_whose_output_is_lost_is_saved_and_stopped(
    number, said, status, tmp_path, corpus, monkeypatch
):
    monkeypatch.setattr(sys, "stdout", Lost(number))
    said = rf"^the output cannot be written \({said}\); stopped; the same command goes on from "
    with pytest.raises((Stopped, UserError), match=said) as ended:
        follow(tmp_path, corpus)
    assert (2 if ended.type is UserError else 128 + ended.value.signum) == status
    monkeypatch.undo()
    with opened(tmp_path, corpus) as this_run:
        assert this_run.position.step == 1


def test_signal_counts_where_the_output_is_lost_as_well(tmp_path, corpus, monkeypatch):
    """As after Ctrl-C in `python lstm.py … | tee log`, which ends both."""
    monkeypatch.setattr(sys, "stdout", Lost(errno.EPIPE))
    with pytest.raises(Stopped, match="^stopped; the same command goes on from") as stopped:
        follow(tmp_path, corpus, ask=(0, 0))
    assert stopped.value.signum == signal.SIGTERM


def test_output_that_is_lost_at_the_end_of_a_run(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Lost(errno.EPIPE, "on the sample corpus"))
    with pytest.raises(Stopped, match=r"\(Broken pipe\); the run in .* is finished$") as stopped:
        follow(tmp_path, corpus, kind="sample")
    assert stopped.value.signum == 13
    monkeypatch.undo()
    with opened(tmp_path, corpus, kind="sample") as this_run:
        assert this_run.is_finished


def test_nobody_needs_stderr(tmp_path, corpus, monkeypatch):
    """Here a terminal that was closed, while a live line is to be drawn there."""
    monkeypatch.setattr(progress, "PATIENCE", 0)
    monkeypatch.setattr(progress, "INTERVAL", 0)
    monkeypatch.setattr(sys, "stderr", Lost(errno.EIO, "Epoch 1"))
    assert follow(tmp_path, corpus).test == 6.5
    assert sys.stderr.lost


# Too little memory.

def test_model_that_is_larger_than_the_memory_is_refused(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr(models.TinyConfig, "hidden_size", 10**9)
    message = (
        r"^the weights of TinyConfig need 59,604,[\d,]+\.\d GiB of memory, and this machine has "
        r"[\d,.]+ GiB; lower hidden_size, num_layers or vocab_size in configs.py$"
    )
    with pytest.raises(UserError, match=message), opened(tmp_path, corpus):
        pass
    assert os.listdir(tmp_path) == []


def test_size_of_a_model_is_that_of_its_variables():
    config = models.TinyConfig()
    with models.built(config, [1] * 100, count=1) as (session, _):
        sizes = [variable.size for variable in models.variables(session).values()]
    assert Plan(None, config, None, None).num_weights == sum(sizes)


def allocate_in_tensorflow():
    """Raises what TensorFlow does, which tries for ten seconds before."""
    raise tf.errors.ResourceExhaustedError(
        None, None,
        "Graph execution error:\n\nDetected at node 'kernel/Assign' defined at:\n  File lstm.py\n"
        "OOM when allocating tensor with shape[50000,100000] and type float on /job:localhost/"
        "replica:0/task:0/device:CPU:0 by allocator cpu\n\t [[{{node kernel/Assign}}]]\nHint: If"
    )


def allocate_in_numpy():
    np.zeros((1 << 20, 1 << 20, 1 << 9), np.float32)


@pytest.mark.parametrize("allocate, needed", [
    (allocate_in_tensorflow, r"OOM when allocating tensor with shape\[50000,100000\] and type"),
    (allocate_in_numpy, "Unable to allocate 2.00 PiB for an array with shape"),
])
def test_memory_that_is_not_there(allocate, needed, tmp_path, corpus):
    """The fields are named at first; those of a run that is saved cannot be changed any more."""
    lower = "the weights of TinyConfig need 0.0 GiB, and as much again for their gradients: lower h"
    with pytest.raises(UserError, match=rf"^out of memory \({needed}.*\); {lower}"):
        with opened(tmp_path, corpus):
            allocate()
    with pytest.raises(Stopped):
        follow(tmp_path, corpus, ask=(0, 7))
    message = rf"^out of memory \({needed}.*\); end other programs; the same command goes on from "
    with pytest.raises(UserError, match=message), opened(tmp_path, corpus):
        allocate()


# What is refused.

@pytest.mark.parametrize("change, said", [
    ({"seed": 2}, "seed was 1 and is 2"),
    ({"use_fp16": True}, "number_type was 'float32' and is 'float16'"),
    ({"seed": 2, "use_fp16": True},
     "number_type was 'float32' and is 'float16'; seed was 1 and is 2"),
    ({"vocabulary": ["the", "funf"]}, "word 1 of the vocabulary was 'fünf' and is 'funf'"),
    ({"vocabulary": ["the", "fünf", "more"]}, "word 2 of the vocabulary was None and is 'more'"),
])
def test_another_run_is_refused_and_every_difference_named(change, said, tmp_path, corpus):
    with pytest.raises(Stopped):
        follow(tmp_path, corpus, ask=(0, 7))
    message = f"{tmp_path}/some has another run: {said}. Use another --save_path, or --restart"
    with pytest.raises(UserError, match=message):
        with opened(tmp_path, corpus, **change):
            pass


@pytest.mark.parametrize("before, now, said", [
    ({"config": {"hidden_size": 3}}, {"config": {"hidden_size": 2}},
     "config.hidden_size was 3 and is 2"),
    ({"config": {"hidden_size": 3}}, {"config": {}}, "config.hidden_size was 3 and is None"),
    ({"corpus": {"train.txt": "a"}}, {"corpus": {"train.txt": "b"}, "ids": {"train": "c"}},
     "the texts were others"),
    ({"ids": {"train": "a", "valid": "b"}}, {"ids": {"train": "a", "valid": "c"}},
     "the valid text was another one"),
])
def test_differences_have_their_full_names(before, now, said):
    found = checkpoint.Checkpoint("path", before, checkpoint.Position(), ["the"])
    with pytest.raises(UserError, match=f"folder has another run: {said}. Use"):
        identity.refuse_another_run("folder", found, now, Source(["the"]))


@pytest.mark.parametrize("fields, changed_text, said", [
    ({"vocab_size": 20}, None, "config.vocab_size was 30 and is 20"),
    ({"vocab_size": 20, "num_steps": 4}, None,
     "config.num_steps was 3 and is 4; config.vocab_size was 30 and is 20"),
    ({"vocab_size": 20}, "test", "config.vocab_size was 30 and is 20; the texts were others"),
    ({}, "train", "the texts were others"),
    ({}, "valid", "the valid text was another one"),
])
def test_only_what_was_changed_is_named(fields, changed_text, said, tmp_path, corpus):
    """Another vocab_size gives the words of the same texts other ids."""
    text = shutil.copytree(corpus, tmp_path / "text")
    config = type("SomeConfig", (models.TinyConfig,), {"max_max_epoch": 1})
    train(config, text, tmp_path)
    if changed_text:
        path = text / f"ptb.{changed_text}.txt"
        path.write_text("w3 a new word\n" * 20 + path.read_text())
    with pytest.raises(UserError, match=f"^{tmp_path}/some has another run: {said}. Use another"):
        train(type("SomeConfig", (config,), fields), text, tmp_path)


@pytest.mark.parametrize("space", ["\u3000", "\u00a0", "\u2028", "\ufeff"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_first_releases_run_on_a_text_that_is_read_otherwise_now(
    part, space, tmp_path, corpus, monkeypatch
):
    text = shutil.copytree(corpus, tmp_path / "text")
    with open(text / f"ptb.{part}.txt", "a", encoding="utf-8") as file:
        file.write(f"w1{space}w2\n")
    with pytest.raises(Stopped):
        follow(tmp_path, text, ask=(0, 7))
    with opened(tmp_path, text):
        pass  # A run of this release goes on.
    newest = checkpoint.newest

    def of_the_first_release(*args):
        found, damaged = newest(*args)
        facts = {name: value for name, value in found.facts.items() if name != "ids"}
        return found._replace(facts=facts), damaged

    monkeypatch.setattr(checkpoint, "newest", of_the_first_release)
    with pytest.raises(UserError, match=f"is of the first release, which split .*{part}.txt at no"):
        with opened(tmp_path, text):
            pass


def test_interval_that_is_no_number_is_refused(tmp_path, corpus):
    with pytest.raises(UserError, match="--save_minutes is nan"):
        with opened(tmp_path, corpus, save_minutes=math.nan):
            pass


def test_mode_epochs_and_version_may_change(tmp_path, corpus, monkeypatch):
    with pytest.raises(Stopped):
        follow(tmp_path, corpus, ask=(0, 7))
    monkeypatch.setattr(tf, "__version__", "3.0")
    with opened(tmp_path, corpus, rnn_mode="basic", epochs=9) as this_run:
        assert this_run.position.step == 8


@pytest.mark.parametrize("before, now", [
    ({"corpus": {"train.txt": "a"}}, {"corpus": {"ptb.train.txt": "a"}, "ids": {"train": "c"}}),
    ({"corpus": {"train.txt": "a"}, "ids": {"train": "c"}},
     {"corpus": {"train.txt": "b"}, "ids": {"train": "c"}}),
], ids=["other names, of the first release", "other bytes, the same ids"])
def test_same_text_is_the_same_run(before, now):
    found = checkpoint.Checkpoint("path", before, checkpoint.Position(), ["the"])
    identity.refuse_another_run("folder", found, now, Source(["the"]))


def test_facts_are_what_decides_the_numbers(corpus):
    raw_data = [1, 2], [3], [4], 9
    text, source = Corpus(str(corpus), "own"), Source(["the"])
    facts = Plan(flags_for("Out"), configs.SmallConfig(), text, source).facts(raw_data)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["config"]["hidden_size"] == 200 and facts["config"]["keep_prob"] == 1.0
    assert set(facts["config"]) == {n for n in dir(configs.SmallConfig) if n[0] != "_"}
    assert set(facts["corpus"]) == {f"ptb.{part}.txt" for part in ("train", "valid", "test")}
    assert set(facts["ids"]) == {"train", "valid", "test"}
    flags = flags_for("Out", seed=5, use_fp16=True)
    changed = Plan(flags, configs.LargeConfig(), text, source).facts(([1, 2], [3], [5], 9))
    same = [changed["ids"][part] == facts["ids"][part] for part in facts["ids"]]
    assert same == [True, True, False]
    assert (changed["seed"], changed["number_type"]) == (5, "float16")
    assert changed["config"] != facts["config"]


def test_nothing_whole_is_an_error_and_nothing_is_removed(tmp_path, corpus):
    with pytest.raises(Stopped):
        follow(tmp_path, corpus, ask=(0, 7))
    (state,) = tmp_path.glob("some/checkpoint-*/state.npz")
    state.write_bytes(b"")
    with pytest.raises(UserError, match="no checkpoint there is whole; train anew: --restart"):
        with opened(tmp_path, corpus):
            pass
    assert state.exists()


def test_folder_is_locked_while_a_run_lasts_and_free_when_its_process_dies(tmp_path, corpus):
    code = (
        "import sys, time; from ptb.saving import files\n"
        "with files.lock(sys.argv[1]):\n"
        "    print('locked', flush=True); time.sleep(60)"
    )
    (tmp_path / "some").mkdir()
    command = [sys.executable, "-c", code, tmp_path / "some"]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "locked\n"
    for restart in False, True:
        with pytest.raises(UserError, match=f"{tmp_path}/some: another process is training there"):
            with opened(tmp_path, corpus, restart=restart):
                pass
    process.kill()
    process.wait()
    process.stdout.close()
    with opened(tmp_path, corpus):
        pass


def test_folder_that_went_away_is_named(tmp_path, corpus):
    with opened(tmp_path, corpus) as this_run:
        (tmp_path / "some").rename(tmp_path / "moved")
        for there in False, True:
            if there:  # Another run has begun meanwhile.
                (tmp_path / "some").mkdir()
            with pytest.raises(UserError, match=f"{tmp_path}/some was moved or deleted while"):
                this_run.save(checkpoint.Position(), {})
    assert os.listdir(tmp_path / "some") == []


def test_no_run_is_saved_within_another(tmp_path, corpus):
    follow(tmp_path, corpus)
    *_, path = tmp_path.glob("some/checkpoint-*")
    for folder, why in (
        (tmp_path / "some", "is the folder of a run itself; name the one that it is in"),
        (path / "a", "is in a checkpoint, which its run will remove; name another"),
    ):
        with pytest.raises(UserError, match=f"--save_path: {folder} {why}"):
            with opened(folder, corpus):
                pass
        assert not (folder / "some").exists()


def test_what_cannot_be_written_is_named(tmp_path, corpus):
    (tmp_path / "some" / "history.csv").mkdir(parents=True)
    (tmp_path / "some" / "history.csv" / "of").write_text("somebody")
    with pytest.raises(UserError, match=f"cannot save in {tmp_path}/some: Is a directory; no chec"):
        follow(tmp_path, corpus)


def test_message_promises_only_what_is_there(tmp_path, corpus):
    error = tf.errors.ResourceExhaustedError(
        None, None,
        f"Graph execution error:\n\n{tmp_path}/model.ckpt; No space left on device\n[[node save]]",
    )
    for there in "no checkpoint is there yet", "the last whole checkpoint stays, and the same comm":
        with opened(tmp_path, corpus) as this_run:
            message = f"^cannot save in {tmp_path}/some: No space left on device; {there}"
            with pytest.raises(UserError, match=message), this_run.saving():
                raise error
        if "yet" in there:
            with pytest.raises(Stopped):
                follow(tmp_path, corpus, ask=(0, 7))


def test_event_file_that_may_not_be_read_stays(tmp_path, corpus, monkeypatch):
    with pytest.raises(Stopped):
        follow(tmp_path, corpus, ask=(0, 7))

    def refuse(path):
        raise tf.errors.PermissionDeniedError(None, None, f"{path}; Permission denied")

    before = {path: path.read_bytes() for path in tmp_path.glob("some/events.*")}
    monkeypatch.setattr(tf.train, "summary_iterator", refuse)
    with pytest.raises(UserError, match=f"cannot save in {tmp_path}/some: Permission denied; the"):
        follow(tmp_path, corpus)
    assert before == {path: path.read_bytes() for path in tmp_path.glob("some/events.*")}


# The session.

def test_out_of_range_is_a_failure():
    with tf.Graph().as_default():
        data = tf.data.make_one_shot_iterator(tf.data.Dataset.range(1)).get_next()
        tf.get_variable("v", initializer=3.0)
        with pytest.raises(RuntimeError, match="out of range"):
            with run.Supervisor().managed_session() as session:
                session.run(data)
                session.run(data)


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError, tf.errors.DataLossError])
def test_other_errors_pass_unchanged(error):
    args = (None, None, "message") if error is tf.errors.DataLossError else ("message",)
    with tf.Graph().as_default():
        tf.get_variable("v", initializer=3.0)
        with pytest.raises(error, match="message"):
            with run.Supervisor().managed_session():
                raise error(*args)


def test_variables_are_initialized_and_no_thread_is_started():
    with tf.Graph().as_default():
        variable = tf.get_variable("v", initializer=3.0)
        tf.summary.scalar("s", variable)
        supervisor = run.Supervisor()
        threads = set(threading.enumerate())
        with supervisor.managed_session() as session:
            assert session.run(variable) == 3.0
            assert not [t for t in threading.enumerate() if t not in threads]


def test_operation_without_a_kernel_for_its_device_still_runs():
    with tf.Graph().as_default():
        tf.get_variable("v", initializer=3.0)
        with tf.device("/gpu:7"):
            value = tf.constant(2.0) * 3
        with run.Supervisor().managed_session() as session:
            assert session.run(value) == 6.0


# Signals.

@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_signals_ask_to_stop_unless_they_were_ignored(name):
    signum = getattr(signal, name)
    before = signal.signal(signum, signal.default_int_handler)
    try:
        with StopRequest() as stop_request:
            os.kill(os.getpid(), signum)
            assert stop_request.signum == signum
        assert signal.getsignal(signum) == signal.default_int_handler
        signal.signal(signum, signal.SIG_IGN)
        with StopRequest() as stop_request:
            os.kill(os.getpid(), signum)
            assert stop_request.signum is None
    finally:
        signal.signal(signum, before)


def test_outside_the_main_thread_no_signal_is_asked_for():
    signums = []

    def enter():
        with StopRequest() as stop_request:
            signums.append(stop_request.signum)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert signums == [None]


def test_second_ctrl_c_leaves_at_once():
    """Here while the first waits for the end of a step that never comes."""
    process = os.fork()
    if not process:  # It asks nothing of TensorFlow.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        with StopRequest() as stop_request:
            os.kill(os.getpid(), signal.SIGINT)
            if stop_request.signum == signal.SIGINT:
                os.kill(os.getpid(), signal.SIGINT)
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGINT
