"""A process that has trained is deterministic to its end: it trains again, and is asked."""

import subprocess
import sys

import models
from conftest import ROOT

PROGRAM = """
import sys
import lstm
from ptb.language_model import LanguageModel
from ptb.terminal.quiet import tf

corpus, *folders = sys.argv[1:]
for folder in folders:
    lstm.main(["lstm.py", "--config=tst", f"--data_path={corpus}", f"--save_path={folder}"])
with tf.Graph().as_default():
    try:
        tf.random_uniform([1])
    except RuntimeError as error:
        assert "seed" in str(error)
    else:
        sys.exit("determinism is off")
print(LanguageModel.load(f"{folder}/tst").log_prob("w1"))
"""


def test_trains_twice_to_the_same_bits_and_answers(corpus, tmp_path):
    folders = tmp_path / "first", tmp_path / "second"
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, corpus, *folders], cwd=ROOT, text=True, capture_output=True
    )
    assert process.returncode == 0, process.stderr
    first, second = (models.saved(models.last_model(folder / "tst")) for folder in folders)
    models.assert_same(first, second)
    assert float(process.stdout.splitlines()[-1]) < 0
