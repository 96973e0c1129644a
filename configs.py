"""The configurations: the values that a user edits, each explained in SmallConfig.

To make one of your own, add a class: `class WideConfig(SmallConfig)` is `--config wide`.
"""


class SmallConfig:
    """Trains in minutes and has no dropout; its test perplexity on PTB is about 115."""

    init_scale = 0.1  # The initial weights are drawn evenly from [-init_scale, init_scale).
    learning_rate = 1.0  # This is the learning rate of the first max_epoch epochs.
    max_grad_norm = 5  # Gradients with a larger global norm are scaled down to this one.
    num_layers = 2  # This many LSTM layers are stacked, one above the other.
    num_steps = 20  # The LSTM is unrolled over this many words; gradients reach back no further.
    hidden_size = 200  # Each layer has this many units, and each word's embedding as many numbers.
    max_epoch = 4  # After this many epochs the learning rate begins to fall.
    max_max_epoch = 13  # The whole run has this many epochs.
    keep_prob = 1.0  # Dropout keeps a unit with this probability; 1.0 is no dropout.
    lr_decay = 0.5  # Each epoch after max_epoch multiplies the learning rate by this.
    batch_size = 20  # The text is cut into this many rows, which are read side by side.
    vocab_size = 10000  # At most this many words are kept, the others are <unk>; None keeps all.


class MediumConfig:
    """Has three times the units and the epochs, drops half of the units: test perplexity 84."""

    init_scale = 0.05
    learning_rate = 1.0
    max_grad_norm = 5
    num_layers = 2
    num_steps = 35
    hidden_size = 650
    max_epoch = 6
    max_max_epoch = 39
    keep_prob = 0.5
    lr_decay = 0.8
    batch_size = 20
    vocab_size = 10000


class LargeConfig:
    """Has more units, keeps fewer of them, bounds gradients less: in the tutorial about 78."""

    init_scale = 0.04
    learning_rate = 1.0
    max_grad_norm = 10
    num_layers = 2
    num_steps = 35
    hidden_size = 1500
    max_epoch = 14
    max_max_epoch = 55
    keep_prob = 0.35
    lr_decay = 1 / 1.15
    batch_size = 20
    vocab_size = 10000


class TstConfig:
    """Has the smallest values that run every line; it is for tests, not for results."""

    init_scale = 0.1
    learning_rate = 1.0
    max_grad_norm = 1
    num_layers = 1
    num_steps = 2
    hidden_size = 2
    max_epoch = 1
    max_max_epoch = 1
    keep_prob = 1.0
    lr_decay = 0.5
    batch_size = 20
    vocab_size = 10000
