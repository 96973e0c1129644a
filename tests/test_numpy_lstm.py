"""The NumPy reference checks itself: its gradients are the slopes of its cost."""

import numpy as np
import numpy_lstm
import pytest


@pytest.mark.parametrize("dropout", [False, True])
def test_gradients_are_finite_differences(dropout):
    rng = np.random.default_rng(0)
    params = numpy_lstm.init_params(rng, vocab_size=7, size=3, num_layers=2, scale=0.7)
    x, y = rng.integers(0, 7, (2, 2, 4))  # repeated words among the eight of x
    state = [(rng.normal(size=(2, 3)), rng.normal(size=(2, 3))) for _ in range(2)]
    masks = rng.integers(0, 2, (3, 4, 2, 3)) / 0.5 if dropout else None

    _, _, grads = numpy_lstm.step(params, x, y, state, masks)
    dense = np.zeros_like(params["embedding"])
    np.add.at(dense, x.reshape(-1), grads["embedding"])
    pairs = [
        (params["embedding"], dense),
        (params["softmax_w"], grads["softmax_w"]),
        (params["softmax_b"], grads["softmax_b"]),
        *zip(params["kernels"], grads["kernels"]),
        *zip(params["biases"], grads["biases"]),
    ]
    for array, grad in pairs:
        slope = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            value, costs = array[index], []
            for sign in (1, -1):
                array[index] = value + sign * 1e-5
                costs.append(numpy_lstm.step(params, x, y, state, masks)[0])
            array[index] = value
            slope[index] = (costs[0] - costs[1]) / 2e-5
        assert np.linalg.norm(slope - grad) <= 1e-8 * np.linalg.norm(grad)


def test_norm_takes_repeated_words_one_by_one():
    grads = {
        "embedding": np.array([[3.0], [4.0]]),
        "kernels": [],
        "biases": [],
        "softmax_w": np.zeros(1),
        "softmax_b": np.array([12.0]),
    }
    assert numpy_lstm.global_norm(grads) == 13.0
