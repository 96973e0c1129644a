"""The article's own script, as the guide has it, runs with the classes of lstm.py."""

import os
import re
import subprocess
import sys

import models
from conftest import ROOT, train

import configs

GUIDE = ROOT / "ptb" / "docs" / "article.md"
FIELDS = {
    "num_steps": 3, "hidden_size": 6, "batch_size": 4, "vocab_size": 40, "max_max_epoch": 2,
    "max_epoch": 1, "keep_prob": 0.8,
}
SMALLER = f"SmallConfig = type('SmallConfig', (TstConfig,), {FIELDS})\n"


def script(model_path):
    """Returns the script of the guide, with a smaller model, tested with the weights at a path."""
    text = GUIDE.read_text(encoding="utf-8")
    code = text.split("\n## The script\n")[1].split("```python\n")[1].split("```")[0]
    changes = {
        "from lstm import *\n": "from lstm import *\n" + SMALLER,
        '# sv.saver.restore(session, "Out/small/checkpoint-000014/model.ckpt")':
            f"sv.saver.restore(session, {model_path!r})",
    }
    for old, new in changes.items():
        assert code.count(old) == 1
        code = code.replace(old, new)
    return code


def test_articles_script_gets_the_test_perplexity_of_lstm_py(corpus, tmp_path, capsys):
    train(type("SomeConfig", (configs.TstConfig,), FIELDS), corpus, tmp_path)
    expected = re.search("^Test Perplexity: .*", capsys.readouterr().out, re.M)[0]
    (tmp_path / "article.py").write_text(script(models.last_model(tmp_path / "some")))
    ended = subprocess.run(
        [sys.executable, tmp_path / "article.py", f"--data_path={corpus}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert "oneDNN" not in ended.stderr  # It is among what TensorFlow prints while it loads.
    lines = ended.stdout.splitlines()
    assert [line for line in lines if line.startswith("Epoch: 2")][0] == (
        "Epoch: 2 Learning rate: 0.500"
    )
    assert lines[-1] == expected
    assert not (tmp_path / "model").exists()
