"""The configurations. Edit a value, or add a class: `class WideConfig` is `--config wide`.

Every class has the same fields:

    init_scale     initial weights are uniform in [-init_scale, init_scale]
    learning_rate  of the first max_epoch epochs
    max_grad_norm  gradients are scaled down together so that their global norm stays within this
    num_layers     LSTM layers, one above the other
    num_steps      words the LSTM is unrolled over; gradients reach back this far
    hidden_size    units of each LSTM layer, and of a word's embedding
    max_epoch      epochs at the full learning rate
    max_max_epoch  epochs altogether
    keep_prob      probability of keeping a unit in dropout; 1.0 is no dropout
    lr_decay       factor on the learning rate in each epoch after max_epoch
    batch_size     parallel streams the text is cut into
    vocab_size     most frequent words kept, the others become <unk>; None keeps all
"""


class SmallConfig:
    """Trains in minutes, no dropout: test perplexity about 115 on the Penn Treebank."""

    init_scale = 0.1
    learning_rate = 1.0
    max_grad_norm = 5
    num_layers = 2
    num_steps = 20
    hidden_size = 200
    max_epoch = 4
    max_max_epoch = 13
    keep_prob = 1.0
    lr_decay = 0.5
    batch_size = 20
    vocab_size = 10000


class MediumConfig:
    """Half of the units dropped, smaller initial weights, a longer view back: about 83."""

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
    """More units, fewer of them kept, a looser bound on the gradients: about 78."""

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
    """The smallest values that run every line; for tests, not for results."""

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
