"""The language model written again from its formulas, in NumPy float64, to check the port against.

Nothing here comes from `ptb/`. Forward (Zaremba et al. 2014, equations 4 to 6, and a softmax), with
x_t the embedded word, masks drop_l (1 / keep_prob or 0) and the layer below h^{l-1}:

    i, j, f, o = split(W [drop(h^{l-1}_t), h^l_{t-1}] + b)
    c_t = sigm(f) c_{t-1} + sigm(i) tanh(j)
    h_t = sigm(o) tanh(c_t)
    cost = - sum_{batch, t} log softmax(U drop(h^L_t) + d)[y] / batch_size

Gradients by the chain rule, backwards through time, stopped at the first step (truncated).
"""

import numpy as np


def sigm(x):
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def zero_state(params, batch_size):
    """Returns [(c, h)] for each layer, zeros [batch_size, size]."""
    size = params["embedding"].shape[1]
    return [(np.zeros((batch_size, size)), np.zeros((batch_size, size))) for _ in params["kernels"]]


def init_params(rng, vocab_size, size, num_layers, scale):
    """Returns parameters uniform in ±scale; the biases too, so that they are tested."""

    def draw(*shape):
        return rng.uniform(-scale, scale, shape)

    return {
        "embedding": draw(vocab_size, size),
        "kernels": [draw(2 * size, 4 * size) for _ in range(num_layers)],
        "biases": [draw(4 * size) for _ in range(num_layers)],
        "softmax_w": draw(size, vocab_size),
        "softmax_b": draw(vocab_size),
    }


def cell(joined, c_old, kernel, bias):
    """Returns (i, j, f, o, c, h) of one layer at one time step, each [batch_size, size]."""
    i, j, f, o = np.split(joined @ kernel + bias, 4, axis=1)
    i, j, f, o = sigm(i), np.tanh(j), sigm(f), sigm(o)
    c = f * c_old + i * j
    return i, j, f, o, c, o * np.tanh(c)


def step(params, x, y, state, masks=None):
    """One training step's numbers.

    Args:
      params: as init_params makes them.
      x, y: word ids [batch_size, num_steps].
      state: [(c, h)] for each layer.
      masks: dropout masks, for the input and then each layer: [num_layers + 1, num_steps,
        batch_size, size]; None is no dropout.

    Returns:
      (cost, final state, gradients): gradients are named like params, except that the embedding's
      is one row for each word of x in order, [batch_size * num_steps, size].
    """
    batch_size, num_steps = x.shape
    num_layers = len(params["kernels"])
    size = params["embedding"].shape[1]
    if masks is None:
        masks = np.ones((num_layers + 1, num_steps, batch_size, size))

    # Forward; `tape` keeps what the way back needs.
    tape = []
    cost = 0.0
    states = list(state)
    for t in range(num_steps):
        layer_input = params["embedding"][x[:, t]] * masks[0, t]
        layers = []
        for k in range(num_layers):
            c_old, h_old = states[k]
            joined = np.hstack([layer_input, h_old])
            i, j, f, o, c, h = cell(joined, c_old, params["kernels"][k], params["biases"][k])
            states[k] = (c, h)
            layers.append((joined, i, j, f, o, c_old, c))
            layer_input = h * masks[k + 1, t]
        logits = layer_input @ params["softmax_w"] + params["softmax_b"]
        logits = logits - logits.max(axis=1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        cost -= log_p[np.arange(batch_size), y[:, t]].sum() / batch_size
        tape.append((layers, layer_input, np.exp(log_p)))

    # Backward.
    grads = {
        "embedding": np.zeros((batch_size, num_steps, size)),
        "kernels": [np.zeros_like(kernel) for kernel in params["kernels"]],
        "biases": [np.zeros_like(bias) for bias in params["biases"]],
        "softmax_w": np.zeros_like(params["softmax_w"]),
        "softmax_b": np.zeros_like(params["softmax_b"]),
    }
    d_states = zero_state(params, batch_size)
    for t in reversed(range(num_steps)):
        layers, output, p = tape[t]
        d_logits = p.copy()
        d_logits[np.arange(batch_size), y[:, t]] -= 1.0
        d_logits /= batch_size
        grads["softmax_w"] += output.T @ d_logits
        grads["softmax_b"] += d_logits.sum(axis=0)
        d_below = d_logits @ params["softmax_w"].T
        for k in reversed(range(num_layers)):
            joined, i, j, f, o, c_old, c = layers[k]
            d_c, d_h = d_states[k]
            d_h = d_h + d_below * masks[k + 1, t]
            d_c = d_c + d_h * o * (1 - np.tanh(c) ** 2)
            d_gates = np.hstack([
                d_c * j * i * (1 - i),
                d_c * i * (1 - j**2),
                d_c * c_old * f * (1 - f),
                d_h * np.tanh(c) * o * (1 - o),
            ])
            grads["kernels"][k] += joined.T @ d_gates
            grads["biases"][k] += d_gates.sum(axis=0)
            d_joined = d_gates @ params["kernels"][k].T
            d_below = d_joined[:, :size]
            d_states[k] = (d_c * f, d_joined[:, size:])
        grads["embedding"][:, t] = d_below * masks[0, t]
    grads["embedding"] = grads["embedding"].reshape(-1, size)
    return cost, states, grads


def global_norm(grads):
    """Returns the norm over all gradients, the embedding's rows one per word of the batch."""
    arrays = [*grads["kernels"], *grads["biases"]]
    arrays += [grads["embedding"], grads["softmax_w"], grads["softmax_b"]]
    return np.sqrt(sum((array**2).sum() for array in arrays))


def update(params, x, grads, max_grad_norm, lr):
    """Returns the parameters after gradients clipped by global norm and a step of descent."""
    scale = lr * min(1.0, max_grad_norm / global_norm(grads))
    embedding = params["embedding"].copy()
    np.subtract.at(embedding, x.reshape(-1), scale * grads["embedding"])
    return {
        "embedding": embedding,
        "kernels": [p - scale * g for p, g in zip(params["kernels"], grads["kernels"])],
        "biases": [p - scale * g for p, g in zip(params["biases"], grads["biases"])],
        "softmax_w": params["softmax_w"] - scale * grads["softmax_w"],
        "softmax_b": params["softmax_b"] - scale * grads["softmax_b"],
    }


def epoch(params, ids, batch_size, num_steps, carry=True, max_grad_norm=None, lr=None):
    """Runs over the ids as an epoch does; returns (perplexity, parameters).

    `carry=False` resets the state at every step, which is the mistake to be told apart. With an lr,
    the parameters are updated after every step.
    """
    batch_len = len(ids) // batch_size
    rows = np.asarray(ids)[: batch_size * batch_len].reshape(batch_size, batch_len)
    state = zero_state(params, batch_size)
    costs = iters = 0
    for start in range(0, (batch_len - 1) // num_steps * num_steps, num_steps):
        x, y = rows[:, start : start + num_steps], rows[:, start + 1 : start + num_steps + 1]
        if not carry:
            state = zero_state(params, batch_size)
        cost, state, grads = step(params, x, y, state)
        if lr is not None:
            params = update(params, x, grads, max_grad_norm, lr)
        costs += cost
        iters += num_steps
    return np.exp(costs / iters), params


def cudnn_layer(x, h, c, params):
    """Runs a layer as NVIDIA's documentation of cuDNN has it, on its one vector of weights.

    cudnnGetRNNWeightParams numbers the regions of a layer 0 to 7: those of the input for the input
    gate, the forget gate, the new memory (our j) and the output gate, then those of h. All matrices
    come first, each [size, length of what it multiplies] in row-major order, then all biases.

        i = sigm(W_0 x + W_4 h + b_0 + b_4)     f = sigm(W_1 x + W_5 h + b_1 + b_5)
        j = tanh(W_2 x + W_6 h + b_2 + b_6)     o = sigm(W_3 x + W_7 h + b_3 + b_7)
        c' = f c + i j                          h' = o tanh(c')

    Args:
      x: [num_steps, batch_size, n].
      h, c: the state, [batch_size, size] each.
      params: the vector.

    Returns:
      (h' of every step, the last c').
    """
    n, size = x.shape[2], h.shape[1]
    ends = np.cumsum([size * n] * 4 + [size * size] * 4 + [size] * 8)
    assert ends[-1] == len(params)
    regions = np.split(params, ends[:-1])
    w = [region.reshape(size, -1) for region in regions[:8]]
    b = regions[8:]
    outputs = []
    for step_x in x:
        i, f, j, o = (step_x @ w[k].T + h @ w[k + 4].T + b[k] + b[k + 4] for k in range(4))
        c = sigm(f) * c + sigm(i) * np.tanh(j)
        h = sigm(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs), c
