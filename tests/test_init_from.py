"""A run that starts from the weights and words of another: --init_from."""

import itertools
import os
import shlex
import shutil
import sys
import types

import models
import numpy as np
import pytest
from absl.testing import flagsaver
from conftest import correct_sum, train

import configs
import lstm
from ptb import run
from ptb.plan import make_plan
from ptb.saving import checkpoint, files, identity
from ptb.source import Source
from ptb.terminal.errors import UserError
from ptb.terminal.quiet import tf

# Its learning rate is so small that every weight stays what it was.
StillConfig = type("StillConfig", (models.TinyConfig,), {
    "vocab_size": None, "learning_rate": 1e-30,
})
# With dropout the number of the step counts.
OtherConfig = type("OtherConfig", (models.TinyConfig,), {
    "vocab_size": None, "learning_rate": 0.5, "keep_prob": 0.7, "max_max_epoch": 2,
})


@pytest.fixture(scope="module")
def text(corpus, tmp_path_factory):
    """A folder with another text, in which a word is new and others are missing."""
    folder = tmp_path_factory.mktemp("other")
    for path in corpus.iterdir():
        words = path.read_text().replace("w3 ", "strange ").replace("w5 ", "w1 ")
        (folder / path.name).write_text(words)
    return folder


@pytest.fixture(scope="module")
def begun(trained, text, tmp_path_factory):
    """Where a run is saved that started from `trained` and has done one epoch."""
    out = tmp_path_factory.mktemp("begun")
    config = type("SomeConfig", (OtherConfig,), {"max_max_epoch": 1})
    train(config, text, out, f"--init_from={trained}")
    return out


@pytest.fixture
def source(trained, tmp_path):
    """A copy of `trained`."""
    return shutil.copytree(trained, tmp_path / "source")


def find(init_from, text, out, config=OtherConfig, restart=False):
    """Returns the Source that a run saved in out/some finds, and its configuration."""
    config = type("SomeConfig", (config,), {})()
    args = [f"--data_path={text}", f"--save_path={out}"]
    args += [f"--init_from={init_from}"] if init_from else []
    with flagsaver.flagsaver():
        lstm.FLAGS(["lstm.py", "--config=some", *args, *["--restart"] * restart])
        plan = make_plan(lstm.FLAGS, config)
    return plan.source, plan.config


def weights(path):
    """Returns {name: array} of the model's weights in a checkpoint."""
    return {name: value for name, value in checkpoint.read_variables(str(path)).items()
            if name.startswith("Model/") and value.dtype == np.float32}


def test_new_run_has_the_weights_and_the_words_of_another(trained, text, tmp_path, capsys):
    train(StillConfig, text, tmp_path, f"--init_from={trained}")
    printed = capsys.readouterr().out
    path = trained / "checkpoint-000003"
    assert f"Starting from the weights and the vocabulary of {path}/model.ckpt.\nEpoch" in printed
    models.assert_same(weights(path / "model.ckpt"), weights(models.last_model(tmp_path / "some")))
    found = checkpoint.newest(str(tmp_path / "some"))[0]
    words = (path / "vocabulary.txt").read_text().split()
    assert found.vocabulary == words and "strange" not in words and "w3" in words
    data = f"{found.facts['init_from']}  model.ckpt.data-00000-of-00001\n"
    assert data in (path / "SHA256SUMS").read_text()
    steps = checkpoint.read_variables(found.variables_path)["Model/global_step"]
    train_words = len((text / "ptb.train.txt").read_text().replace("\n", " <eos> ").split())
    assert steps == (train_words // 4 - 1) // 3


def test_run_goes_on_without_its_source(trained, source, text, begun, tmp_path, capsys):
    """With the same command, and the bits of a run never stopped."""
    train(OtherConfig, text, tmp_path / "whole", f"--init_from={source}")
    shutil.copytree(begun, tmp_path / "out")
    shutil.rmtree(source)
    capsys.readouterr()
    train(OtherConfig, text, tmp_path / "out", f"--init_from={source}")
    printed = capsys.readouterr()
    assert "Going on after 1 epoch" in printed.out and "Starting from" not in printed.out
    assert f"--init_from: {source}: no trained model there" in printed.err
    assert "the run goes on without it.\n" in printed.err
    models.assert_same(models.last_saved(tmp_path / "whole"), models.last_saved(tmp_path / "out"))


@pytest.mark.parametrize("state", ["there", "damaged", "not named"])
def test_run_goes_on_whatever_became_of_its_source(state, source, text, begun, capsys):
    if state == "damaged":
        for path in source.glob("checkpoint-*/run.json"):
            path.write_text("{}")
    found, config = find(None if state == "not named" else source, text, begun)
    before = checkpoint.newest(str(begun / "some"))[0]
    assert (found.checksum, found.vocabulary) == (before.facts["init_from"], before.vocabulary)
    assert ("goes on without it" in capsys.readouterr().err) == (state == "damaged")


def test_another_source_is_refused(text, begun, tmp_path):
    other = shutil.copytree(begun / "some", tmp_path / "other")
    model = f"{other}/checkpoint-00000[0-9]/model.ckpt"
    message = f"some has another run: it did not start from {model} .leave out --init_from to go on"
    with pytest.raises(UserError, match=message) as error:
        train(OtherConfig, text, begun, f"--init_from={other}")
    assert "text was another" not in str(error.value)


def test_other_sizes_of_a_source_are_no_reason_to_change_those_of_the_run(text, begun, tmp_path):
    wide = type("WideConfig", (OtherConfig,), {"hidden_size": OtherConfig.hidden_size + 1})
    train(wide, text, tmp_path)
    with pytest.raises(UserError, match="some has another run: .*leave out --init_from to go on"):
        train(OtherConfig, text, begun, f"--init_from={tmp_path}/some")


def test_other_words_have_other_ids_and_the_text_is_not_blamed():
    before = {"ids": {"train": "a"}, "corpus": {"train.txt": "x"}}
    now = {"ids": {"train": "b"}, "corpus": {"train.txt": "x"}, "init_from": "c"}
    found = checkpoint.Checkpoint("path", before, checkpoint.Position(), ["the"])
    message = "^folder has another run: it did not start from there .leave out --init_from to go on"
    with pytest.raises(UserError, match=message):
        identity.refuse_another_run("folder", found, now, Source(["a"], "there", "c"))


def test_run_from_drawn_weights_is_another(trained, source, corpus, tmp_path):
    out = shutil.copytree(trained.parent, tmp_path / "out")
    fields = {"max_max_epoch": 2, "vocab_size": None}
    config = type("SomeConfig", (models.TinyConfig,), fields)
    message = "some has another run: it did not start from .*/source/.* .leave out --init_from to"
    with pytest.raises(UserError, match=message):
        train(config, corpus, out, f"--init_from={source}")


def test_way_on_from_a_run_whose_configuration_was_changed(trained, corpus, tmp_path):
    """The refusal says it, where the sizes are the same."""
    out = shutil.copytree(trained.parent, tmp_path / "out")
    for name, value, is_said in ("learning_rate", 0.5, True), ("hidden_size", 7, False):
        fields = {"max_max_epoch": 2, "vocab_size": None, name: value}
        with pytest.raises(UserError, match=f"has another run: config.{name} was") as error:
            train(type("SomeConfig", (models.TinyConfig,), fields), corpus, out)
        way_on = f"; with another --save_path, --init_from {out}/some starts from its weights"
        assert str(error.value).endswith(way_on) == is_said


@pytest.mark.parametrize("fields, said", [
    ({"hidden_size": 7}, "hidden_size is 6 there and 7 in SomeConfig; make it the same"),
    ({"num_layers": 1, "vocab_size": 99},
     "num_layers is 2 there and 1 in SomeConfig; vocab_size is 31 there and 99 in SomeConfig"),
])
def test_sizes_must_agree(fields, said, trained, text, tmp_path):
    config = type("SomeConfig", (OtherConfig,), fields)
    with pytest.raises(UserError, match=f"^--init_from .*/checkpoint-000003/model.ckpt: {said}"):
        find(trained, text, tmp_path, config)


def test_vocab_size_of_none_is_the_sources(trained, text, begun, tmp_path):
    for init_from, out in (trained, tmp_path), (None, begun):
        found, config = find(init_from, text, out)
        assert config.vocab_size == found.sizes["vocab_size"] == 31
    found, config = find("", text, tmp_path)
    assert (config.vocab_size, found.path, found.checksum) == (len(found.vocabulary), None, None)
    assert "strange" in found.vocabulary


@pytest.mark.parametrize("name, said", [
    ("nothing", "nothing: no trained model there; lstm.py trains one in Out/<config>"),
    ("", "no trained model there"),
    ("some/checkpoint-000009", "checkpoint-000009: no trained model there"),
    ("gs://bucket/run", "gs://bucket/run is an address; name a folder of this machine"),
])
def test_nothing_there(name, said, trained, text, tmp_path):
    path = name if "://" in name else trained.parent / name
    with pytest.raises(UserError, match=said):
        find(path, text, tmp_path)


def test_damaged_source(source, text, tmp_path, capsys):
    (source / "checkpoint-000003" / "run.json").write_text("{}")
    found, _ = find(source, text, tmp_path)
    assert found.path == f"{source}/checkpoint-000002/model.ckpt"
    assert "checkpoint-000003 is damaged" in capsys.readouterr().err
    with pytest.raises(UserError, match="^--init_from: .*000003 is damaged: run.json is not"):
        find(source / "checkpoint-000003", text, tmp_path)
    (source / "checkpoint-000002" / "state.npz").unlink()
    with pytest.raises(UserError, match=f"^--init_from: {source}: no checkpoint there is whole"):
        find(source, text, tmp_path)


@pytest.mark.parametrize("path", ["some", "some/", "some/checkpoint-000003", "link/model.ckpt"])
@pytest.mark.parametrize("flags", [{}, {"restart": True}])
def test_run_in_the_folder_of_its_source(path, flags, trained, text, tmp_path):
    """Nothing is moved aside."""
    out = shutil.copytree(trained.parent, tmp_path / "out")
    os.symlink(out / "some" / "checkpoint-000003", out / "link")
    with pytest.raises(UserError, match="--init_from .* where the new run would be saved; use ano"):
        find(f"{out}/{path}", text, out, **flags)
    assert sorted(os.listdir(out)) == ["link", "some"]


def test_source_that_trains_meanwhile(source, text, tmp_path, monkeypatch):
    """Its checkpoint goes away between the look for the newest one and the reading."""
    really = checkpoint.read_variables

    def slowly(path):
        monkeypatch.setattr(checkpoint, "read_variables", really)
        shutil.move(source / "checkpoint-000003", source / "checkpoint-000004")
        return really(path)

    monkeypatch.setattr(checkpoint, "read_variables", slowly)
    found, _ = find(source, text, tmp_path)
    assert found.path == f"{source}/checkpoint-000004/model.ckpt"


def write_tutorials(folder, values):
    """Writes a checkpoint as the tutorial leaves it, with variables {name: array}."""
    folder.mkdir()
    with tf.Graph().as_default(), tf.Session() as session:
        variables = [tf.get_variable(name, initializer=v) for name, v in values.items()]
        session.run(tf.global_variables_initializer())
        tf.train.Saver(variables).save(session, str(folder / "model.ckpt-12"))
    return folder


def test_checkpoint_of_the_tutorial(trained, corpus, text, tmp_path):
    """It has no vocabulary with it, and takes the one of the corpus to be trained on."""
    values = weights(trained / "checkpoint-000003" / "model.ckpt")
    names = {name: name.replace("basic_lstm_cell", "lstm_cell") for name in values}
    folder = write_tutorials(tmp_path / "old", {names[name]: values[name] for name in values})
    found, _ = find(folder, corpus, tmp_path)
    models.assert_same(found.values, values)
    assert found.path == f"{folder}/model.ckpt-12"
    assert found.checksum == files.sha256_of(f"{found.path}.data-00000-of-00001")
    assert found.vocabulary == checkpoint.newest(str(trained))[0].vocabulary
    large = tmp_path / "large"
    large.mkdir()
    (large / "train.txt").write_text(" ".join(map(str, range(100))))
    with pytest.raises(UserError, match="--init_from: .*large has 10. word types, .* trained on a"):
        find(folder, large, tmp_path)


def test_tutorials_checkpoint_of_other_shapes(trained, corpus, tmp_path):
    values = weights(trained / "checkpoint-000003" / "model.ckpt")
    values["Model/softmax_w"] = values["Model/softmax_w"].T
    folder = write_tutorials(tmp_path / "old", values)
    message = r"model.ckpt-12: not the .* model: Model/softmax_w has shape \[31, 6\], not \[6, 31\]"
    with pytest.raises(UserError, match=message):
        find(folder, corpus, tmp_path)
    del values["Model/softmax_w"]
    folder = write_tutorials(tmp_path / "older", values)
    with pytest.raises(UserError, match="this model: Model/softmax_w has shape None, not"):
        find(folder, corpus, tmp_path)


# A training that diverges.

def spoil(path):
    """Makes the weights in a checkpoint NaN, as earlier versions saved them; returns its folder."""
    values = checkpoint.read_variables(str(path / "model.ckpt"))
    values["Model/softmax_b"][3] = np.nan
    with tf.Graph().as_default(), tf.Session() as session:
        variables = [tf.get_variable(name, initializer=v) for name, v in values.items()]
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver(variables)
        saver.save(session, str(path / "model.ckpt"), write_meta_graph=False, write_state=False)
    for name in "model.ckpt.data-00000-of-00001", "model.ckpt.index":
        correct_sum(path / name)
    return path


def test_source_with_weights_that_are_not_finite(source, text, tmp_path):
    path = spoil(source / "checkpoint-000003")
    message = "000003/model.ckpt has weights that are not finite: its training diverged; name an ea"
    for named in source, path:
        with pytest.raises(UserError, match=message):
            find(named, text, tmp_path)
    assert checkpoint.newest_finite(str(source)).path == f"{source}/checkpoint-000002"
    spoil(source / "checkpoint-000002")
    assert checkpoint.newest_finite(str(source)) is None


def at_each_step(patch, function):
    """Calls function(epochs done, steps done) at the end of every training step of a run."""
    train_pass = run.Training.train_pass

    def train_pass_with_it(training):
        follower = train_pass(training)
        after_step = follower.after_step

        def after_step_with_it(step, *args):
            function(training.position.epoch, step)
            after_step(step, *args)

        follower.after_step = after_step_with_it
        return follower

    patch.setattr(run.Training, "train_pass", train_pass_with_it)


@pytest.mark.parametrize("saved_within_epoch", [
    pytest.param(False, marks=pytest.mark.slow), True,
])
def test_command_that_goes_on_after_a_training_diverged(
    saved_within_epoch, text, tmp_path, monkeypatch, script
):
    """The message has it, with every flag, and it works as it is, once the rate is lowered."""
    out = tmp_path / "an  'odd' name"

    class DivergingConfig(models.TinyConfig):
        vocab_size = None
        max_max_epoch = 2

    seconds = itertools.count()

    def diverge(epoch, step):
        nonlocal seconds
        if saved_within_epoch and (epoch, step) == (1, 3):
            seconds = itertools.count(10**9)  # so that it is time to save
        if (epoch, step) == (1, 5):
            raise FloatingPointError("the cost is nan at step 5 of 60")

    monkeypatch.setattr(configs, "SomeConfig", DivergingConfig, raising=False)
    args = ["--config=some", f"--data_path={text}", "--seed=3", "--rnn_mode=basic", "--restart"]
    with pytest.MonkeyPatch.context() as patch:
        at_each_step(patch, diverge)
        clock = types.SimpleNamespace(perf_counter=lambda: next(seconds) / 1e6)
        patch.setattr(run, "time", clock)
        process = script(*args, f"--save_path={out}")
    assert process.returncode == 2
    (line,) = [line for line in process.stderr.splitlines() if "nan" in line]
    path, where = f"{out}/some/checkpoint-000001", "after 1 epoch and 0 steps"
    if saved_within_epoch:
        where = f"after 1 epoch and 3 steps (that of the best epoch is {path})"
        path = f"{out}/some/checkpoint-000002"
    said = (
        "lstm.py: epoch 2, learning rate 0.500: the cost is nan at step 5 of 60; the last "
        f"checkpoint with finite weights is {path}, {where}; lower learning_rate or max_grad_norm "
        "in configs.py, and start anew from it: "
    )
    assert line.startswith(said)
    python, program, *words = shlex.split(line.removeprefix(said))
    assert (python, os.path.basename(program)) == (sys.executable, "lstm.py")
    assert os.path.isabs(program) and os.path.exists(program)
    monkeypatch.setattr(DivergingConfig, "learning_rate", 0.125)
    monkeypatch.setattr(DivergingConfig, "max_max_epoch", 1)
    process = script(*words)
    assert process.returncode == 0, process.stderr
    assert f"Starting from the weights and the vocabulary of {path}/model.ckpt." in process.stdout
    assert "Epoch: 1 Learning rate: 0.125" in process.stdout
    assert "basic mode, float32, seed 3" in process.stdout
    assert f"Saving model to {out}/some-2/some/checkpoint-000002/model.ckpt." in process.stdout


def test_diverged_before_the_first_checkpoint(trained, text, tmp_path, monkeypatch, script):
    """init_scale decides no weights that come from another model."""

    def diverge(epoch, step):
        raise FloatingPointError("the cost is nan at step 0 of 60")

    monkeypatch.setattr(configs, "SomeConfig", OtherConfig, raising=False)
    at_each_step(monkeypatch, diverge)
    args = ["--config=some", f"--data_path={text}", f"--save_path={tmp_path}"]
    for more, fields in ([], "learning_rate, init_scale or"), ([trained], "learning_rate or"):
        process = script(*args, *(f"--init_from={path}" for path in more))
        assert process.returncode == 2
        assert f"step 0 of 60; lower {fields} max_grad_norm in configs.py\n" in process.stderr


@pytest.mark.parametrize("save_minutes", [0, 5])
def test_weights_that_are_not_finite_are_never_saved(save_minutes, text, tmp_path, monkeypatch):
    """Here the update of the last step of an epoch leaves them so, and no cost shows it."""
    going_on, end_epoch = run.Run.going_on, run.Training.end_epoch
    sessions = []

    def keep_session(self, session, *args):
        sessions.append(session)
        return going_on(self, session, *args)

    def spoil_embedding(*_):
        variable = tf.trainable_variables()[0]
        value = sessions[0].run(variable)
        value[-1] = np.inf  # Of a word that does not occur any more.
        checkpoint.assign(sessions[0], variable, value)

    def spoil_and_end_epoch(self, *args):
        spoil_embedding()
        end_epoch(self, *args)

    monkeypatch.setattr(run.Run, "going_on", keep_session)
    if save_minutes:
        monkeypatch.setattr(run.Training, "end_epoch", spoil_and_end_epoch)
    else:
        at_each_step(monkeypatch, spoil_embedding)
    args = [f"--save_minutes={save_minutes}"]
    message = "epoch 1, .*: Model/embedding is not finite any more; lower learning_rate, init_scale"
    with pytest.raises(UserError, match=message):
        train(OtherConfig, text, tmp_path, *args)
    assert not list((tmp_path / "some").glob("checkpoint-*"))
