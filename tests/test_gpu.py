"""The same numbers on a GPU as on the CPU, where there is a GPU."""

import numpy as np
import pytest

import configs
import models
from ptb.quiet import session_config, tf

STEPS = 3


@pytest.fixture(scope="module")
def gpu():
    """The name of a GPU; skips where TensorFlow sees none."""
    gpus = [d.name for d in tf.Session().list_devices() if d.device_type == "GPU"]
    if not gpus:
        pytest.skip("TensorFlow sees no GPU here")
    return gpus[0]


def costs_on(device, config, ids):
    """Trains for a few steps on a device; returns their costs and whether it did the products."""
    with tf.device(device), models.built(config, ids) as (session, model, _, _):
        model.assign_lr(session, config.learning_rate)
        state, costs = session.run(model.initial_state), []
        for step in range(STEPS):
            feed = {model.input.step: step}
            for names, values in zip(model.initial_state, state):
                feed.update(zip(names, values))
            cost, state, _ = session.run([model.cost, model.final_state, model.train_op], feed)
            costs.append(cost)
    return np.array(costs)


@pytest.mark.gpu
@pytest.mark.parametrize("number_type", ["float32", "use_fp16", "use_bf16"])
@pytest.mark.parametrize("rnn_mode", ["basic", "fused"])
@pytest.mark.parametrize("config", [configs.TstConfig, configs.SmallConfig])
def test_gpu_trains_like_the_cpu(config, rnn_mode, number_type, gpu, flags):
    flags.rnn_mode = rnn_mode
    if number_type != "float32":
        flags[number_type].value = True
    words = config.batch_size * (STEPS * config.num_steps + 1)
    ids = np.random.default_rng(1).integers(0, config.vocab_size, words)
    on_cpu, on_gpu = (costs_on(device, config(), ids) for device in ("/CPU:0", gpu))
    tolerance = 1e-4 if number_type == "float32" else 2e-2
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=tolerance)


def test_memory_of_a_gpu_grows_as_needed():
    """So that a model can be asked on the GPU on which it still trains."""
    assert session_config().gpu_options.allow_growth
