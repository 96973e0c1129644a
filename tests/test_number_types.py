"""`--use_fp16` and `--use_bf16`: products in 16 bits, everything that accumulates in 32."""

import os
import re
import signal

import models
import numpy as np
import numpy_lstm
import pytest
from conftest import train

from ptb import machine, run
from ptb.language_model import LanguageModel
from ptb.terminal.errors import Stopped
from ptb.terminal.quiet import tf

BOTH = pytest.mark.parametrize("flag", ["use_fp16", "use_bf16"])


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


@BOTH
@pytest.mark.parametrize("rnn_mode", [pytest.param("basic", marks=pytest.mark.slow), "fused"])
@pytest.mark.parametrize("keep_prob", [pytest.param(1.0, marks=pytest.mark.slow), 0.5])
def test_trains_like_float32(keep_prob, rnn_mode, flag, flags):
    flags.rnn_mode = rnn_mode
    ids = np.minimum(np.random.default_rng(3).geometric(0.02, 3000), 300) - 1
    config = type("NarrowConfig", (NarrowConfig,), {"keep_prob": keep_prob})()
    in_32_bits = models.costs(config, ids, steps=50)
    flags[flag].value = True
    in_16_bits = models.costs(config, ids, steps=50)
    assert np.all(np.isfinite(in_16_bits))
    assert np.any(in_16_bits != in_32_bits)
    assert np.abs(in_16_bits / in_32_bits - 1).max() < 0.02
    assert in_16_bits[-10:].mean() < 0.97 * in_16_bits[:10].mean()


@BOTH
@pytest.mark.parametrize("rnn_mode", ["basic", "fused"])
def test_products_are_16_bit_and_what_accumulates_is_32_bit(rnn_mode, flag, flags):
    flags.rnn_mode = rnn_mode
    flags[flag].value = True
    product_type, data_type = {
        "use_fp16": (tf.float16, tf.float16), "use_bf16": (tf.bfloat16, tf.float32)
    }[flag]
    with models.built(models.TinyConfig(), list(range(30)) * 4, count=1) as (_, model):
        products = [
            op for op in tf.get_default_graph().get_operations() if op.type == "MatMul"
        ]
        assert products
        assert {op.outputs[0].dtype for op in products} == {product_type}
        assert {v.dtype.base_dtype for v in tf.trainable_variables()} == {tf.float32}
        states = [*tf.nest.flatten(model.initial_state), *tf.nest.flatten(model.final_state)]
        assert {tensor.dtype for tensor in states} == {data_type}
        assert model.cost.dtype == model.loss.dtype == tf.float32
        grads = tf.gradients(model.cost, tf.trainable_variables())
        assert {tf.convert_to_tensor(grad).dtype for grad in grads} == {tf.float32}
        if flag == "use_bf16":  # All that is summed, and all exponentials, are float32.
            types = {"Exp", "Log", "Sum", "Sigmoid", "Tanh", "L2Loss"}
            summed = [op for op in tf.get_default_graph().get_operations() if op.type in types]
            assert {op.outputs[0].dtype for op in summed} == {tf.float32}


@pytest.mark.parametrize("rnn_mode", ["basic", "fused"])
def test_gradients_in_bfloat16(rnn_mode, flags):
    """Each is that of the NumPy reference, as far as operands of 8 binary digits allow."""
    flags.rnn_mode = rnn_mode
    flags.use_bf16 = True
    config = type("WideConfig", (NarrowConfig,), {"vocab_size": 30})()
    ids = np.random.default_rng(1).integers(0, 30, 400)
    with models.built(config, ids, count=1) as (session, model):
        models.randomize(session, 0.3)
        params = models.as_params(models.variables(session), config.num_layers)
        tvars = tf.trainable_variables()
        vals = session.run({
            "x": model.input.input_data, "y": model.input.targets, "cost": model.cost,
            "grads": {  # The embedding's is one slice for each word of x.
                v.op.name: getattr(g, "values", g)
                for v, g in zip(tvars, tf.gradients(model.cost, tvars))
            },
        }, {model.input.step: 2})
    state = numpy_lstm.zero_state(params, config.batch_size)
    cost, _, expected = numpy_lstm.step(params, vals["x"], vals["y"], state)
    assert vals["cost"] == pytest.approx(cost, rel=5e-3)
    got = models.flat(models.as_params(vals["grads"], config.num_layers))
    for name, grad in models.flat(expected).items():
        assert models.difference(got[name].reshape(grad.shape), grad) < 0.02, name


@BOTH
def test_run_and_its_checkpoint(flag, script, corpus, tmp_path):
    """The run ends, its checkpoint is the same kind of file, and the model can be asked."""
    process = script(
        "--config", "tst", f"--{flag}", "--data_path", corpus, "--save_path", tmp_path
    )
    assert process.returncode == 0, process.stderr
    test = re.search(r"^Test Perplexity: (\d+\.\d{3})$", process.stdout, re.MULTILINE)[1]
    path = models.last_model(tmp_path / "tst")
    assert dict(tf.train.list_variables(path)) == models.TST_VARIABLES
    reader = tf.train.load_checkpoint(path)
    assert reader.get_tensor("Model/embedding").dtype == "float32"
    with LanguageModel.load(str(tmp_path / "tst")) as model:
        lines = model.score((corpus / "ptb.test.txt").read_text(), stream=True)
    log_prob, words = sum(line[0] for line in lines), sum(line[1] for line in lines)
    assert np.exp(-log_prob / words) == pytest.approx(float(test), abs=6e-4)


@pytest.mark.slow
@BOTH
def test_stopped_in_mid_epoch_and_continued(flag, corpus, tmp_path, monkeypatch):
    """The state and all else goes on: the run ends with the variables of one never stopped."""
    config = type("SomeConfig", (models.TinyConfig,), {"max_max_epoch": 2, "keep_prob": 0.6})
    train(config, corpus, tmp_path / "whole", f"--{flag}")
    after_step = run.Follower.after_step

    def stop_after_step(follower, step, *args):
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        after_step(follower, step, *args)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(run.Follower, "after_step", stop_after_step)
        train(config, corpus, tmp_path / "broken", f"--{flag}")
    train(config, corpus, tmp_path / "broken", f"--{flag}")
    models.assert_same(
        models.last_saved(tmp_path / "whole"), models.last_saved(tmp_path / "broken")
    )


def test_not_both(script, corpus, tmp_path):
    process = script(
        "--config", "tst", "--use_fp16", "--use_bf16", "--data_path", corpus,
        "--save_path", tmp_path,
    )
    assert process.returncode == 2
    assert process.stderr == (
        "lstm.py: --use_bf16 and --use_fp16 exclude each other; leave one of them out\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("has_products", [True, False, None])
def test_says_where_bfloat16_is_slow(has_products, script, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "has_bfloat16_products", lambda: has_products)
    options = "--config", "tst", "--data_path", corpus, "--save_path", tmp_path
    line = "This processor has no bfloat16 products"
    assert (line in script(*options, "--use_bf16").stdout) == (has_products is False)
    assert line not in script(*options, "--restart").stdout
