"""The fast layer: the numbers of the article's loop, and gradients of its own that are right."""

import re

import models
import numpy as np
import numpy_lstm
import pytest

import lstm
from ptb import fused, gpu, rnn
from ptb.terminal.quiet import tf

IDS = np.random.default_rng(1).integers(0, 30, 400)
RNG = np.random.default_rng(5)


def numbers(config, mode, flags, state, getter=None):
    """Returns {name: array} of a step from a state: cost, loss, final state, every gradient."""
    flags.rnn_mode = mode
    with models.built(config, IDS, getter=getter, count=1) as (session, model):
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
    monkeypatch.setattr(rnn, "number_type", lambda _: dtype)

    def in_that_type(getter, *args, **kwargs):
        if tf.as_dtype(kwargs["dtype"]).is_floating:
            kwargs["dtype"] = dtype
        return getter(*args, **kwargs)

    basic = numbers(config, "basic", flags, state, in_that_type)
    fast = numbers(config, "fused", flags, state, in_that_type)
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
            with models.built(config, IDS, count=1) as (session, model):
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


@pytest.mark.parametrize("has_gpu", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_softmax_loss_and_its_gradients(scale, has_gpu, monkeypatch):
    """Against TensorFlow's; also where exp(logit) overflows, and for weighted losses."""
    monkeypatch.setattr(gpu, "is_visible", lambda: has_gpu)
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
        types = "ScatterNdNonAliasingAdd", "TanhGrad", "CudnnRNNBackpropV3"
        gradients = [op.name for op in operations if op.type in types]
    assert gradients
    assert all(name.startswith("Train/") for name in gradients)


def cudnn_in_plain_operations(input, input_h, input_c, params, sequence_lengths, rnn_mode):
    """Stands for tf.raw_ops.CudnnRNNV3 where there is no GPU; reads what that reads."""
    num_steps, batch_size, n = input.shape
    size = input_h.shape[2]
    assert rnn_mode == "lstm" and list(sequence_lengths) == [num_steps] * batch_size
    sizes = [size * n] * 4 + [size * size] * 4 + [size] * 8
    regions = tf.split(params, sizes)
    w = [tf.reshape(region, [size, -1]) for region in regions[:8]]
    b = regions[8:]
    outputs, h, c = [], input_h[0], input_c[0]
    for x in tf.unstack(input):
        i, f, j, o = (
            tf.matmul(x, w[k], transpose_b=True) + tf.matmul(h, w[k + 4], transpose_b=True)
            + b[k] + b[k + 4] for k in range(4)
        )
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(j)
        h = tf.sigmoid(o) * tf.tanh(c)
        outputs.append(h)
    return tf.stack(outputs), h[None], c[None], None, None


@pytest.fixture
def seeming_gpu(monkeypatch):
    """TensorFlow seems to have a GPU, and what would run there runs on the processor."""
    monkeypatch.setattr(gpu, "is_visible", lambda: True)
    monkeypatch.setattr(tf.raw_ops, "CudnnRNNV3", cudnn_in_plain_operations)
    fused.why_not_cudnn.cache_clear()
    yield
    fused.why_not_cudnn.cache_clear()


def test_weights_are_packed_as_cudnn_documents_it():
    """NumPy reads the vector, n and size differ, and no gate takes the place of another."""
    num_steps, batch_size, n, size = 4, 3, 5, 2
    x, kernel = RNG.normal(size=(num_steps, batch_size, n)), RNG.normal(size=(n + size, 4 * size))
    bias, c, h = RNG.normal(size=4 * size), *RNG.normal(size=(2, batch_size, size))
    with tf.Graph().as_default(), tf.Session() as session:
        expected = session.run(fused.lstm_layer(*map(tf.constant, (x, kernel, bias, c, h)), 0.7))
        params = session.run(fused.cudnn_params(tf.constant(kernel), tf.constant(bias), 0.7))
    for value, right in zip(numpy_lstm.cudnn_layer(x, h, c, params), expected):
        assert models.difference(value, right) < 1e-12


@pytest.mark.parametrize("data_type, product_type, tolerance", [
    ("float64", "float64", 1e-12), ("float32", "float32", 1e-5), ("float16", "float16", 5e-3),
    ("float32", "bfloat16", 0.015),
])
def test_cudnn_layer_and_its_gradients(
    data_type, product_type, tolerance, seeming_gpu, monkeypatch
):
    """Against the plain layer, up to the rounding of the type."""
    monkeypatch.setitem(fused.MOST_DIFFERENCE, product_type, tolerance)
    assert fused.why_not_cudnn(data_type, product_type) is None
    assert fused.fast_layer(data_type, product_type) is fused.cudnn_layer


def test_a_wrong_cudnn_layer_is_not_used(seeming_gpu, monkeypatch):
    """It gives wrong numbers, or NaN, or raises: then the plain layer computes, for a reason."""

    def without_forget_bias(*args, forget_bias):
        return fused.cudnn_layer(*args, forget_bias=0.0)

    def not_a_number(*args, forget_bias):
        outputs, c = fused.cudnn_layer(*args, forget_bias)
        return outputs, c * np.nan

    def wrong_gradient(*args, forget_bias):
        outputs, c = fused.cudnn_layer(*args, forget_bias)
        return 1.1 * outputs - tf.stop_gradient(0.1 * outputs), c

    for layer, by in (without_forget_bias, "0."), (not_a_number, "nan"), (wrong_gradient, "0.1"):
        reason = fused.why_not_cudnn("float32", "float32", layer)
        assert reason.startswith(f"its numbers differ from those of plain operations by {by}")
    monkeypatch.undo()
    monkeypatch.setattr(gpu, "is_visible", lambda: True)
    reason = fused.why_not_cudnn("float32", "float32")
    assert reason.startswith("No OpKernel was registered to support Op 'CudnnRNNV3'")
    assert "\n" not in reason
    assert fused.fast_layer("float32", "float32") is fused.lstm_layer


@pytest.mark.parametrize("number_type", [
    "float32", *(pytest.param(flag, marks=pytest.mark.slow) for flag in ("use_fp16", "use_bf16")),
])
@pytest.mark.parametrize("mode", ["fused", pytest.param("basic", marks=pytest.mark.slow)])
def test_on_a_gpu_nothing_of_a_step_is_scattered(mode, number_type, flags, monkeypatch, request):
    """A deterministic scatter runs on the host; the embedding, which is there, alone has one.

    The numbers are those of a processor.
    """
    state = [tuple(RNG.normal(size=(2, 4, 6))) for _ in range(2)]
    if number_type != "float32":
        flags[number_type].value = True
    on_cpu = numbers(models.TinyConfig(), mode, flags, state)
    request.getfixturevalue("seeming_gpu")
    on_gpu = numbers(models.TinyConfig(), mode, flags, state)
    tolerance = {"float32": 1e-5, "use_fp16": 0.01, "use_bf16": 0.05}[number_type]
    for name in on_cpu:
        assert models.difference(on_gpu[name], on_cpu[name]) < tolerance, name
    with models.built(models.TinyConfig(), IDS):
        operations = tf.get_default_graph().get_operations()
        scattering = [
            op.name for op in operations
            if re.search("Scatter|Segment|SparseSoftmax", op.type) and "CPU" not in op.device
        ]
        assert scattering == []


def test_without_a_gpu_nothing_is_tried(monkeypatch):
    monkeypatch.setattr(fused, "why_not_cudnn", lambda *_: pytest.fail("there is no GPU"))
    monkeypatch.setattr(gpu, "is_visible", lambda: False)
    assert fused.fast_layer("float32", "float32") is fused.lstm_layer
