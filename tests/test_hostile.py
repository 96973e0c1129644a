"""Whatever a corpus or a configuration holds: a result, or a UserError; no hang, bounded memory."""

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import configs
from ptb import reader
from ptb.saving import checkpoint
from ptb.saving.history import EpochResult
from ptb.terminal.command_line import POSITIVE, WHOLE, get_config
from ptb.terminal.errors import UserError

UNHURRIED = settings(
    deadline=None, max_examples=200, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
# Bytes a corpus may well hold, and any others.
TEXT = st.one_of(
    st.binary(max_size=300),
    st.text(alphabet=" \n\r\t\0abü<>unkeos\u2028\ufeff中", max_size=300).map(str.encode),
)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.complex_numbers(), st.text(),
    st.binary(), st.fractions(), st.decimals(), st.lists(st.integers()),
    st.just(np.float32(0.5)), st.just(np.int64(7)), st.just(np.zeros(2)), st.just(int),
)


@UNHURRIED
@given(train=TEXT, valid=TEXT, test=TEXT, vocab_size=st.none() | st.integers(1, 20))
@example(train=b"a b\r\nc", valid=b"\xef\xbb\xbfa\n", test=b"d", vocab_size=2)
def test_reader_takes_any_bytes(train, valid, test, vocab_size, tmp_path):
    for part, data in ("train", train), ("valid", valid), ("test", test):
        (tmp_path / f"ptb.{part}.txt").write_bytes(data)
    try:
        words = reader.read_vocabulary(tmp_path, vocab_size)
        *texts, _ = reader.ptb_raw_data(tmp_path, vocabulary=words)
    except UserError as error:
        assert "\n" not in str(error)
        assert any(f"ptb.{part}.txt" in str(error) for part in ("train", "valid", "test"))
        return
    assert len(set(words)) == len(words) and reader.UNK in words
    assert vocab_size is None or len(words) <= vocab_size
    for ids, data in zip(texts, (train, valid, test)):
        assert ids.dtype == np.int32
        assert 0 <= ids.min() and ids.max() < len(words)
        assert len(ids) <= len(data)  # memory is bounded by the file


@UNHURRIED
@given(chunk=st.integers(1, 7), text=TEXT)
def test_reading_in_pieces_changes_nothing(chunk, text, tmp_path):
    (tmp_path / "ptb.train.txt").write_bytes(text)
    for part in "valid", "test":
        (tmp_path / f"ptb.{part}.txt").write_text("a\n")

    def words():
        try:
            vocabulary = reader.read_vocabulary(tmp_path)
            train, *_ = reader.ptb_raw_data(tmp_path, vocabulary=vocabulary)
            return [vocabulary[i] for i in train]
        except UserError as error:
            return str(error)

    whole = words()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "CHUNK", chunk)
        assert words() == whole


@UNHURRIED
@given(field=st.sampled_from([*WHOLE, *POSITIVE]), value=VALUES)
@example(field="learning_rate", value=10**400)
@example(field="vocab_size", value=-10**5000)
def test_configuration_takes_any_value(field, value):
    """What is not refused can be trained with and saved: it is a number in its bounds."""

    class module:
        __name__ = "configs"
        SomeConfig = type("SomeConfig", (configs.TstConfig,), {field: value})

    try:
        config = get_config("some", module)
    except UserError as error:
        assert f"SomeConfig.{field}" in str(error)
        return
    if field == "vocab_size" and value is None:
        return
    number = float(getattr(config, field))
    assert number > 0 or (field == "max_epoch" and number == 0)
    assert number < float("inf")


@UNHURRIED
@given(data=st.data())
def test_checkpoint_takes_any_bytes(data, tmp_path_factory):
    """Any one file replaced by any bytes: the checkpoint is what it was, or Damaged."""
    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / "model.ckpt.index").write_bytes(b"index")
    position = checkpoint.Position(epoch=1, history=(EpochResult(1.0, 2.0, 3.0, 4.0, 5.0),))
    checkpoint.write(folder, {"seed": 1}, position, ["a", "b"])
    assert checkpoint.read(folder)[:4] == (folder, {"seed": 1}, position, ["a", "b"])
    names = sorted(path.name for path in folder.iterdir())
    path = folder / data.draw(st.sampled_from(names))
    before = path.read_bytes()
    path.write_bytes(data.draw(st.binary(max_size=200)))
    if path.read_bytes() != before:
        with pytest.raises(checkpoint.Damaged):
            checkpoint.read(folder)
