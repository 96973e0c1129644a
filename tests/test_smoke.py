"""The smoke test: TstConfig trains on a tiny corpus, and what it leaves behind answers.

    python -m pytest tests/test_smoke.py
"""

import re

import numpy as np
import tensorflow.compat.v1 as tf

import lstm
from ptb.language_model import LanguageModel

SENTENCES = "the cat sees the dog \nthe dog sees a bird and the bird sings \na cat sleeps \n"


def test_training_prints_the_articles_lines_and_saves_a_model(tmp_path, capsys):
    for name, times in ("train", 40), ("valid", 10), ("test", 5):
        (tmp_path / f"ptb.{name}.txt").write_text(SENTENCES * times)
    lstm.main(["lstm.py", "--config", "tst", "--data_path", str(tmp_path),
               "--save_path", str(tmp_path / "Out")])
    printed = capsys.readouterr().out
    assert "Epoch: 1 Learning rate: 1.000\n" in printed
    assert re.search(r"^0\.\d{3} perplexity: \d+\.\d{3} speed: \d+ wps$", printed, re.M)
    found = re.findall(r"(Train|Valid|Test) Perplexity: (\d+\.\d{3})$", printed, re.M)
    assert [what for what, _ in found] == ["Train", "Valid", "Test"]
    for _, perplexity in found:
        assert 1 < float(perplexity) < lstm.TstConfig.vocab_size

    with LanguageModel.load(tmp_path / "Out" / "tst") as model:
        likeliest = model.next_words("the cat", top_k=3)
    assert len(likeliest) == 3
    assert all(0 < probability < 1 for _, probability in likeliest)


def test_classes_are_used_as_in_the_article():
    config = lstm.TstConfig()
    data = np.arange(200) % 12
    with tf.Graph().as_default():
        initializer = tf.random_uniform_initializer(-config.init_scale, config.init_scale, seed=1)
        train_input = lstm.PTBInput(config=config, data=data, name="TrainInput")
        with tf.variable_scope("Model", reuse=None, initializer=initializer):
            m = lstm.PTBModel(is_training=True, config=config, input_=train_input)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            m.assign_lr(session, 1.0)
            perplexities = [lstm.run_epoch(session, m, eval_op=m.train_op) for _ in range(20)]
            assert session.run(m.lr) == 1.0
    assert m.input.epoch_size == (200 // config.batch_size - 1) // config.num_steps
    assert perplexities[-1] < perplexities[0] < 1.1 * config.vocab_size
