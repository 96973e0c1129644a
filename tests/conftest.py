"""What the tests share: small corpora, small models, and the folder of reference material."""

import pathlib
import random
import sys

import pytest
import tensorflow.compat.v1 as tf

import configs
import lstm
import models
from ptb import progress

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"

tf.disable_eager_execution()


@pytest.fixture
def shared():
    """The folder with PTB and a TensorFlow 1.15 checkpoint; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the reference material beside the project (../shared)")
    return SHARED


@pytest.fixture(autouse=True)
def not_deterministic(monkeypatch):
    """lstm.main leaves this process as it is, where determinism could not be switched off again."""
    monkeypatch.setattr(lstm, "make_deterministic", lambda seed: None)


@pytest.fixture
def flags():
    """lstm.FLAGS, put back after the test."""
    names = "use_fp16", "seed", "rnn_mode", "restart", "save_minutes"
    saved = {name: lstm.FLAGS[name].value for name in names}
    yield lstm.FLAGS
    for name, value in saved.items():
        lstm.FLAGS[name].value = value


@pytest.fixture
def terminal(monkeypatch):
    """To be called: stderr is a terminal from then on, and progress is shown at once."""

    def begin():
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setattr(progress, "PATIENCE", 0)
        monkeypatch.setattr(progress, "INTERVAL", 0)

    return begin


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """The folder of a finished run of two epochs of a two-layer model, vocabulary as it comes."""
    fields = {"max_max_epoch": 2, "vocab_size": None}
    out = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lstm, "make_deterministic", lambda seed: None)
        train(patch, type("SomeConfig", (models.TinyConfig,), fields), corpus, out)
    return out / "some"


def train(monkeypatch, config, data_path, out):
    """Runs lstm.main on a configuration class, as `--config some`, and saves in out/some."""
    monkeypatch.setattr(configs, "SomeConfig", config, raising=False)
    for name, value in ("config", "some"), ("data_path", data_path), ("save_path", out):
        monkeypatch.setattr(lstm.FLAGS[name], "value", str(value))
    lstm.main([])


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A folder with a corpus of 30 word types, large enough for one step of TstConfig."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = random.Random(7)
    for part, lines in ("train", 300), ("valid", 60), ("test", 20):
        text = "".join(
            " ".join(f"w{min(int(rng.expovariate(0.2)), 29)}" for _ in range(rng.randint(3, 12)))
            + "\n"
            for _ in range(lines)
        )
        (folder / f"ptb.{part}.txt").write_text(text, encoding="utf-8")
    return folder
