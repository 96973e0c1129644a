"""The configurations' values, and what is refused."""

import decimal
import fractions
import math
import re
import types

import numpy as np
import pytest

import configs
import lstm
from ptb.terminal.command_line import POSITIVE, WHOLE, check_config, get_config
from ptb.terminal.errors import UserError

VALUES = {  # small, medium, large, tst
    "init_scale": (0.1, 0.05, 0.04, 0.1),
    "learning_rate": (1.0, 1.0, 1.0, 1.0),
    "max_grad_norm": (5, 5, 10, 1),
    "num_layers": (2, 2, 2, 1),
    "num_steps": (20, 35, 35, 2),
    "hidden_size": (200, 650, 1500, 2),
    "max_epoch": (4, 6, 14, 1),
    "max_max_epoch": (13, 39, 55, 1),
    "keep_prob": (1.0, 0.5, 0.35, 1.0),
    "lr_decay": (0.5, 0.8, 1 / 1.15, 0.5),
    "batch_size": (20, 20, 20, 20),
    "vocab_size": (10000, 10000, 10000, 10000),
}


@pytest.mark.parametrize("column, name", list(enumerate(["small", "medium", "large", "tst"])))
def test_values_are_the_articles(column, name):
    config = get_config(name, configs)
    fields = {field: getattr(config, field) for field in dir(config) if field[0] != "_"}
    assert fields == {field: values[column] for field, values in VALUES.items()}
    assert type(config) is getattr(lstm, name.capitalize() + "Config")


def test_any_class_in_any_case(monkeypatch):
    wide = type("WideNetConfig", (configs.SmallConfig,), {"hidden_size": 300})
    monkeypatch.setattr(configs, "WideNetConfig", wide, raising=False)
    for name in "widenet", "WideNet", "WIDENET":
        assert get_config(name, configs).hidden_size == 300
    assert type(get_config("SMALL", configs)) is configs.SmallConfig


@pytest.mark.parametrize("name", ["", "smal", "SmallConfig", "configs"])
def test_unknown_name_lists_the_known(name):
    with pytest.raises(UserError, match="unknown; configs.py has small, medium, large, tst$"):
        get_config(name, configs)


def module_of(**classes):
    """Returns a module that a user has edited, with the classes and those of configs.py."""
    module = types.ModuleType("configs")
    vars(module).update({name: value for name, value in vars(configs).items() if name[0] != "_"})
    vars(module).update(classes)
    for value in classes.values():
        value.__module__ = "configs"
    return module


def test_class_that_is_no_configuration_is_mentioned():
    wide, mixin = (type(name, (configs.SmallConfig,), {}) for name in ("Wide", "_Mixin"))
    module = module_of(Wide=wide, _Mixin=mixin, Wideconfig=type("Wideconfig", (), {}))
    with pytest.raises(UserError) as error:
        get_config("wide", module)
    assert str(error.value) == (
        "--config wide: unknown; configs.py has small, medium, large, tst; the name of a "
        "configuration ends with Config, unlike Wide, Wideconfig"
    )


def test_names_that_differ_in_capitals_only():
    first, last = (type(name, (configs.SmallConfig,), {}) for name in ("WideConfig", "WIDEConfig"))
    module = module_of(WideConfig=first, WIDEConfig=last)
    for name in "wide", "Wide", "WIDE":
        with pytest.raises(UserError, match="has WideConfig and WIDEConfig, which differ in capi"):
            get_config(name, module)
    assert type(get_config("small", module)) is configs.SmallConfig
    assert type(get_config("wide", module_of(WideConfig=first, WIDEConfig=first))) is first


@pytest.mark.parametrize("text, said", [
    ("hidden_size: 300", "WideConfig.hidden_size: 300 has a colon and therefore no value; write "
     "hidden_size = … in configs.py"),
    ("batch_size = 5\n    learning_rate: 'half'", "WideConfig.learning_rate: 'half' has a colon"),
    ("hidden_size: int", "WideConfig.hidden_size: <class 'int'> has a colon"),
    ("hidden_size: int = 300", None),
])
def test_colon_in_place_of_the_equals_sign(text, said):
    """In the class itself or in one that it is derived from."""
    names = {"SmallConfig": configs.SmallConfig}
    exec(f"class WideConfig(SmallConfig):\n    {text}\nclass NetConfig(WideConfig): pass", names)
    module = module_of(WideConfig=names["WideConfig"], NetConfig=names["NetConfig"])
    for name in "wide", "net":
        if said is None:
            assert get_config(name, module).hidden_size == 300
        else:
            with pytest.raises(UserError, match=re.escape(said)):
                get_config(name, module)


@pytest.mark.parametrize("field, value, problem", [
    ("keep_prob", 0, "not a finite number above 0"),
    ("keep_prob", 1.01, "at most 1"),
    ("keep_prob", -0.5, "not a finite number above 0"),
    ("hidden_size", 0, "the smallest possible is 1"),
    ("hidden_size", -3, "the smallest possible is 1"),
    ("hidden_size", 200.0, "not a whole number"),
    ("hidden_size", 2**31, "the largest possible is 2147483647"),
    pytest.param("hidden_size", 10**5000, "the largest possible is 2147483647", id="endless"),
    ("learning_rate", 10**400, "not a finite number above 0"),
    pytest.param("learning_rate", -10**5000, "not a finite number above 0", id="endless too"),
    ("learning_rate", fractions.Fraction(1, 10**400), "not a finite number above 0"),
    ("batch_size", "20", "not a whole number"),
    ("num_steps", True, "not a whole number"),
    ("num_layers", None, "not a whole number"),
    ("max_epoch", -1, "the smallest possible is 0"),
    ("max_max_epoch", 0, "the smallest possible is 1"),
    ("vocab_size", math.inf, "not a whole number"),
    ("learning_rate", math.nan, "not a finite number above 0"),
    ("learning_rate", 1e39, r"1e\+39, which float32 cannot hold"),
    ("keep_prob", 1e-46, "1e-46, which float32 cannot hold"),
    pytest.param("vocab_size", "x" * 50, f"is '{'x' * 38}…, not a whole number", id="long"),
    ("learning_rate", math.inf, "not a finite number above 0"),
    ("learning_rate", decimal.Decimal("sNaN"), "not a finite number above 0"),
    ("learning_rate", decimal.Decimal("-1"), "not a finite number above 0"),
    ("learning_rate", 1j, "not a number"),
    ("learning_rate", np.bool_(True), "not a number"),
    ("learning_rate", np.ones(1), "not a number"),
    ("learning_rate", "1.0", "not a number"),
    ("lr_decay", 0.0, "not a finite number above 0"),
    ("init_scale", [0.1], "not a number"),
    ("max_grad_norm", False, "not a number"),
    ("hiden_size", 300, "is not a field of a configuration"),
])
def test_impossible_values_are_named(field, value, problem):
    config = type("OwnConfig", (configs.SmallConfig,), {field: value})()
    with pytest.raises(UserError, match=f"OwnConfig.{field} .*{problem}.*; fix it in configs.py"):
        check_config(config)


@pytest.mark.parametrize("number", [
    1, np.float32(1), np.float64(1), np.int8(1), fractions.Fraction(1), decimal.Decimal(1),
])
def test_whatever_python_calls_a_number_is_taken_as_the_number_it_is(number):
    """TensorFlow and JSON do not take all of them."""
    config = type("OwnConfig", (configs.SmallConfig,), dict.fromkeys(POSITIVE, number))()
    check_config(config)
    assert [(type(value), value) for value in (getattr(config, name) for name in POSITIVE)] == (
        [(float, 1.0)] * len(POSITIVE)
    )


@pytest.mark.parametrize("number", [7, np.int64(7), np.uint8(7)])
def test_whole_numbers_are_plain_ones(number):
    config = type("OwnConfig", (configs.SmallConfig,), dict.fromkeys(WHOLE, number))()
    check_config(config)
    values = [getattr(config, name) for name in WHOLE]
    assert values == [7] * len(WHOLE) and {*map(type, values)} == {int}
    assert type(config).hidden_size is number  # The class stays what it was.


def test_class_that_raises_is_named():
    class module:
        __name__ = "configs"

        class NeedyConfig(configs.SmallConfig):
            def __init__(self, size):
                self.hidden_size = size

        class WrongConfig(configs.SmallConfig):
            @property
            def num_steps(self):
                return 1 // 0

    module.__name__ = "configs"
    for name, said in ("needy", "NeedyConfig: TypeError"), ("wrong", "WrongConfig: ZeroDivisionEr"):
        with pytest.raises(UserError, match=f"^{said}.*; fix it in configs.py$"):
            get_config(name, module)


@pytest.mark.parametrize("field", VALUES)
def test_missing_fields_are_named(field):
    fields = {name: values[0] for name, values in VALUES.items() if name != field}
    with pytest.raises(UserError, match=f"OwnConfig.{field} is missing"):
        check_config(type("OwnConfig", (), fields)())
