"""The same numbers on a GPU as on the processor, where there is a GPU; about two minutes in all.

    python -m pytest -m gpu -n 0

A process has the GPU or has not, so the processor's numbers come from other processes. The other
tests are about processors: where there is a GPU, CUDA_VISIBLE_DEVICES=-1 hides it from them.
"""

import json
import os
import subprocess
import sys

import models
import numpy as np
import numpy_lstm
import pytest
from conftest import ROOT, train

import configs
import lstm
from ptb import export, fused, gpu, run
from ptb.language_model import LanguageModel
from ptb.terminal.errors import Stopped
from ptb.terminal.quiet import session_config, tf

STEPS = 20
NUMBER_TYPES = ["float32", "use_fp16", "use_bf16"]


class SmallConfig(configs.SmallConfig):
    """It learns without chaos, in which rounding alone soon moves costs by some percent."""

    learning_rate = 0.2


class DropoutConfig(SmallConfig):
    keep_prob = 0.5


class NarrowConfig(models.TinyConfig):
    """One epoch of small steps."""

    init_scale = 0.2
    hidden_size = 32
    keep_prob = 0.6
    learning_rate = 0.2
    max_max_epoch = 1


@pytest.fixture(scope="module")
def has_gpu():
    """Skips where TensorFlow sees no GPU."""
    if not gpu.is_visible():
        pytest.skip("TensorFlow sees no GPU here")


def costs(config, rnn_mode, number_type):
    """Returns the costs of STEPS training steps, on words some of which are far more frequent."""
    number = config.batch_size * (STEPS * config.num_steps + 1)
    ids = np.minimum(np.random.default_rng(3).geometric(0.02, number), config.vocab_size) - 1
    lstm.FLAGS.rnn_mode = rnn_mode
    lstm.FLAGS.use_fp16, lstm.FLAGS.use_bf16 = number_type == "use_fp16", number_type == "use_bf16"
    return models.costs(config(), ids, STEPS)


def tolerance_of(number_type):
    """Returns the relative difference from the processor that a number type excuses."""
    if number_type != "float32":
        return 2e-2
    return 1e-3 if gpu.has_tf32() else 1e-4


def start(code, *args, on_gpu=False):
    """Starts Python on code that may use this module as `test_gpu`, with the GPU or without."""
    device = {} if on_gpu else {"CUDA_VISIBLE_DEVICES": "-1"}
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.Popen(
        [sys.executable, "-c", f"import json, sys, test_gpu\n{code}", *map(str, args)],
        cwd=ROOT, text=True, stdout=subprocess.PIPE,
        env={**os.environ, **device, "PYTHONPATH": path},
    )


def printed(*processes):
    """Waits for processes, which must end well, and returns what each has printed."""
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    return outputs


@pytest.fixture(scope="module")
def on_processor(has_gpu):
    """The processor's costs, {"<configuration> <number type>": costs}."""
    output, = printed(start("""
print(json.dumps({
    f"{config.__name__} {number_type}": test_gpu.costs(config, "fused", number_type).tolist()
    for config in (test_gpu.SmallConfig, test_gpu.DropoutConfig)
    for number_type in test_gpu.NUMBER_TYPES
}))
"""))
    return json.loads(output)


@pytest.mark.gpu
@pytest.mark.parametrize("number_type", NUMBER_TYPES)
@pytest.mark.parametrize("rnn_mode", ["basic", "fused"])
@pytest.mark.parametrize("config", [SmallConfig, DropoutConfig])
def test_trains_like_the_processor(config, rnn_mode, number_type, on_processor, flags):
    expected = on_processor[f"{config.__name__} {number_type}"]
    tolerance = tolerance_of(number_type)
    assert expected[-1] < 0.7 * expected[0]
    np.testing.assert_allclose(costs(config, rnn_mode, number_type), expected, rtol=tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize("number_type", NUMBER_TYPES)
def test_cudnn_is_trusted(number_type, has_gpu):
    """Where it is not, a run says why, and is slower; here that is a failure."""
    data_type, product_type = {
        "float32": ("float32", "float32"), "use_fp16": ("float16", "float16"),
        "use_bf16": ("float32", "bfloat16"),
    }[number_type]
    assert fused.why_not_cudnn(data_type, product_type) is None


@pytest.mark.gpu
@pytest.mark.parametrize("number_type", NUMBER_TYPES)
@pytest.mark.parametrize("rnn_mode", ["basic", "fused"])
def test_gradients_are_those_of_numpy(rnn_mode, number_type, has_gpu, flags):
    """One layer, 300 words; the operations of the fast mode are on the GPU."""
    flags.rnn_mode = rnn_mode
    if number_type != "float32":
        flags[number_type].value = True
    fields = {"num_layers": 1, "keep_prob": 1.0, "vocab_size": 300}
    config = type("OneLayerConfig", (NarrowConfig,), fields)
    ids = np.random.default_rng(1).integers(0, 300, 400)
    with models.built(config, ids, count=1) as (session, model):
        models.randomize(session, 0.3)
        params = models.as_params(models.variables(session), 1)
        tvars = tf.trainable_variables()
        grads = tf.gradients(model.cost, tvars)
        types = {op.type for op in tf.get_default_graph().get_operations()}
        assert ("CudnnRNNBackpropV3" in types) == (rnn_mode == "fused")
        vals = session.run({
            "x": model.input.input_data, "y": model.input.targets, "cost": model.cost,
            "grads": {v.op.name: getattr(g, "values", g) for v, g in zip(tvars, grads)},
        }, {model.input.step: 2})
    state = numpy_lstm.zero_state(params, config.batch_size)
    cost, _, expected = numpy_lstm.step(params, vals["x"], vals["y"], state)
    assert vals["cost"] == pytest.approx(cost, rel=tolerance_of(number_type))
    got = models.flat(models.as_params(vals["grads"], 1))
    tolerance = 2e-2 if number_type != "float32" else 5e-3 if gpu.has_tf32() else 1e-4
    for name, grad in models.flat(expected).items():
        assert models.difference(got[name].reshape(grad.shape), grad) < tolerance, name


@pytest.mark.gpu
def test_two_runs_are_equal_bit_for_bit(has_gpu):
    """In each mode and number type, at a rate at which a difference in the last bit grows."""
    code = """
from ptb import run
run.make_deterministic(1)
config = type("ChaoticConfig", (test_gpu.DropoutConfig,), {"learning_rate": 1.0})
for rnn_mode in "fused", "basic":
    for number_type in test_gpu.NUMBER_TYPES:
        costs = test_gpu.costs(config, rnn_mode, number_type)
        print(rnn_mode, number_type, *(float(cost).hex() for cost in costs))
"""
    one, other = printed(start(code, on_gpu=True), start(code, on_gpu=True))
    assert one == other
    assert one.count("0x") == 6 * STEPS


def train_narrow(corpus, out, stop_after=None):
    """Trains NarrowConfig and saves it in out/some; stops after a step, if told to."""
    after_step = run.Follower.after_step

    def stop(follower, step, *rest):
        if step == stop_after:
            raise KeyboardInterrupt
        after_step(follower, step, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.Follower, "after_step", stop)
        try:
            train(NarrowConfig, corpus, out, "--save_minutes=0")
        except (KeyboardInterrupt, Stopped):
            assert stop_after


@pytest.mark.gpu
def test_a_run_goes_on_on_the_other_device(has_gpu, corpus, tmp_path):
    """Begun there and ended here, or the other way round, it is the run of one device."""
    code = "test_gpu.train_narrow(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))"
    printed(
        start(code, corpus, tmp_path / "whole"),
        start(code, corpus, tmp_path / "from_gpu", 20, on_gpu=True),
        start(code, corpus, tmp_path / "to_gpu", 20),
    )
    second = printed(
        start(code, corpus, tmp_path / "from_gpu"),
        start(code, corpus, tmp_path / "to_gpu", on_gpu=True),
    )
    assert all("Going on after 0 epochs and 19 steps." in output for output in second)
    whole, *moved = (
        models.last_saved(tmp_path / name) for name in ("whole", "from_gpu", "to_gpu")
    )
    for name, expected in whole.items():
        for values in moved:
            assert models.difference(values[name], expected) < 10 * tolerance_of("float32"), name


@pytest.mark.gpu
def test_questions_and_export(has_gpu, trained, corpus, tmp_path):
    """Answered on the GPU as on the processor; what is exported there is served without one."""
    text = (corpus / "ptb.test.txt").read_text(encoding="utf-8")
    with LanguageModel.load(str(trained)) as model:
        log_probs = [line[0] for line in model.score(text)]
        export.write_saved_model(model, tmp_path / "served")
    scores, served = printed(
        start("""
with test_gpu.LanguageModel.load(sys.argv[1]) as model:
    print(json.dumps([float(line[0]) for line in model.score(open(sys.argv[2]).read())]))
""", trained, corpus / "ptb.test.txt"),
        start("""
import tensorflow
tensorflow.compat.v1.enable_eager_execution()
served = tensorflow.saved_model.load(sys.argv[1]).signatures["log_prob"]
lines = tensorflow.constant(open(sys.argv[2]).read().splitlines(keepends=True))
print(json.dumps(served(text=lines)["log_prob"].numpy().tolist()))
""", tmp_path / "served", corpus / "ptb.test.txt"),
    )
    tolerance = tolerance_of("float32")
    np.testing.assert_allclose(log_probs, json.loads(scores), rtol=tolerance)
    np.testing.assert_allclose(log_probs, json.loads(served), rtol=tolerance)


@pytest.mark.gpu
def test_a_model_can_be_asked_while_another_trains(has_gpu, trained, corpus, flags):
    """The training leaves nearly all memory of the GPU to others."""
    costs(SmallConfig, "fused", "float32")  # Its process, which is this one, keeps its memory.
    output, = printed(start("""
from ptb import gpu
assert gpu.is_visible()
with test_gpu.LanguageModel.load(sys.argv[1]) as model:
    print(model.score(open(sys.argv[2]).read())[0][0])
""", trained, corpus / "ptb.test.txt", on_gpu=True))
    assert float(output) < 0


def test_memory_of_a_gpu_grows_as_needed():
    """So that a model can be asked on the GPU on which it still trains."""
    assert session_config().gpu_options.allow_growth
