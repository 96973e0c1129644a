"""The best epoch of a run: kept, tested at its end, named, and asked."""

import json
import os
import re
import shutil
import signal

import models
import numpy as np
import pytest
from conftest import Killed, correct_sum, history_rows, train, write_corpus

from ptb import language_model, run
from ptb.language_model import LanguageModel
from ptb.saving import checkpoint
from ptb.terminal.errors import Stopped, UserError

FIELDS = {"hidden_size": 20, "init_scale": 0.2, "max_epoch": 9, "max_max_epoch": 4,
          "vocab_size": None}
OverfittedConfig = type("OverfittedConfig", (models.TinyConfig,), FIELDS)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A folder with a text that is too short to train on for four epochs."""
    return write_corpus(tmp_path_factory.mktemp("text"), train_lines=60)


@pytest.fixture(scope="module")
def overfitted(text, tmp_path_factory):
    """The folder in which a run is saved whose best epoch is the second of four."""
    out = tmp_path_factory.mktemp("overfitted")
    train(OverfittedConfig, text, out)
    return out


@pytest.fixture
def out(overfitted, tmp_path):
    """A copy of it."""
    return shutil.copytree(overfitted, tmp_path / "out")


def best_line(printed):
    """Returns (epoch, valid, test, path) of the only line that names the best epoch."""
    (line,) = [line for line in printed.splitlines() if line.startswith("Best epoch")]
    return re.fullmatch(
        r"Best epoch: (\d+), valid perplexity (\S+), test perplexity (\S+), in (.*)", line
    ).groups()


def last_test(printed):
    (perplexity,) = re.findall("^Test Perplexity: (.*)$", printed, re.MULTILINE)
    return perplexity


def test_run_names_the_best_epoch_and_its_figures(text, out, capsys):
    """They are those that its checkpoint has; the last epoch's stay in the last checkpoint."""
    train(OverfittedConfig, text, out)
    printed = capsys.readouterr().out
    epoch, valid, test, path = best_line(printed)
    rows = history_rows(out / "some")
    assert [row["best"] for row in rows] == ["0", "1", "0", "0"]
    perplexities = [float(row["valid_perplexity"]) for row in rows]
    assert (int(epoch), float(valid)) == (2, pytest.approx(min(perplexities), abs=1e-3))
    assert path == f"{out}/some/checkpoint-000002"
    assert sorted(os.listdir(out / "some"))[:3] == [f"checkpoint-00000{n}" for n in (2, 4, 5)]
    test_words = (text / "ptb.test.txt").read_text()
    for best, expected in (True, test), (False, last_test(printed)):
        with LanguageModel.load(str(out / "some"), best=best) as model:
            log_probs, counts, _ = zip(*model.score(test_words, stream=True))
            assert f"{np.exp(-sum(log_probs) / sum(counts)):.3f}" == expected
            state = f"epoch 2, the best, valid perplexity {valid}" if best else "epoch 4, test "
            assert state in model.description
    assert test != last_test(printed)
    last, before = (checkpoint.read(str(out / "some" / f"checkpoint-00000{n}")) for n in (5, 4))
    models.assert_same(models.saved(before.variables_path), models.saved(last.variables_path))
    assert f"{last.position.best_test:.3f}" == test


def test_nothing_is_said_where_the_last_epoch_is_the_best(text, tmp_path, capsys):
    train(type("SomeConfig", (OverfittedConfig,), {"max_max_epoch": 2}), text, tmp_path)
    assert "Best" not in capsys.readouterr().out
    names = sorted(name for name in os.listdir(tmp_path / "some") if name.startswith("checkp"))
    assert names == ["checkpoint-000002", "checkpoint-000003"]
    with LanguageModel.load(str(tmp_path / "some"), best=True) as model:
        assert "checkpoint-000003: 2 x 20 units, epoch 2, the best, valid " in model.description


@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_run_that_ends_in_the_best_epochs_test_goes_on(
    end, text, overfitted, out, monkeypatch, capsys
):
    shutil.rmtree(out / "some" / "checkpoint-000005")
    really = run.text_perplexity  # of the best epoch; that of the last one is lstm.py's

    def stop(*args):
        if end == "killed":
            raise Killed
        os.kill(os.getpid(), signal.SIGTERM)
        return really(*args)

    monkeypatch.setattr(run, "text_perplexity", stop)
    before = f"{out}/some/checkpoint-000004"
    with pytest.raises((Killed, Stopped)) as ended:
        train(OverfittedConfig, text, out)
    assert end == "killed" or str(ended.value).endswith("goes on from " + before)
    assert "Best" not in capsys.readouterr().out
    assert not (out / "some" / "checkpoint-000005").exists()  # Its variables would be the best's.
    monkeypatch.undo()
    train(OverfittedConfig, text, out)
    printed = capsys.readouterr().out
    train(OverfittedConfig, text, overfitted)
    expected = capsys.readouterr().out
    assert best_line(printed)[:3] == best_line(expected)[:3]
    assert last_test(printed) == last_test(expected)
    models.assert_same(models.last_saved(overfitted), models.last_saved(out))


def test_finished_run_of_the_first_release(text, out, capsys):
    """It kept the last two checkpoints only, and knew of no best epoch."""
    shutil.rmtree(out / "some" / "checkpoint-000002")
    for path in (out / "some").glob("checkpoint-*/run.json"):
        record = json.loads(path.read_text())
        del record["position"]["best_test"]
        path.write_text(json.dumps(record))
        correct_sum(path)
    train(OverfittedConfig, text, out)
    printed = capsys.readouterr().out
    assert re.search(
        r"^Test Perplexity: \S+\nBest epoch: 2, valid perplexity \d+\.\d+, of which no whole "
        r"checkpoint is left\nTo train on", printed, re.MULTILINE
    )
    with pytest.raises(UserError, match="some: no whole checkpoint of the best epoch, 2, is there"):
        LanguageModel.load(str(out / "some"), best=True)


def test_damaged_best_epoch_does_not_keep_a_run_from_its_end(text, out, capsys):
    """It was damaged after the run had been killed at the end of the last epoch."""
    shutil.rmtree(out / "some" / "checkpoint-000005")
    (out / "some" / "checkpoint-000002" / "state.npz").write_bytes(b"")
    train(OverfittedConfig, text, out)
    printed = capsys.readouterr()
    assert "checkpoint-000002 is damaged: state.npz is not" in printed.err
    assert "Best epoch: 2, valid perplexity 15.668, of which no whole" in printed.out
    assert "checkpoint-000005/model.ckpt." in printed.out


def test_run_that_is_trained_on_forgets_the_tests_and_keeps_the_best_epoch(text, out, capsys):
    longer = type("SomeConfig", (OverfittedConfig,), {"max_max_epoch": 5})
    train(longer, text, out)
    epoch, _, test, path = best_line(capsys.readouterr().out)
    assert (epoch, path) == ("2", f"{out}/some/checkpoint-000002")
    found, _ = checkpoint.newest(str(out / "some"))
    assert found.position.epoch == 5 and f"{found.position.best_test:.3f}" == test


def test_best_epoch_is_asked_from_the_command_line(out, capsys):
    answers = []
    for args in [], ["--best"]:
        for command in ["next"], ["generate", "--words", "5"]:
            language_model.main([*command, str(out / "some"), "--prompt", "w1", *args])
        answers.append(capsys.readouterr())
    assert answers[0].out != answers[1].out
    assert "checkpoint-000002: 2 x 20 units, epoch 2, the best, valid" in answers[1].err


def test_best_epoch_of_what_is_no_run(overfitted, tmp_path):
    for path in (overfitted / "some" / "checkpoint-000005").glob("model.ckpt*"):
        shutil.copy(path, tmp_path / path.name.replace("model.ckpt", "model.ckpt-12"))
    for path in tmp_path, tmp_path / "model.ckpt-12", tmp_path / "nothing":
        with pytest.raises(UserError, match=f"{path} is not the folder of a run, which --best"):
            LanguageModel.load(str(path), best=True)
