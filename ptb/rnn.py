"""The network: LSTM cells, dropout, softmax, first weights; and all of it, for a trained model.

The cells follow Zaremba et al. 2014, "Recurrent Neural Network Regularization" (arXiv 1409.2329),
in the form of TensorFlow 1.x's `BasicLSTMCell`: the same names, shapes and gate order, so that its
checkpoints load here and ours load there.

Variables are float32. A cell computes in the type of its inputs, float16 for `--use_fp16`. Its
matrix products may take their operands in another type, bfloat16 for `--use_bf16`; what they give
is cast back at once.
"""

import collections
import functools

import numpy as np

from ptb import cluster, fused, gpu
from ptb.terminal.quiet import tf

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
      product_type: the type of the operands of matrix products, if not that of the inputs.
    """

    def __init__(self, size, forget_bias=1.0, product_type=None):
        self._size = size
        self._forget_bias = forget_bias
        self._product_type = product_type

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
        layer = fused.fast_layer(inputs.dtype.base_dtype.name, kernel.dtype.base_dtype.name)
        h, c = layer(inputs, kernel, bias, *state, self._forget_bias)
        return h, LSTMStateTuple(c, h[-1])

    def _weights(self, inputs):
        """Returns kernel and bias, each in the type in which it is used."""
        kernel, bias = self.variables(inputs.shape[-1])
        return tf.cast(kernel, self._product_type or inputs.dtype), tf.cast(bias, inputs.dtype)

    def variables(self, input_size):
        """Returns kernel [input_size + size, 4 * size] and bias [4 * size], made or reused."""
        with tf.variable_scope("basic_lstm_cell"):
            kernel = tf.get_variable("kernel", [input_size + self._size, 4 * self._size])
            bias = tf.get_variable("bias", [4 * self._size], initializer=tf.zeros_initializer())
        return kernel, bias


class DropoutWrapper:
    """A cell whose output loses some of its units, others in every time step.

    The state that is carried from step to step keeps all of them.

    Args:
      cell: the cell.
      output_keep_prob: the probability with which a unit of the output stays.
      num_steps: number of time steps; the masks of all of them are drawn at once.
    """

    def __init__(self, cell, output_keep_prob, num_steps):
        self.layer = 1  # MultiRNNCell numbers its cells, since each layer has masks of its own.
        self._cell = cell
        self._keep_prob = output_keep_prob
        self._num_steps = num_steps
        self._step_masks = None
        self.zero_state = cell.zero_state

    def __call__(self, inputs, state):
        output, state = self._cell(inputs, state)
        if self._step_masks is None:
            self._step_masks = iter(tf.unstack(self._masks(output)))
        return output * next(self._step_masks), state

    def unroll(self, inputs, state):
        """Takes inputs [num_steps, batch_size, n] and a state; returns (outputs, last state)."""
        outputs, state = self._cell.unroll(inputs, state)
        return outputs * self._masks(outputs), state

    def _masks(self, output):
        """Returns a mask for each time step, given an output [..., batch_size, size]."""
        shape = [self._num_steps, *output.shape[-2:]]
        return dropout_mask(shape, self.layer, self._keep_prob, output.dtype)


class MultiRNNCell:
    """Layers one above the other: the output of each is the input of the next."""

    def __init__(self, cells):
        self._cells = cells
        for layer, cell in enumerate(cells, start=1):
            cell.layer = layer

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


def dropout(inputs, keep_prob):
    """Returns the embedded words with units dropped, each with probability 1 - keep_prob.

    What stays is divided by keep_prob, so that the expected sum of the units is what it was.

    Args:
      inputs: [batch_size, num_steps, size].
      keep_prob: the probability with which a unit stays, above 0.
    """
    batch_size, num_steps, size = inputs.shape
    mask = dropout_mask([num_steps, batch_size, size], 0, keep_prob, inputs.dtype)
    return inputs * tf.transpose(mask, [1, 0, 2])


def dropout_mask(shape, layer, keep_prob, dtype):
    """Returns the mask [num_steps, batch_size, size] of a training step: 1 / keep_prob, or 0.

    It is a function of the graph's seed, the training step and the layer (0 is the embedding)
    alone, so that a run that is taken up again draws the masks that it would have drawn. Of several
    workers each draws the mask of the whole batch and takes its own rows.
    """
    num_steps, batch_size, size = shape
    worker = cluster.this_worker()
    seed = tf.get_default_graph().seed or 0
    with tf.name_scope("dropout"):
        step = tf.cast(tf.train.get_or_create_global_step(), tf.int64)
        key = tf.stack([tf.constant((layer << 32) + seed, tf.int64), step])
        drawn = tf.random.stateless_uniform(
            [num_steps, batch_size * worker.number, size], key, alg="philox"
        )
        kept = drawn[:, worker.index * batch_size : (worker.index + 1) * batch_size] < keep_prob
        return tf.cast(kept, dtype) / tf.constant(keep_prob, dtype)


def number_type(flags):
    """Returns the name of a run's number type: that of the operands of its matrix products."""
    if flags.use_bf16:
        return "bfloat16"
    return "float16" if flags.use_fp16 else "float32"


def data_type(number_type):
    """Returns the name of the type of activations and of the state in a run of a number type."""
    return "float16" if number_type == "float16" else "float32"


def product(a, b):
    """Returns the matrix product in the type of `a`; both operands are taken in the type of `b`."""
    return tf.cast(tf.matmul(tf.cast(a, b.dtype), b), a.dtype)


def softmax_logits(output, softmax_w, softmax_b):
    """Returns the float32 logits [n, vocab_size] of the next word, given output [n, size]."""
    return tf.cast(product(output, softmax_w), softmax_b.dtype) + softmax_b


Logits = collections.namedtuple(
    "Logits", ["output", "softmax_w", "softmax_b", "product_type"]
)
Logits.__doc__ = """The logits matmul(output, softmax_w) + softmax_b, which nobody has computed yet.

Whoever takes them decides how: softmax_logits in plain operations, the fast loss together with the
softmax and the gradients of both. Shapes are [n, size], [size, vocab_size] and [vocab_size]; the
product takes its operands in product_type.
"""


def sequence_loss_by_example(logits, targets, fast):
    """Returns the negative log probability (nats) of each target: float32 [n].

    It is the softmax's cross-entropy with the targets, as the function of that name in
    TensorFlow 1.x gives it for weights of 1.

    Args:
      logits: the Logits.
      targets: word ids, n in all.
      fast: whether fused.softmax_loss computes it, which gives the same numbers but for rounding.
    """
    output, softmax_w, softmax_b, product_type = logits
    softmax_w = tf.cast(softmax_w, product_type)
    targets = tf.reshape(targets, [-1])
    if fast and output.dtype != tf.float16:  # Sums of exponentials need the range of float32.
        return fused.softmax_loss(output, softmax_w, softmax_b, targets)
    logits = softmax_logits(output, softmax_w, softmax_b)
    if gpu.is_visible():
        # The gradient of the sparse one scatters, which a deterministic GPU leaves to the host.
        labels = tf.one_hot(targets, logits.shape[1], dtype=logits.dtype)
        return tf.nn.softmax_cross_entropy_with_logits_v2(labels=labels, logits=logits)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)


class Network:
    """The network of a trained model, for whoever asks it; lstm.PTBModel has its own, to train it.

    Its variables have the names and shapes of PTBModel's. They are made when they are first used;
    whoever uses them gives them their values, as no initializer is ever run.

    Args:
      config: an object with num_layers, hidden_size and vocab_size.
      number_type: the run's; see the function number_type.
      scope: the name of the variables' scope; PTBModel's is "Model".
    """

    def __init__(self, config, number_type="float32", scope="Model"):
        self._config = config
        self._scope_name = scope
        self._product_type = tf.as_dtype(number_type)
        self._data_type = tf.as_dtype(data_type(number_type))
        self._cell = MultiRNNCell([
            BasicLSTMCell(config.hidden_size, forget_bias=0.0, product_type=self._product_type)
            for _ in range(config.num_layers)
        ])

    def zero_state(self, batch_size):
        """Returns the state before the first word."""
        return self._cell.zero_state(batch_size, self._data_type)

    def unroll(self, ids, state):
        """Takes ids [batch_size, num_steps] and a state; returns (output, state), the fast way.

        The output has a row for each word, [batch_size * num_steps, size].
        """
        outputs, state = self._run(self._cell.unroll, ids, state)
        return tf.reshape(outputs, [-1, self._config.hidden_size]), state

    def step(self, ids, state):
        """Takes ids [n] and a state; returns the state after them."""
        return self._run(self._cell, ids, state)[1]

    def output(self, state):
        """Returns the output [n, size] of the step that led to a state."""
        return state[-1].h

    def gates(self, ids, state):
        """Takes ids [n] and a state; returns each layer's Gates."""
        return self._run(self._cell.gates, ids, state)[1]

    def logits(self, output):
        """Returns the float32 logits [n, vocab_size] of the next word, given output [n, size]."""
        output, softmax_w, softmax_b, product_type = self._logits(output)
        return softmax_logits(output, tf.cast(softmax_w, product_type), softmax_b)

    def loss(self, output, targets, fast):
        """Returns the loss of targets, given output [n, size]; see sequence_loss_by_example."""
        return sequence_loss_by_example(self._logits(output), targets, fast)

    def _run(self, function, ids, state):
        """Calls a function of the cell on the embedded ids and a state."""
        config = self._config
        with self._scope():
            with tf.device("/cpu:0"):
                embedding = tf.get_variable("embedding", [config.vocab_size, config.hidden_size])
                inputs = tf.nn.embedding_lookup(embedding, ids)
            with tf.variable_scope("RNN"):
                return function(tf.cast(inputs, self._data_type), state)

    def _logits(self, output):
        """Returns the Logits of output [n, size]."""
        size, vocab_size = self._config.hidden_size, self._config.vocab_size
        with self._scope():
            softmax_w = tf.get_variable("softmax_w", [size, vocab_size])
            softmax_b = tf.get_variable("softmax_b", [vocab_size])
        return Logits(output, softmax_w, softmax_b, self._product_type)

    def _scope(self):
        """Returns the variables' scope.

        TensorFlow's default initializer would demand a seed in a process that trains
        deterministically, although it is not run.
        """
        initializer = tf.zeros_initializer()
        return tf.variable_scope(self._scope_name, reuse=tf.AUTO_REUSE, initializer=initializer)


class Average:
    """Several networks that answer as one: with the mean of their probabilities of each word.

    What a Network takes and returns as a state or an output is a tuple here, with that of each.

    Args:
      networks: Networks with a scope each. They have the same words; some may have more rows than
        words.
    """

    def __init__(self, networks):
        self._networks = networks

    def zero_state(self, batch_size):
        """Returns the state before the first word."""
        return tuple(network.zero_state(batch_size) for network in self._networks)

    def unroll(self, ids, state):
        """Takes ids [batch_size, num_steps] and a state; returns (output, state), the fast way."""
        found = [network.unroll(ids, its) for network, its in self._with(state)]
        return tuple(zip(*found))

    def step(self, ids, state):
        """Takes ids [n] and a state; returns the state after them."""
        return tuple(network.step(ids, its) for network, its in self._with(state))

    def output(self, state):
        """Returns the output of the step that led to a state."""
        return tuple(network.output(its) for network, its in self._with(state))

    def logits(self, output):
        """Returns float64 logits [n, the most rows], whose softmax is the mean probability."""
        logits = [tf.cast(network.logits(its), tf.float64) for network, its in self._with(output)]
        rows = max(its.shape[1] for its in logits)
        return log_of_mean([
            tf.pad(tf.nn.log_softmax(its), [[0, 0], [0, rows - its.shape[1]]],
                   constant_values=-np.inf)  # a row that this network lacks: a probability of 0
            for its in logits
        ])

    def loss(self, output, targets, fast):
        """Returns the negative log of the mean probability (nats) of each target: float64 [n]."""
        losses = [network.loss(its, targets, fast) for network, its in self._with(output)]
        return -log_of_mean([-tf.cast(its, tf.float64) for its in losses])

    def _with(self, parts):
        """Returns each network with its part of a state or an output."""
        return zip(self._networks, parts, strict=True)


def average(networks):
    """Returns the one network of a list, or the Average of several."""
    return networks[0] if len(networks) == 1 else Average(networks)


def log_of_mean(log_probs):
    """Returns the logarithm of the mean of probabilities, given the list of their logarithms.

    They are compared with the largest of them before they leave the logarithm, so that all of them
    may be too small for a float64. The mean of equal numbers is exactly that number.
    """
    largest = functools.reduce(tf.maximum, log_probs)
    shares = [tf.exp(log_prob - largest) for log_prob in log_probs]
    return largest + tf.log(tf.add_n(shares) / len(shares))


def random_uniform_initializer(minval, maxval):
    """Returns an initializer that draws from [minval, maxval), other numbers for each variable.

    Only the graph's seed and the order of the variables decide, where TensorFlow's initializer of
    this name also counts every operation made before: the same weights whatever else the graph
    holds.
    """
    variables = iter(range(1 << 31))

    def initializer(shape, dtype=tf.float32, **_):
        key = [tf.get_default_graph().seed or 0, next(variables)]
        return tf.random.stateless_uniform(shape, key, minval, maxval, dtype, alg="philox")

    return initializer
