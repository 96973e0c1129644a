"""The article's own script runs, written with the classes of lstm.py."""

import os
import re
import subprocess
import sys

import models
from conftest import ROOT, train

import configs

SCRIPT = '''
import sys

import tensorflow.compat.v1 as tf

import ptb.reader as reader
from lstm import *

flags = tf.app.flags
FLAGS = flags.FLAGS
flags.DEFINE_string("save_path", "./elsewhere", "Model output directory.")


class ArticleConfig(TstConfig):
    num_steps = 3
    hidden_size = 6
    batch_size = 4
    keep_prob = 0.8
    max_max_epoch = 2
    max_epoch = 1


def main(_):
    data_path, model_path = FLAGS.data_path, FLAGS.init_from
    raw_data = reader.ptb_raw_data(data_path)
    train_data, valid_data, test_data, ArticleConfig.vocab_size = raw_data
    config = ArticleConfig()
    eval_config = ArticleConfig()
    eval_config.batch_size = 1
    eval_config.num_steps = 1
    with tf.Graph().as_default():
        initializer = tf.random_uniform_initializer(-config.init_scale, config.init_scale)
        with tf.name_scope("Train"):
            train_input = PTBInput(config=config, data=train_data, name="TrainInput")
            with tf.variable_scope("Model", reuse=None, initializer=initializer):
                m = PTBModel(is_training=True, config=config, input_=train_input)
        with tf.name_scope("Valid"):
            valid_input = PTBInput(config=config, data=valid_data, name="ValidInput")
            with tf.variable_scope("Model", reuse=True, initializer=initializer):
                mvalid = PTBModel(is_training=False, config=config, input_=valid_input)
        with tf.name_scope("Tst"):
            test_input = PTBInput(config=eval_config, data=test_data, name="TstInput")
            with tf.variable_scope("Model", reuse=True, initializer=initializer):
                mtst = PTBModel(is_training=False, config=eval_config, input_=test_input)

        sv = tf.train.Supervisor()
        with sv.managed_session() as session:
            for i in range(config.max_max_epoch):
                lr_decay = config.lr_decay ** max(i + 1 - config.max_epoch, 0.0)
                m.assign_lr(session, config.learning_rate * lr_decay)
                print("Epoch: %d Learning rate: %.3f" % (i + 1, session.run(m.lr)))
                train_perplexity = run_epoch(session, m, eval_op=m.train_op, verbose=True)
                print("Epoch: %d Train Perplexity: %.3f" % (i + 1, train_perplexity))
                valid_perplexity = run_epoch(session, mvalid)
                print("Epoch: %d Valid Perplexity: %.3f" % (i + 1, valid_perplexity))

            # What lstm.py has trained takes the place of these weights, to compare the test.
            sv.saver.restore(session, model_path)
            tst_perplexity = run_epoch(session, mtst)
            print("Test Perplexity: %.3f" % tst_perplexity)


if __name__ == "__main__":
    tf.app.run()
'''


def test_articles_script_gets_the_test_perplexity_of_lstm_py(corpus, tmp_path, capsys):
    fields = {"vocab_size": None, "num_steps": 3, "hidden_size": 6, "batch_size": 4}
    config = type("SomeConfig", (configs.TstConfig,), fields)
    train(config, corpus, tmp_path)
    expected = re.search("^Test Perplexity: .*", capsys.readouterr().out, re.M)[0]
    (tmp_path / "article.py").write_text(SCRIPT)
    ended = subprocess.run(
        [sys.executable, tmp_path / "article.py", f"--data_path={corpus}",
         f"--init_from={models.last_model(tmp_path / 'some')}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True,
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert [line for line in lines if line.startswith("Epoch: 2")][0] == (
        "Epoch: 2 Learning rate: 0.500"
    )
    assert lines[-1] == expected
    assert not (tmp_path / "elsewhere").exists()
