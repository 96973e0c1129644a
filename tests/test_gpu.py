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
    with tf.device("/CPU:0"):
        on_cpu = models.costs(config(), ids, STEPS)
    with tf.device(gpu):
        on_gpu = models.costs(config(), ids, STEPS)
    tolerance = 1e-4 if number_type == "float32" else 2e-2
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=tolerance)


def test_memory_of_a_gpu_grows_as_needed():
    """So that a model can be asked on the GPU on which it still trains."""
    assert session_config().gpu_options.allow_growth
