"""The network's pieces: LSTM cells, dropout, softmax, and the weights they start with.

The cells follow Zaremba et al. 2014, "Recurrent Neural Network Regularization" (arXiv 1409.2329),
in the form of TensorFlow 1.x's `BasicLSTMCell`: the same names, shapes and gate order, so that its
checkpoints load here and ours load there.

Variables are float32. A cell computes in the type of its inputs, float16 for `--use_fp16`. Its
matrix products may take their factors in another type, bfloat16 for `--use_bf16`; what they give is
cast back at once.
"""

import collections

from ptb import fused
from ptb.quiet import tf

LSTMStateTuple = collections.namedtuple("LSTMStateTuple", ["c", "h"])
LSTMStateTuple.__doc__ = "The state of one layer: c and h, each of shape [batch_size, size]."

Gates = collections.namedtuple(
    "Gates",
    ["forget_gate", "input_gate", "candidate", "cell_state", "output_gate", "output"],
)
Gates.__doc__ = """What one layer computes in a time step, each [batch_size, size].

In the formulas of BasicLSTMCell these are sigmoid(f + forget_bias), sigmoid(i), tanh(j), c',
sigmoid(o) and h', in the order in which the article explains them.
"""


class BasicLSTMCell:
    """One LSTM layer at one time step.

        i, j, f, o = split([inputs, h] @ kernel + bias)
        c' = c * sigmoid(f + forget_bias) + sigmoid(i) * tanh(j)
        h' = tanh(c') * sigmoid(o)

    Args:
      size: number of units.
      forget_bias: a number added to the gate f.
      factor_type: the type in which matrix products take their factors, if not that of the inputs.
    """

    def __init__(self, size, forget_bias=1.0, factor_type=None):
        self._size = size
        self._forget_bias = forget_bias
        self._factor_type = factor_type

    def zero_state(self, batch_size, dtype):
        """Returns the LSTMStateTuple before the first word: zeros."""
        zeros = tf.zeros([batch_size, self._size], dtype)
        return LSTMStateTuple(tf.identity(zeros, name="c"), tf.identity(zeros, name="h"))

    def __call__(self, inputs, state):
        """Takes inputs [batch_size, n] and a state; returns (h', LSTMStateTuple(c', h'))."""
        new_h, gates = self.gates(inputs, state)
        return new_h, LSTMStateTuple(gates.cell_state, new_h)

    def gates(self, inputs, state):
        """Takes inputs [batch_size, n] and a state; returns (h', Gates)."""
        kernel, bias = self._weights(inputs)
        c, h = state
        gates = tf.nn.bias_add(product(tf.concat([inputs, h], 1), kernel), bias)
        i, j, f, o = tf.split(gates, 4, axis=1)
        f = tf.sigmoid(f + self._forget_bias)
        kept = c * f
        i, j = tf.sigmoid(i), tf.tanh(j)
        new_c = kept + i * j
        tanh_c, o = tf.tanh(new_c), tf.sigmoid(o)
        new_h = tanh_c * o
        return new_h, Gates(f, i, j, new_c, o, new_h)

    def unroll(self, inputs, state):
        """Takes inputs [num_steps, batch_size, n] and a state; returns (every h', last state)."""
        kernel, bias = self._weights(inputs)
        h, c = fused.lstm_layer(inputs, kernel, bias, *state, self._forget_bias)
        return h, LSTMStateTuple(c, h[-1])

    def _weights(self, inputs):
        """Returns kernel and bias, each in the type in which it is used."""
        kernel, bias = self.variables(inputs.shape[-1])
        return tf.cast(kernel, self._factor_type or inputs.dtype), tf.cast(bias, inputs.dtype)

    def variables(self, input_size):
        """Returns kernel [input_size + size, 4 * size] and bias [4 * size], made or reused."""
        with tf.variable_scope("basic_lstm_cell"):
            kernel = tf.get_variable("kernel", [input_size + self._size, 4 * self._size])
            bias = tf.get_variable("bias", [4 * self._size], initializer=tf.zeros_initializer())
        return kernel, bias


class DropoutWrapper:
    """A cell whose output is multiplied by a mask; the carried state is not.

    Args:
      cell: the cell.
      masks: [num_steps, batch_size, size], one mask for each time step; they are used in turn.
    """

    def __init__(self, cell, masks):
        self._cell = cell
        self._masks = masks
        self._step_masks = iter(tf.unstack(masks))
        self.zero_state = cell.zero_state

    def __call__(self, inputs, state):
        output, state = self._cell(inputs, state)
        return output * next(self._step_masks), state

    def unroll(self, inputs, state):
        """Takes inputs [num_steps, batch_size, n] and a state; returns (outputs, last state)."""
        outputs, state = self._cell.unroll(inputs, state)
        return outputs * self._masks, state


class MultiRNNCell:
    """Layers one above the other: the output of each is the input of the next."""

    def __init__(self, cells):
        self._cells = cells

    def zero_state(self, batch_size, dtype):
        """Returns a tuple with the zero state of each layer."""
        with tf.name_scope("zero_state"):
            return tuple(cell.zero_state(batch_size, dtype) for cell in self._cells)

    def __call__(self, inputs, state):
        """Takes inputs [batch_size, n] and each layer's state; returns (output, new states)."""
        return self._layer_by_layer(self._cells, inputs, state)

    def gates(self, inputs, state):
        """Takes inputs [batch_size, n] and each layer's state; returns (output, each's Gates)."""
        return self._layer_by_layer([cell.gates for cell in self._cells], inputs, state)

    def unroll(self, inputs, state):
        """Takes inputs [batch_size, num_steps, n] and each layer's state, before the first step.

        Returns (the outputs of every step, the states after the last), as a loop of calls would.
        """
        inputs = tf.transpose(inputs, [1, 0, 2])
        steps = [cell.unroll for cell in self._cells]
        outputs, state = self._layer_by_layer(steps, inputs, state)
        return tf.transpose(outputs, [1, 0, 2]), state

    def _layer_by_layer(self, functions, inputs, state):
        """Calls each layer's function in its variable scope, on what the one below returned."""
        new_states = []
        with tf.variable_scope("multi_rnn_cell"):
            for layer, (function, layer_state) in enumerate(zip(functions, state, strict=True)):
                with tf.variable_scope(f"cell_{layer}"):
                    inputs, new_state = function(inputs, layer_state)
                new_states.append(new_state)
        return inputs, tuple(new_states)


def dropout_masks(config, seed, step, dtype):
    """Returns the dropout masks of a training step: for the embedded input, then for each layer.

    They are a function of the seed, the training step, the layer and the shape alone, so that a run
    that is taken up again draws the masks that it would have drawn.

    Args:
      config: the configuration.
      seed: a whole number.
      step: a scalar tensor, the training step.
      dtype: type of the masks.

    Returns:
      A list of num_layers + 1 masks [num_steps, batch_size, hidden_size]: 1 / keep_prob where a
      unit is kept, else 0.
    """
    shape = [config.num_steps, config.batch_size, config.hidden_size]
    keep_prob = config.keep_prob
    with tf.name_scope("dropout"):
        masks = []
        for layer in range(config.num_layers + 1):
            key = tf.stack([tf.constant((layer << 32) + seed, tf.int64), tf.cast(step, tf.int64)])
            kept = tf.random.stateless_uniform(shape, key, alg="philox") < keep_prob
            masks.append(tf.cast(kept, dtype) / tf.constant(keep_prob, dtype))
        return masks


def number_type(flags):
    """Returns the name of a run's number type: that of the factors of its matrix products."""
    if flags.use_bf16:
        return "bfloat16"
    return "float16" if flags.use_fp16 else "float32"


def state_type(number_type):
    """Returns the name of the type of activations and of the state in a run of a number type."""
    return "float16" if number_type == "float16" else "float32"


def product(a, b):
    """Returns the matrix product in the type of `a`; both factors are taken in the type of `b`."""
    return tf.cast(tf.matmul(tf.cast(a, b.dtype), b), a.dtype)


def softmax_logits(output, softmax_w, softmax_b):
    """Returns the float32 logits [n, vocab_size] of the next word, given output [n, size]."""
    return tf.cast(product(output, softmax_w), softmax_b.dtype) + softmax_b


def sequence_loss(
    output, softmax_w, softmax_b, targets, fast, factor_type=None, words=fused.ALL_WORDS
):
    """Returns the negative log probability (nats) of each target.

    It is the cross-entropy of softmax_logits with the targets, what the tutorial's
    `sequence_loss_by_example` gives for weights of 1.

    Args:
      output: [n, size], the input of the softmax layer.
      softmax_w: [size, vocab_size].
      softmax_b: [vocab_size].
      targets: word ids, n in all.
      fast: whether fused.softmax_loss computes it, which gives the same numbers but for rounding.
      factor_type: the type in which products take their factors, if not that of softmax_w.
      words: the cluster.OwnWords whose columns these are, where not all are here; then
        fused.softmax_loss computes it in any case.
    """
    targets = tf.reshape(targets, [-1])
    softmax_w = tf.cast(softmax_w, factor_type or softmax_w.dtype)
    if words is not fused.ALL_WORDS:
        return fused.softmax_loss(output, softmax_w, softmax_b, targets, words)
    if fast and output.dtype != tf.float16:  # Sums of exponentials need the range of float32.
        return fused.softmax_loss(output, softmax_w, softmax_b, targets)
    logits = softmax_logits(output, softmax_w, softmax_b)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)


def uniform_initializer(scale, seed):
    """Returns an initializer that draws from [-scale, scale), other numbers for each variable.

    Only the seed and the order of the variables decide, where TensorFlow's graph-level seed also
    counts every operation made before: the same weights whatever else the graph holds.
    """
    variables = iter(range(1 << 31))

    def initializer(shape, dtype=tf.float32, **_):
        key = [seed, next(variables)]
        return tf.random.stateless_uniform(shape, key, -scale, scale, dtype, alg="philox")

    return initializer
