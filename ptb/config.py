"""Finds a configuration class by its name, and checks its values."""

import math
import numbers

from ptb.errors import UserError

# The smallest value of each whole-number field, and the fields that are positive numbers.
WHOLE = {
    "num_layers": 1,
    "num_steps": 1,
    "hidden_size": 1,
    "max_epoch": 0,
    "max_max_epoch": 1,
    "batch_size": 1,
    "vocab_size": 1,
}
LARGEST = 2**31 - 1  # a dimension in TensorFlow
POSITIVE = ("init_scale", "learning_rate", "max_grad_norm", "keep_prob", "lr_decay")


def get_config(name, module):
    """Returns an instance of the class `<Name>Config` of a module, its values checked.

    Args:
      name: the class name without `Config`, in any case: "small" is `SmallConfig`.
      module: where the classes are.

    Raises:
      UserError: no such class, or a value that cannot work.
    """
    classes = {
        key.removesuffix("Config").lower(): value
        for key, value in vars(module).items()
        if isinstance(value, type) and key.endswith("Config") and key != "Config"
    }
    if name.lower() not in classes:
        raise UserError(f"--config {name}: unknown; {module.__name__}.py has {', '.join(classes)}")
    config = classes[name.lower()]()
    check(config)
    return config


def check(config):
    """Raises UserError where a field is missing, unknown or impossible."""

    def fail(field, problem):
        raise UserError(f"{type(config).__name__}.{field} {problem}; mend it in configs.py")

    fields = [field for field in dir(config) if not field.startswith("_")]
    for field in (*WHOLE, *POSITIVE):
        if field not in fields:
            fail(field, "is missing")
    for field in fields:
        value = getattr(config, field)
        if field == "vocab_size" and value is None:
            continue  # as many as the corpus has
        if field in WHOLE:
            if not isinstance(value, numbers.Integral) or isinstance(value, bool):
                fail(field, f"is {value!r}, not a whole number")
            if value < WHOLE[field]:
                fail(field, f"is {_shown(value)}; the smallest possible is {WHOLE[field]}")
            if value > LARGEST:
                fail(field, f"is {_shown(value)}; the largest possible is {LARGEST}")
        elif field in POSITIVE:
            if not isinstance(value, numbers.Real) or isinstance(value, bool):
                fail(field, f"is {value!r}, not a number")
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if not 0 < number < math.inf:
                fail(field, f"is {_shown(value)}, not a finite number above 0")
            if field == "keep_prob" and value > 1:
                fail(field, f"is {value!r}; a probability is at most 1")
        else:
            fail(field, "is not a field of a configuration")


def _shown(value):
    """Returns a number as the user wrote it, unless that is too long for a line."""
    try:
        text = repr(value)
    except ValueError:  # Python writes out no integer of over 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) < 40 else f"{text[:40]}…"
