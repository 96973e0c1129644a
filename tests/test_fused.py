"""The fast layer: the numbers of the article's loop, and gradients of its own that are right."""

import numpy as np
import pytest

import lstm
import models
from ptb import fused, rnn
from ptb.quiet import tf

IDS = np.random.default_rng(1).integers(0, 30, 400)
RNG = np.random.default_rng(5)


def numbers(config, mode, flags, state):
    """Returns {name: array} of a step from a state: cost, loss, final state, every gradient."""
    flags.rnn_mode = mode
    with models.built(config, IDS) as (session, model, _, _):
        models.randomize(session, 0.8)
        feed = {model.input.step: 1}
        for names, values in zip(model.initial_state, state):
            feed.update(zip(names, values))
        tvars = tf.trainable_variables()
        grads = tf.gradients(model.cost, tvars)
        fetches = {v.op.name: tf.convert_to_tensor(g) for v, g in zip(tvars, grads)}
        fetches["norm"] = tf.global_norm(grads)
        fetches["cost"] = model.cost
        fetches["loss"] = model.loss
        for k, layer in enumerate(model.final_state):
            fetches[f"c{k}"], fetches[f"h{k}"] = layer
        return session.run(fetches, feed)


@pytest.mark.parametrize("keep_prob", [1.0, 0.5])
@pytest.mark.parametrize("dtype, tolerance", [(tf.float32, 1e-5), (tf.float64, 1e-10)])
def test_modes_agree(dtype, tolerance, keep_prob, flags, monkeypatch):
    """Also in dropout, drawn from the same seed, and in the norm, before repeated rows add up."""
    config = type("SomeConfig", (models.TinyConfig,), {"keep_prob": keep_prob})()
    state = [tuple(RNG.normal(size=(2, 4, 6))) for _ in range(2)]
    monkeypatch.setattr(lstm, "data_type", lambda: dtype)
    with monkeypatch.context() as patch:
        make = tf.get_variable  # in the type under test
        for module in tf, lstm.tf:  # Those of ptb/ have another name for it than the script.
            patch.setattr(module, "get_variable", lambda *a, **k: make(*a, **{**k, "dtype": dtype}))
        basic = numbers(config, "basic", flags, state)
        fast = numbers(config, "fused", flags, state)
    assert len(basic) == 14
    for name in basic:
        assert basic[name].dtype == dtype.as_numpy_dtype
        assert models.difference(fast[name], basic[name]) < tolerance, name


def test_mode_may_change_midway(flags):
    """Half an epoch in each mode is an epoch in one: variables, state and masks cross over."""

    def train(modes):
        config = type("SomeConfig", (models.TinyConfig,), {"keep_prob": 0.5})()
        values = state = None
        for half, mode in enumerate(modes):
            flags.rnn_mode = mode
            with models.built(config, IDS) as (session, model, _, _):
                if half:
                    models.load(session, values)
                    session.run(tf.train.get_global_step().assign(10))
                else:
                    state = session.run(model.initial_state)
                model.assign_lr(session, 0.5)
                for step in range(10 * half, 10 * half + 10):
                    feed = {model.input.step: step}
                    for names, its in zip(model.initial_state, state):
                        feed.update(zip(names, its))
                    state, _ = session.run([model.final_state, model.train_op], feed)
                values = models.variables(session)
        return values

    expected = train(["basic", "basic"])
    for modes in ["basic", "fused"], ["fused", "basic"]:
        for name, value in train(modes).items():
            assert models.difference(value, expected[name]) < 1e-5, name


def test_layer_and_its_gradients():
    """Against the cell step by step, with gradients into everything that goes in and out."""
    num_steps, batch_size, n, size = 4, 3, 5, 2
    shapes = [num_steps, batch_size, n], [n + size, 4 * size], [4 * size], *[[batch_size, size]] * 2
    values = [RNG.normal(size=shape) for shape in shapes]
    d_outputs = RNG.normal(size=[num_steps, batch_size, size])
    d_c, d_h = RNG.normal(size=(2, batch_size, size))
    cell = rnn.BasicLSTMCell(size, forget_bias=0.7)

    def loop(inputs, kernel, bias, c, h):
        cell.variables = lambda input_size: (kernel, bias)
        outputs, state = [], rnn.LSTMStateTuple(c, h)
        for step_inputs in tf.unstack(inputs):
            output, state = cell(step_inputs, state)
            outputs.append(output)
        return tf.stack(outputs), state.c

    with tf.Graph().as_default(), tf.Session() as session:
        results = []
        for layer in loop, lambda *args: fused.lstm_layer(*args, forget_bias=0.7):
            args = [tf.constant(value) for value in values]
            outputs, c = layer(*args)
            grads = tf.gradients([outputs, c, outputs[-1]], args, [d_outputs, d_c, d_h])
            results.append(session.run([outputs, c, *grads]))
    assert len(results[0]) == 7
    for expected, value in zip(*results):
        assert models.difference(value, expected) < 1e-10


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_softmax_loss_and_its_gradients(scale):
    """Against TensorFlow's; also where exp(logit) overflows, and for weighted losses."""
    output, w, b = scale * RNG.normal(size=(7, 4)), RNG.normal(size=(4, 30)), RNG.normal(size=30)
    targets, weights = RNG.integers(0, 30, 7), RNG.normal(size=7)

    def plain(output, w, b, targets):
        return tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=targets, logits=tf.matmul(output, w) + b
        )

    with tf.Graph().as_default(), tf.Session() as session:
        results = []
        for function in plain, fused.softmax_loss:
            args = [tf.constant(value, tf.float64) for value in (output, w, b)]
            loss = function(*args, tf.constant(targets, tf.int32))
            grads = tf.gradients(loss, args, weights)
            results.append(session.run([loss, *grads]))
    assert np.abs(results[0][0]).max() > 100 or scale == 1
    for expected, value in zip(*results):
        assert np.all(np.isfinite(expected))
        assert models.difference(value, expected) < 1e-10


def test_evaluation_computes_no_gradient():
    with models.built(models.TinyConfig(), IDS):
        operations = tf.get_default_graph().get_operations()
        gradients = [op.name for op in operations if op.type in ("TensorScatterSub", "TanhGrad")]
    assert gradients
    assert all(name.startswith("Train/") for name in gradients)
