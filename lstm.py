"""Trains an LSTM language model on the Penn Treebank, and reports its perplexity each epoch.

The model is that of Zaremba, Sutskever and Vinyals, "Recurrent Neural Network Regularization"
(arXiv 1409.2329), in the form of the PTB tutorial of TensorFlow 1.x, whose authors reached:

    config   epochs    train    valid     test   perplexity
    small        13    40.55   120.70   115.52
    medium       39    45.68    86.97    83.47
    large        55    37.94    82.75    78.49

    python lstm.py --config small

Names and order are those of the article; where something differs, a comment says why. A table of
the article's statements, in Chinese, is in ptb/docs/README.zh-CN.md.
"""

import time

# The article has `import ptb.reader as reader`. Here rnn stands for tf.contrib, and the others do
# what the article leaves out. They come first, as they hide what TensorFlow prints while it loads.
from ptb import cluster, reader, rnn, run
from ptb.evaluate import TextInput, perplexity, text_perplexity
from ptb.plan import make_plan
from ptb.terminal import command_line

import numpy as np

# TensorFlow 2 keeps graphs, sessions and the rest of TensorFlow 1 under this name.
import tensorflow.compat.v1 as tf

command_line.prepare_flags(__name__)  # So that a notebook can run this file more than once.
flags = tf.app.flags
FLAGS = flags.FLAGS

flags.DEFINE_string("save_path", "./Out", "Where runs are saved, each in <save_path>/<config>.")
flags.DEFINE_bool("use_fp16", False, "Whether to compute in 16-bit floats instead of 32-bit ones.")
# The article has only these two. It writes the next two into its code; the others are new.
flags.DEFINE_string("config", "small", "What to train: small, medium, large, tst, or your own.")
flags.DEFINE_string("data_path", "simple-examples/data", "The folder of the corpus.")
flags.DEFINE_bool("use_bf16", False, "Whether matrix products take 16-bit operands, for speed.")
flags.DEFINE_enum("rnn_mode", "fused", ["fused", "basic"], "How to compute: fast, or in a loop.")
flags.DEFINE_string("init_from", None, "A run or checkpoint from whose weights a new run starts.")
flags.DEFINE_bool("restart", False, "Whether to train anew; an earlier run is moved aside.")
flags.DEFINE_float("save_minutes", 5, "How often to save within an epoch.", lower_bound=0)
flags.DEFINE_float("wait_minutes", 2, "How long workers wait for one another.", lower_bound=0.05)
flags.DEFINE_integer("seed", 1, "It decides the initial weights and the dropout.", 0, 2**31 - 1)


def data_type():
    """Returns the type of the LSTM's outputs and state; in the article all is float32."""
    return tf.float16 if FLAGS.use_fp16 else tf.float32


class PTBInput:
    """The words of each step (input_data), and for each of them the word after it (targets)."""

    def __init__(self, config, data, name=None):
        self.batch_size = batch_size = config.batch_size
        self.num_steps = num_steps = config.num_steps
        # The steps of an epoch: 1 is subtracted since each word needs one after it as its target.
        self.epoch_size = ((len(data) // batch_size) - 1) // num_steps
        # The article's producer counts steps by itself, on and on. Here run_epoch says the number:
        # every epoch begins at the first word, and a resumed one where it was stopped.
        self.step = reader.epoch_steps(self.epoch_size)
        self.input_data, self.targets = reader.ptb_producer(
            data, batch_size, num_steps, name=name, step=self.step)


class PTBModel:
    """The PTB model: embedding, LSTM layers, softmax; and, in training, its update.

    A state is a pair (c, h) for each layer, [batch_size, hidden_size] each. The loss is the
    negative log probability (nats) of each target; the cost is their sum, divided by batch_size.
    """

    def __init__(self, is_training, config, input_):
        self._input = input_
        batch_size = input_.batch_size
        num_steps = input_.num_steps
        size = config.hidden_size
        vocab_size = config.vocab_size
        product_type = rnn.number_type(FLAGS)  # of matrix products: float32 in the article

        # rnn has the cells of tf.contrib.rnn, which is gone. Their states are always tuples, which
        # is why state_is_tuple is missing. A forget bias makes a new cell keep more of its state.
        # The article's comment says that it helps a little; its code has none (0.0), as here.
        def lstm_cell():
            return rnn.BasicLSTMCell(size, forget_bias=0.0, product_type=product_type)

        # Dropout sets outputs to 0 at random in training, so that no unit relies on certain others.
        # Which ones is drawn for num_steps at once, and is the same in a run that was resumed.
        attn_cell = lstm_cell
        if is_training and config.keep_prob < 1:
            def attn_cell():
                return rnn.DropoutWrapper(
                    lstm_cell(), output_keep_prob=config.keep_prob, num_steps=num_steps)

        cell = rnn.MultiRNNCell([attn_cell() for _ in range(config.num_layers)])
        self._initial_state = cell.zero_state(batch_size, data_type())

        with tf.device("/cpu:0"):
            # Row i is a vector for word i, learned as all the rest is. It is only looked up, for
            # which the processor is enough (the article's comment says GPU). The cast is for
            # --use_fp16, which the article defines and does not use.
            embedding = tf.get_variable("embedding", [vocab_size, size], dtype=tf.float32)
            inputs = tf.cast(tf.nn.embedding_lookup(embedding, input_.input_data), data_type())

        if is_training and config.keep_prob < 1:
            # The article has tf.nn.dropout, which would not drop the same in a resumed run.
            inputs = rnn.dropout(inputs, config.keep_prob)

        # The article's loop is --rnn_mode basic. The fast mode computes all steps of a layer in one
        # call; its numbers differ by rounding. Gradients go back num_steps words, and no further.
        outputs = []
        state = self._initial_state
        with tf.variable_scope("RNN"):
            if FLAGS.rnn_mode == "basic":
                for time_step in range(num_steps):
                    if time_step > 0:  # The first step has made the cells' variables.
                        tf.get_variable_scope().reuse_variables()
                    # The dimensions are row, word and unit: this is one word of every row.
                    (cell_output, state) = cell(inputs[:, time_step, :], state)
                    outputs.append(cell_output)
                outputs = tf.concat(outputs, 1)
            else:
                outputs, state = cell.unroll(inputs, state)
        # A matrix with a row for each word of the batch (the article's comment says: a vector).
        output = tf.reshape(outputs, [-1, size])

        softmax_w = tf.get_variable("softmax_w", [size, vocab_size], dtype=tf.float32)
        softmax_b = tf.get_variable("softmax_b", [vocab_size], dtype=tf.float32)
        # They stand for tf.matmul(output, softmax_w) + softmax_b, as the article has it; the fast
        # mode computes that together with the loss.
        logits = rnn.Logits(output, softmax_w, softmax_b, product_type)
        # One number for each word, each of weight 1, as the article's tf.ones says.
        self.loss = loss = rnn.sequence_loss_by_example(
            logits, input_.targets, fast=FLAGS.rnn_mode == "fused")
        # Summed over the words of a row, averaged over the rows. What cluster does is for several
        # processes; in a single one average and add_up return what they are given.
        self._cost = cost = cluster.average(tf.reduce_sum(loss) / batch_size)
        self._final_state = state

        if not is_training:
            return

        self._lr = tf.Variable(0.0, trainable=False)
        tvars = tf.trainable_variables()
        # Now and then gradients explode: where the norm of all is above max_grad_norm, they are
        # scaled down together.
        grads, _ = tf.clip_by_global_norm(
            cluster.add_up(tf.gradients(cost, tvars)), config.max_grad_norm)
        optimizer = tf.train.GradientDescentOptimizer(self._lr)
        self._train_op = optimizer.apply_gradients(
            zip(grads, tvars), global_step=tf.train.get_or_create_global_step())

        self._new_lr = tf.placeholder(tf.float32, shape=[], name="new_learning_rate")
        self._lr_update = tf.assign(self._lr, self._new_lr)

    def assign_lr(self, session, lr_value):
        """Sets the learning rate of the training model."""
        session.run(self._lr_update, feed_dict={self._new_lr: lr_value})

    # A property can be read from outside, and not be replaced there by mistake.
    @property
    def input(self):
        return self._input

    @property
    def initial_state(self):
        return self._initial_state

    @property
    def cost(self):
        return self._cost

    @property
    def final_state(self):
        return self._final_state

    @property
    def lr(self):
        return self._lr

    @property
    def train_op(self):
        return self._train_op


# The article has its configurations here. They are in configs.py, for whoever edits them.
configs = command_line.import_edited("configs")
from configs import *  # noqa: E402, F403


def run_epoch(session, model, eval_op=None, verbose=False, follow=None):
    """Runs the model over its data once; returns the perplexity: the lower, the better.

    The eval_op runs with each step; verbose prints about ten lines, with the speed in words/s. What
    the article lacks is follow, a run.Follower: it says where a resumed epoch goes on, and is told
    of each step. Raises FloatingPointError if a cost is not finite.
    """
    epoch_size = model.input.epoch_size
    follow = follow or run.Follower()  # It begins at the first step, and tells nobody.
    start_time = time.perf_counter() - follow.seconds  # time.time() jumps when a clock is set.
    costs = follow.costs
    iters = follow.step * model.input.num_steps
    state = follow.state or session.run(model.initial_state)

    fetches = {"cost": model.cost, "final_state": model.final_state}
    if eval_op is not None:
        fetches["eval_op"] = eval_op

    # The article prints where step % (epoch_size // 10) == 10; from 110 steps on, so does this.
    interval = max(epoch_size // 10, 1)
    for step in range(follow.step, epoch_size):
        feed_dict = {model.input.step: step}
        for i, (c, h) in enumerate(model.initial_state):
            feed_dict[c] = state[i].c
            feed_dict[h] = state[i].h

        vals = session.run(fetches, feed_dict)
        cost = float(vals["cost"])  # Otherwise NumPy would add the costs up in float32.
        state = vals["final_state"]
        if not np.isfinite(cost):
            raise FloatingPointError(f"the cost is {cost} at step {step} of {epoch_size}")

        costs += cost
        iters += model.input.num_steps

        if verbose and step % interval == min(10, interval - 1):
            print("%.3f perplexity: %.3f speed: %.0f wps" %
                  (step * 1.0 / epoch_size, perplexity(costs, iters),
                   iters * model.input.batch_size * cluster.this_worker().number
                   / (time.perf_counter() - start_time)))
        follow.after_step(step + 1, cost, costs, state)

    return perplexity(costs, iters)  # np.exp(costs / iters), without a warning if that is infinite


@command_line.takes_arguments  # In a notebook, main(["lstm.py", "--config", "tst"]) is a command.
@cluster.member(FLAGS)  # Where TF_CONFIG names several workers, this process is one of them.
def main(_):
    """Trains a configuration for all its epochs, tests it and saves it."""
    # Here the article has SmallConfig() and a path. make_plan reads the flags, finds or downloads
    # the corpus, and knows the vocabulary.
    plan = make_plan(FLAGS, command_line.get_config(FLAGS.config, configs))
    raw_data = reader.ptb_raw_data(plan.corpus.folder, vocabulary=plan.source.vocabulary)
    reader.refuse_short_texts(plan.corpus.folder, raw_data, plan.config)

    # What the article does not have (going on after a stop, saving, a display) is behind this_run.
    with run.open_run(plan, raw_data) as this_run:
        if this_run.is_finished:
            this_run.show_results()
        else:
            train(this_run, plan.config, raw_data)


def train(this_run, config, raw_data):
    """Does what the article's main part does: builds the three models, trains and tests them."""
    train_data, valid_data, test_data, _ = raw_data
    # The article reads the test text one word at a time (batch_size = num_steps = 1). TextInput
    # reads batch_size rows side by side, many times faster; the perplexity differs by rounding.
    eval_config = config
    # One of several workers takes its rows of the batch; a process alone takes all.
    config, train_data, valid_data = cluster.own_part(config, train_data, valid_data)

    with tf.Graph().as_default():
        run.make_deterministic(FLAGS.seed)  # The same command then prints the same numbers.
        # TensorFlow's initializer of this name draws other weights whenever the graph changes.
        initializer = rnn.random_uniform_initializer(-config.init_scale, config.init_scale)

        with tf.name_scope("Train"):
            train_input = PTBInput(config=config, data=train_data, name="TrainInput")
            with tf.variable_scope("Model", reuse=None, initializer=initializer):
                m = PTBModel(is_training=True, config=config, input_=train_input)

        with tf.name_scope("Valid"):
            valid_input = PTBInput(config=config, data=valid_data, name="ValidInput")
            with tf.variable_scope("Model", reuse=True, initializer=initializer):
                mvalid = PTBModel(is_training=False, config=config, input_=valid_input)

        with tf.name_scope("Tst"):
            test_input = TextInput(config=eval_config, data=test_data, name="TstInput")
            with tf.variable_scope("Model", reuse=True, initializer=initializer):
                mtst = PTBModel(is_training=False, config=eval_config, input_=test_input)

        # It is tf.train.Supervisor without threads; training has what is comments in the article.
        sv = run.Supervisor()
        with sv.managed_session() as session, this_run.going_on(session, m, mvalid) as training:
            # A run that goes on has less than the article's range(config.max_max_epoch) left.
            for i in training.epochs_left():
                # After max_epoch epochs the rate falls: large steps first, then ever finer ones.
                lr_decay = config.lr_decay ** max(i + 1 - config.max_epoch, 0.0)
                learning_rate = config.learning_rate * lr_decay
                m.assign_lr(session, learning_rate)

                print("Epoch: %d Learning rate: %.3f" % (i + 1, session.run(m.lr)))
                train_perplexity = run_epoch(session, m, eval_op=m.train_op, verbose=True,
                                             follow=training.train_pass())
                print("Epoch: %d Train Perplexity: %.3f" % (i + 1, train_perplexity))
                valid_perplexity = run_epoch(session, mvalid, follow=training.valid_pass())
                print("Epoch: %d Valid Perplexity: %.3f" % (i + 1, valid_perplexity))
                training.end_epoch(learning_rate, train_perplexity, valid_perplexity)

            tst_perplexity = text_perplexity(session, mtst, after_step=training.after_test_step)
            print("Test Perplexity: %.3f" % tst_perplexity)
            print("Saving model to %s." % training.finish(tst_perplexity, mtst))


# After `import *`, tf.app.run() in a script without a main would start ours, so it is left out.
__all__ = [name for name in dir() if name != "main" and name[0] != "_"]

if __name__ == "__main__":
    command_line.run(main)  # As tf.app.run(), which would ignore flags that it does not know.
