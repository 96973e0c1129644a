"""The fast layer: a whole LSTM layer and the softmax loss, each with its gradient written by hand.

The numbers are those of `rnn.BasicLSTMCell`, step by step, and of TensorFlow's softmax
cross-entropy, up to rounding; only the order of the work differs. Both are differentiable once.
"""

import tensorflow.compat.v1 as tf


def sigmoid_grad(y, d_y): return tf.raw_ops.SigmoidGrad(y=y, dy=d_y)
def tanh_grad(y, d_y): return tf.raw_ops.TanhGrad(y=y, dy=d_y)
def lstm_layer(inputs, kernel, bias, c, h, forget_bias=0.0):
    """Runs one LSTM layer over all time steps.

    Only the product with h waits for the step before; the one with the inputs is a single product
    over all steps. With the derivatives of the gates taken for all steps at once, so are, on the
    way back, the products for the inputs and for the kernel:

        d_h[t]     = d_outputs[t] + d_gates[t+1] @ w_h^T
        d_c[t]     = d_c[t+1] * f[t+1] + d_h[t] * o * (1 - tanh(c[t])^2)
        d_gates[t] = [d_c[t], d_c[t], d_c[t], d_h[t]] * slopes[t]
        slopes     = [j i (1 - i), i (1 - j^2), c[t-1] f (1 - f), tanh(c[t]) o (1 - o)]
        d_inputs   = d_gates @ w_x^T
        d_kernel   = [inputs, h[t-1]]^T @ d_gates

    Args:
      inputs: [num_steps, batch_size, n].
      kernel: [n + size, 4 * size], w_x above w_h; the gates are i, j, f, o.
      bias: [4 * size].
      c, h: the state before the first step, [batch_size, size] each.
      forget_bias: a number added to the gate f.

    Returns:
      (outputs, last c): h of every step, [num_steps, batch_size, size]; [batch_size, size].
    """
    num_steps, batch_size, n = inputs.shape
    size = h.shape[-1]

    @tf.custom_gradient
    def layer(inputs, kernel, bias, c, h):
        w_x, w_h = kernel[:n], kernel[n:]
        from_inputs = tf.nn.bias_add(tf.matmul(tf.reshape(inputs, [-1, n]), w_x), bias)
        from_inputs = tf.reshape(from_inputs, [num_steps, batch_size, 4 * size])
        steps, all_c, all_h = [], [c], [h]
        for step_inputs in tf.unstack(from_inputs):
            gates = step_inputs + tf.matmul(all_h[-1], w_h)
            i, j, f, o = tf.split(gates, 4, axis=1)
            i, j, f, o = tf.sigmoid(i), tf.tanh(j), tf.sigmoid(f + forget_bias), tf.sigmoid(o)
            new_c = all_c[-1] * f + i * j
            tanh_c = tf.tanh(new_c)
            steps.append((i, j, f, o, tanh_c))
            all_c.append(new_c)
            all_h.append(tanh_c * o)

        def grad(d_outputs, d_c):
            d_outputs = tf.unstack(d_outputs)
            d_gates = [None] * num_steps
            d_h = tf.zeros_like(h)
            for t in reversed(range(num_steps)):
                i, j, f, o, tanh_c = steps[t]
                d_h += d_outputs[t]
                d_c += tanh_grad(tanh_c, d_h * o)
                d_gates[t] = tf.concat([
                    sigmoid_grad(i, d_c * j), tanh_grad(j, d_c * i), sigmoid_grad(f, d_c * all_c[t]),
                    sigmoid_grad(o, d_h * tanh_c)
                ], axis=1)
                d_h = tf.matmul(d_gates[t], w_h, transpose_b=True)
                d_c *= f
            d_gates = tf.concat(d_gates, axis=0)
            d_inputs = tf.reshape(tf.matmul(d_gates, w_x, transpose_b=True), inputs.shape)
            joined = tf.concat([inputs, tf.stack(all_h[:-1])], axis=2)
            d_kernel = tf.matmul(tf.reshape(joined, [-1, n + size]), d_gates, transpose_a=True)
            return d_inputs, d_kernel, tf.reduce_sum(d_gates, axis=0), d_c, d_h

        return (tf.stack(all_h[1:]), all_c[-1]), grad

    return layer(inputs, kernel, bias, c, h)


def softmax_loss(output, softmax_w, softmax_b, targets):
    """Returns the negative log probability (nats) of each target: [n].

    With x the logits, m their maximum and s the sum of exp(x - m), the loss is log s + m - x[y]
    and its gradient by the logits (exp(x - m) - s * onehot(y)) / s. The division, and the gradient
    of the loss, scale rows; they are applied to small arrays, not to the [n, vocab_size] one.

    Args:
      output: [n, size], the input of the softmax layer.
      softmax_w: [size, vocab_size].
      softmax_b: [vocab_size].
      targets: [n] word ids.
    """

    @tf.custom_gradient
    def loss(output, softmax_w, softmax_b):
        logits = tf.nn.bias_add(tf.matmul(output, softmax_w), softmax_b)
        largest = tf.reduce_max(logits, axis=1, keepdims=True)
        logits -= largest
        places = tf.stack([tf.range(tf.size(targets)), targets], axis=1)
        target_logits = tf.gather_nd(logits, places)
        with tf.control_dependencies([target_logits]):
            exps = tf.exp(logits)  # in place, the logits being read
        sums = tf.reduce_sum(exps, axis=1)

        def grad(d_loss):
            d_logits = tf.tensor_scatter_nd_sub(exps, places, sums)
            scale = tf.expand_dims(d_loss / sums, 1)
            d_output = tf.matmul(d_logits, softmax_w, transpose_b=True) * scale
            with tf.control_dependencies([d_output]):
                d_w = tf.matmul(tf.concat([output * scale, scale], axis=1), d_logits, transpose_a=True)
            return d_output, d_w[:-1], d_w[-1]

        return tf.log(sums) - target_logits, grad

    return loss(output, softmax_w, softmax_b)
