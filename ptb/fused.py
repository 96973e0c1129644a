"""The fast parts: a whole LSTM layer in two ways, and the softmax loss.

The numbers are those of `rnn.BasicLSTMCell` step by step and of TensorFlow's softmax cross-entropy,
up to rounding; only the order of the work differs. `lstm_layer` and `softmax_loss` consist of
TensorFlow's own operations, have a gradient written by hand, and run on any device. `cudnn_layer`
is NVIDIA's and runs on its GPUs. All of them can be differentiated once.

The weights may have another type than all the rest: bfloat16 beside float32. Then every matrix
product takes both its operands in that type. What it gives is cast back, that of the softmax layer
after its bias is added; the gradients of the weights stay in it.

Both layers have these arguments:
  inputs: [num_steps, batch_size, n].
  kernel: [n + size, 4 * size], w_x above w_h; the gates are i, j, f, o. Its type is that of the
    operands of all products.
  bias: [4 * size].
  c, h: the state before the first step, [batch_size, size] each.
  forget_bias: a number added to the gate f.
and return (outputs, last c): h of every step, [num_steps, batch_size, size]; [batch_size, size].

Their gradients, with * element by element, d_x the gradient of the cost by x, and sigm'(y) =
y (1 - y), tanh'(y) = 1 - y^2 the derivatives where the value is y:

    d_h[t]     = d_outputs[t] + d_gates[t+1] @ w_h^T
    d_c[t]     = d_c[t+1] * f[t+1] + d_h[t] * o * tanh'(tanh(c[t]))
    d_gates[t] = [d_c[t] * j * sigm'(i), d_c[t] * i * tanh'(j),
                  d_c[t] * c[t-1] * sigm'(f), d_h[t] * tanh(c[t]) * sigm'(o)]
    d_inputs   = d_gates @ w_x^T
    d_kernel   = [inputs, h[t-1]]^T @ d_gates
"""

import functools

import numpy as np

from ptb import gpu
from ptb.terminal.quiet import session_config, tf

# The most by which the numbers of the two layers may differ, relative to their size. TF32 and
# float16 have 11 binary digits, bfloat16 has 8; a wrong layer is wrong by far more.
MOST_DIFFERENCE = {"float64": 0.01, "float32": 0.01, "float16": 0.01, "bfloat16": 0.03}


def fast_layer(data_type, product_type):
    """Returns the layer to use, given the types of the state and of the operands of products.

    A graph gets the one for the device on which it is built. Variables, state and masks are those
    of the other one as well, so that a run may go on on another device.
    """
    if gpu.is_visible() and why_not_cudnn(data_type, product_type) is None:
        return cudnn_layer
    return lstm_layer


def lstm_layer(inputs, kernel, bias, c, h, forget_bias=0.0):
    """Runs one LSTM layer over all time steps, in plain operations.

    Only the product with h has to wait for the step before; the one with the inputs is a single
    product over all steps. So are, on the way back, those for the inputs and for the kernel.
    """
    num_steps, batch_size, n = inputs.shape
    size = h.shape[-1]

    @tf.custom_gradient
    def layer(inputs, kernel, bias, c, h):
        w_x, w_h = kernel[:n], kernel[n:]
        w_h_transposed = _transposed(w_h)
        bias += np.repeat([0.0, 0.0, forget_bias, 0.0], size).astype(bias.dtype.as_numpy_dtype)
        x_operand = tf.cast(inputs, kernel.dtype)
        from_inputs = tf.matmul(tf.reshape(x_operand, [-1, n]), w_x)
        from_inputs = tf.nn.bias_add(tf.cast(from_inputs, bias.dtype), bias)
        from_inputs = tf.reshape(from_inputs, [num_steps, batch_size, 4 * size])
        steps, all_c, all_h, h_operands = [], [c], [], [tf.cast(h, kernel.dtype)]
        axis = tf.constant(1)  # One constant serves all steps.
        for step_inputs in tf.unstack(from_inputs):
            from_h = _product_of_few_rows(h_operands[-1], w_h, w_h_transposed)
            gates = step_inputs + tf.cast(from_h, bias.dtype)
            i, j, f, o = tf.split(gates, 4, axis)
            i, j, f, o = tf.sigmoid(i), tf.tanh(j), tf.sigmoid(f), tf.sigmoid(o)
            new_c = all_c[-1] * f + i * j
            tanh_c = tf.tanh(new_c)
            steps.append((i, j, f, o, tanh_c))
            all_c.append(new_c)
            all_h.append(tanh_c * o)
            h_operands.append(tf.cast(all_h[-1], kernel.dtype))

        def grad(d_outputs, d_c):
            d_outputs = tf.unstack(d_outputs)
            d_gates = [None] * num_steps
            d_h = tf.zeros_like(h)
            # The slopes of the gates could be computed for all steps at once, outside the loop.
            # That is slower than one small operation after the other, as measured.
            for t in reversed(range(num_steps)):
                i, j, f, o, tanh_c = steps[t]
                d_h += d_outputs[t]
                d_c += _tanh_grad(tanh_c, d_h * o)
                d_i, d_j = _sigmoid_grad(i, d_c * j), _tanh_grad(j, d_c * i)
                d_f, d_o = _sigmoid_grad(f, d_c * all_c[t]), _sigmoid_grad(o, d_h * tanh_c)
                d_gates[t] = tf.cast(tf.concat([d_i, d_j, d_f, d_o], axis), kernel.dtype)
                d_h = _product_of_few_rows(d_gates[t], w_h_transposed, w_h)
                d_h = tf.cast(d_h, h.dtype)
                d_c *= f
            d_gates = tf.concat(d_gates, axis=0)
            d_inputs = tf.reshape(tf.matmul(d_gates, w_x, transpose_b=True), inputs.shape)
            joined = tf.concat([x_operand, tf.stack(h_operands[:-1])], axis=2)
            d_kernel = tf.matmul(_transposed(tf.reshape(joined, [-1, n + size])), d_gates)
            d_bias = tf.reduce_sum(tf.cast(d_gates, bias.dtype), axis=0)
            return tf.cast(d_inputs, inputs.dtype), d_kernel, d_bias, d_c, d_h

        return (tf.stack(all_h), all_c[-1]), grad

    return layer(inputs, kernel, bias, c, h)


def cudnn_layer(inputs, kernel, bias, c, h, forget_bias=0.0):
    """Runs one LSTM layer over all time steps by cuDNN: some kernels on a GPU, not thousands.

    TensorFlow's operation rounds nothing to bfloat16 inside, and its gradient in that type does not
    get what the way forward has kept. So with bfloat16 operands the kernel and the inputs are
    rounded, and cuDNN computes with these in float32; a recent GPU then takes TF32, to which such
    numbers are exact. For float16 cuDNN adds up in float32.
    """
    num_steps, batch_size, _ = inputs.shape
    rounded = tf.cast(tf.cast(inputs, kernel.dtype), inputs.dtype)
    # Version 3 alone runs with cuDNN 9. It wants to know how long each row is, and never chooses
    # an algorithm by its time, by which two runs would differ.
    outputs, _, last_c, _, _ = tf.raw_ops.CudnnRNNV3(
        input=rounded, input_h=h[None], input_c=c[None],
        params=cudnn_params(tf.cast(kernel, inputs.dtype), bias, forget_bias),
        sequence_lengths=np.full(batch_size, num_steps, np.int32), rnn_mode="lstm",
    )
    return outputs, last_c[0]


def cudnn_params(kernel, bias, forget_bias):
    """Returns the weights of a layer as cuDNN has them: [(n + size + 2) * 4 * size].

    First there are the matrices of the input for the gates i, f, j, o, each [size, n], which is the
    transpose of ours; then those of h, each [size, size]; then the biases of the input and those of
    h, each for the same gates. cuDNN adds both biases, so that those of h are zeros. Gradients come
    back through these operations by themselves.
    """
    size = bias.shape[0] // 4
    added = np.repeat([0.0, 0.0, forget_bias, 0.0], size)
    bias = bias + added.astype(bias.dtype.as_numpy_dtype)  # It may be a variable, without a +=.
    params = []
    for rows in kernel[:-size], kernel[-size:], bias[None]:
        i, j, f, o = tf.split(tf.transpose(rows), 4)
        params += [tf.reshape(gate, [-1]) for gate in (i, f, j, o)]
    return tf.concat([*params, tf.zeros_like(bias)], axis=0)


@functools.cache
def why_not_cudnn(data_type, product_type, layer=cudnn_layer):
    """Returns why cuDNN's layer is not to be used here, in a phrase; None where it is good.

    A layer of a few units is computed both ways, forward and gradients, once in a process. That
    tells a wrong number from a rounded one, and finds libraries that do not fit together.

    Args:
      data_type: the type of inputs and state.
      product_type: the type of the operands of products.
      layer: what takes the place of cudnn_layer.
    """
    num_steps, batch_size, n, size = 5, 3, 7, 4
    rng = np.random.default_rng(1)
    shapes = [num_steps, batch_size, n], [n + size, 4 * size], [4 * size], *[[batch_size, size]] * 2
    values = [rng.normal(size=shape) for shape in (*shapes, [num_steps, batch_size, size], [size])]
    with tf.Graph().as_default(), tf.Session(config=session_config()) as session:
        inputs, kernel, bias, c, h, *weights = [tf.constant(v, data_type) for v in values]
        args = [inputs, tf.cast(kernel, product_type), bias, c, h]
        results = []
        for function in lstm_layer, layer:
            outputs, last_c = function(*args, forget_bias=0.5)
            cost = tf.reduce_sum(outputs * weights[0]) + tf.reduce_sum(last_c * weights[1])
            tensors = [outputs, last_c, *tf.gradients(cost, args)]
            results.append([tf.cast(tensor, tf.float32) for tensor in tensors])
        try:
            expected, found = session.run(results)
        except tf.errors.OpError as error:
            # The message begins with where the graph was built, and goes on with the node's name.
            said = error.message.rpartition("\nNode: ")[2].partition("\n")
            return (said[2] or said[0]).partition("\n")[0]
    difference = np.max([  # It is NaN where one of them is.
        np.linalg.norm(value - right) / np.linalg.norm(right)
        for right, value in zip(expected, found)
    ])
    if not difference < MOST_DIFFERENCE[product_type]:
        return f"its numbers differ from those of plain operations by {difference:.2g}"
    return None


def _transposed(matrix):
    """Returns the transpose of a matrix, written out before the products that take it.

    That makes those products faster. The transposition has three dimensions because TensorFlow's
    optimizer would merge the transposition of a plain matrix into the products again.
    """
    rows, columns = matrix.shape
    return tf.reshape(tf.transpose(matrix[None], [0, 2, 1]), [columns, rows])


def _product_of_few_rows(few_rows, matrix, transposed):
    """Returns few_rows @ matrix, given also the transpose of the matrix, and takes the faster one.

    Processors multiply bfloat16 numbers in pairs. The numbers of a pair lie side by side in a row
    of the transpose, and a row apart in the matrix.
    """
    if matrix.dtype == tf.bfloat16:
        return tf.matmul(few_rows, transposed, transpose_b=True)
    return tf.matmul(few_rows, matrix)


def _sigmoid_grad(y, d_y):
    """Returns d_y * y * (1 - y), in one operation."""
    return tf.raw_ops.SigmoidGrad(y=y, dy=d_y)


def _tanh_grad(y, d_y):
    """Returns d_y * (1 - y^2), in one operation."""
    return tf.raw_ops.TanhGrad(y=y, dy=d_y)


def softmax_loss(output, softmax_w, softmax_b, targets):
    """Returns the negative log probability (nats) of each target: [n].

    With x the logits, m the largest and s the sum of exp(x - m), the loss is log s + m - x[target]
    and its gradient by the logits (exp(x - m) - s * onehot(target)) / s. The division by s and the
    gradient of the loss scale whole rows: small arrays take them, not the [n, vocab_size] one,
    which is the largest of a step and goes through memory as seldom as possible.

    Args:
      output: [n, size], the input of the softmax layer.
      softmax_w: [size, vocab_size]. Its type is that of the operands of all products.
      softmax_b: [vocab_size].
      targets: [n] word ids.
    """

    @tf.custom_gradient
    def losses(output, softmax_w, softmax_b):
        product_type = softmax_w.dtype
        logits = tf.matmul(tf.cast(output, product_type), softmax_w)
        logits = tf.cast(tf.nn.bias_add(logits, tf.cast(softmax_b, product_type)), output.dtype)
        highest = tf.reduce_max(logits, axis=1, keepdims=True)
        logits -= highest
        places = tf.stack([tf.range(tf.size(targets)), targets], axis=1)
        target_logits = tf.gather_nd(logits, places)
        with tf.control_dependencies([target_logits]):
            exps = tf.exp(logits)  # It may overwrite the logits, which nobody needs any more.
        sums = tf.reduce_sum(exps, axis=1)
        def grad(d_loss):
            if gpu.is_visible():  # A deterministic scatter operation would bring exps to the host.
                is_target = tf.one_hot(targets, exps.shape[1], dtype=exps.dtype)
                d_logits = exps - is_target * tf.expand_dims(sums, 1)
            else:  # This one works in the memory of exps, which others would copy.
                d_logits = tf.raw_ops.ScatterNdNonAliasingAdd(
                    input=exps, indices=places, updates=-sums
                )
            d_logits = tf.cast(d_logits, product_type)
            scale = tf.expand_dims(d_loss / sums, 1)
            d_output = tf.matmul(d_logits, softmax_w, transpose_b=True)
            d_output = tf.cast(d_output, output.dtype) * scale
            # d_output comes first, because the LSTM waits for it and then leaves a core free for
            # the rest. The gradient of softmax_b is computed as one more row of that of softmax_w,
            # which saves a pass over d_logits.
            with tf.control_dependencies([d_output]):
                joined = tf.cast(tf.concat([output * scale, scale], axis=1), product_type)
                d_softmax = tf.matmul(_transposed(joined), d_logits)
            return d_output, d_softmax[:-1], tf.cast(d_softmax[-1], softmax_b.dtype)

        return tf.log(sums) - target_logits, grad

    return losses(output, softmax_w, softmax_b)
