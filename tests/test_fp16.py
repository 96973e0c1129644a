"""`--use_fp16`: products and activations in 16 bits, everything that accumulates in 32."""

import re

import numpy as np
import pytest

import lstm
import models
from test_script import VARIABLES
from ptb.quiet import tf


class NarrowConfig(models.TinyConfig):
    """Small enough for a test, wide enough for 16 bits to show, and not chaotic.

    Where training is chaotic (rate 1.0 and weights of 0.1, as in SmallConfig on PTB), a change in
    the last bit of float32 moves single costs by some percent within fifty steps.
    """

    init_scale = 0.1
    hidden_size = 32
    batch_size = 8
    num_steps = 5
    learning_rate = 0.2
    vocab_size = 300


def fifty_costs(config, ids):
    """Trains for fifty steps; returns their costs."""
    costs = []
    with models.built(config, ids) as (session, model, _, _):
        model.assign_lr(session, config.learning_rate)
        state = session.run(model.initial_state)
        for step in range(50):
            feed = {model.input.step: step}
            for names, values in zip(model.initial_state, state):
                feed.update(zip(names, values))
            cost, state, _ = session.run([model.cost, model.final_state, model.train_op], feed)
            costs.append(cost)
    return np.array(costs)


@pytest.mark.parametrize("rnn_mode", ["basic", "fused"])
@pytest.mark.parametrize("keep_prob", [1.0, 0.5])
def test_trains_like_float32(keep_prob, rnn_mode, flags):
    flags.rnn_mode = rnn_mode
    ids = np.minimum(np.random.default_rng(3).geometric(0.02, 3000), 300) - 1
    config = type("NarrowConfig", (NarrowConfig,), {"keep_prob": keep_prob})()
    float32 = fifty_costs(config, ids)
    flags.use_fp16 = True
    float16 = fifty_costs(config, ids)
    assert np.all(np.isfinite(float16))
    assert np.any(float16 != float32)
    assert np.abs(float16 / float32 - 1).max() < 0.02
    assert float16[-10:].mean() < 0.97 * float16[:10].mean()


def test_products_are_16_bit_and_what_accumulates_is_32_bit(flags):
    flags.use_fp16 = True
    assert lstm.data_type() == tf.float16
    with models.built(models.TinyConfig(), list(range(30)) * 4) as (_, model, _, _):
        products = [
            op for op in tf.get_default_graph().get_operations() if op.type == "MatMul"
        ]
        assert products
        assert {op.outputs[0].dtype for op in products} == {tf.float16}
        assert {v.dtype.base_dtype for v in tf.trainable_variables()} == {tf.float32}
        state = [tensor for layer in model.initial_state for tensor in layer]
        assert {tensor.dtype for tensor in state} == {tf.float16}
        assert model.cost.dtype == tf.float32
        grads = tf.gradients(model.cost, tf.trainable_variables())
        assert {grad.dtype for grad in grads} == {tf.float32}


def test_run_and_its_checkpoint(script, corpus, tmp_path):
    """A run with --use_fp16 ends, and its checkpoint is the same kind of file."""
    process = script(
        "--config", "tst", "--use_fp16", "--data_path", corpus, "--save_path", tmp_path
    )
    assert process.returncode == 0, process.stderr
    assert re.search(r"^Test Perplexity: \d+\.\d{3}$", process.stdout, re.MULTILINE)
    path = models.last_model(tmp_path / "tst")
    assert dict(tf.train.list_variables(path)) == VARIABLES
    reader = tf.train.load_checkpoint(path)
    assert reader.get_tensor("Model/embedding").dtype == "float32"
