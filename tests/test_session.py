"""The session: no error passes for success, nothing runs behind the loop's back."""

import threading

import pytest
import tensorflow.compat.v1 as tf

from ptb.errors import UserError
from ptb.session import make_folder, make_supervisor, managed_session


def test_out_of_range_is_a_failure():
    with tf.Graph().as_default():
        data = tf.data.make_one_shot_iterator(tf.data.Dataset.range(1)).get_next()
        with pytest.raises(RuntimeError, match="out of range"):
            with managed_session(make_supervisor()) as session:
                session.run(data)
                session.run(data)


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError, tf.errors.DataLossError])
def test_other_errors_pass_unchanged(error):
    args = (None, None, "message") if error is tf.errors.DataLossError else ("message",)
    with tf.Graph().as_default():
        with pytest.raises(error, match="message"):
            with managed_session(make_supervisor()):
                raise error(*args)


def test_variables_are_initialized_and_no_thread_is_started():
    with tf.Graph().as_default():
        variable = tf.get_variable("v", initializer=3.0)
        tf.summary.scalar("s", variable)
        supervisor = make_supervisor()
        threads = set(threading.enumerate())
        with managed_session(supervisor) as session:
            assert session.run(variable) == 3.0
            assert not [t for t in threading.enumerate() if t not in threads]


def test_operation_without_a_kernel_for_its_device_still_runs():
    with tf.Graph().as_default():
        with tf.device("/gpu:7"):
            value = tf.constant(2.0) * 3
        with managed_session(make_supervisor()) as session:
            assert session.run(value) == 6.0


def test_folder_is_made_and_left_empty(tmp_path):
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path in tmp_path / "file", tmp_path / "file" / "small":
        with pytest.raises(UserError, match=f"--save_path: cannot write to {path} "):
            make_folder(path)
