"""Files that are whole or absent, on disks that refuse this or that."""

import contextlib
import errno
import os
import pathlib
import subprocess
import sys
import types

import pytest
from conftest import System, failing

from ptb.saving import files
from ptb.terminal.command_line import as_typed
from ptb.terminal.errors import UserError


def write(path, text="new"):
    with files.whole(str(path)) as unfinished:
        pathlib.Path(unfinished).write_text(text)


def write_folder(path):
    with files.whole(str(path)) as unfinished:
        os.mkdir(unfinished)
        pathlib.Path(unfinished, "a").write_text("new")
        os.mkdir(os.path.join(unfinished, "b"))


def test_file_takes_the_place_of_another(tmp_path):
    (tmp_path / "file").write_text("old")
    write(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


def test_path_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("file")
    assert (tmp_path / "file").read_text() == "new"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name")
def test_only_the_path_that_was_given_is_used(tmp_path, monkeypatch):
    """TensorFlow cannot be told a name that is not UTF-8, which a folder above may have."""
    above = tmp_path / "caf\udce9"
    above.mkdir()
    monkeypatch.chdir(above)
    with files.whole("file") as unfinished:
        unfinished.encode()
        pathlib.Path(unfinished).write_text("new")
    assert (above / "file").read_text() == "new"


def test_folder_appears_at_the_end(tmp_path):
    with files.whole(str(tmp_path / "folder")) as unfinished:
        os.mkdir(unfinished)
        assert not (tmp_path / "folder").exists()
    assert os.listdir(tmp_path) == ["folder"]
    write_folder(tmp_path / "folder")  # which is empty
    assert sorted(os.listdir(tmp_path / "folder")) == ["a", "b"]
    with pytest.raises(OSError):
        write_folder(tmp_path / "folder")  # which is not
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space"), KeyboardInterrupt()])
def test_what_fails_leaves_nothing_and_changes_nothing(error, tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(type(error)):
        with files.whole(str(tmp_path / "file")) as unfinished:
            pathlib.Path(unfinished).write_text("half")
            raise error
    assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_everything_is_flushed_before_it_has_its_name(tmp_path, monkeypatch):
    done = []

    def fsync(descriptor):
        done.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))

    def replace(source, target):
        done.append(f"-> {os.path.basename(target)}")
        os.replace(source, target)

    monkeypatch.setattr(files, "os", System(fsync=fsync, replace=replace))
    write_folder(tmp_path / "folder")
    unfinished = f".unfinished-{os.getpid()}-folder"
    assert sorted(done[:-3]) == ["a", "b"]
    assert done[-3:] == [unfinished, "-> folder", tmp_path.name]


def test_disk_that_flushes_no_folders(tmp_path, monkeypatch, capsys):
    is_folder = os.path.isdir
    refuse = failing(errno.EINVAL, lambda fd: is_folder(f"/proc/self/fd/{fd}"), os.fsync)
    monkeypatch.setattr(files, "os", System(fsync=refuse))
    write(tmp_path / "file")
    write_folder(tmp_path / "folder")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    (line,) = {*capsys.readouterr().err.splitlines()}
    assert "does not flush folders (Invalid argument)" in line


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_lost_data_is_an_error(number, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "os", System(fsync=failing(number)))
    with pytest.raises(OSError, match=os.strerror(number)):
        write(tmp_path / "file")
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_removed_now_stays_with_a_warning(tmp_path, monkeypatch, capsys):
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(files, "shutil", types.SimpleNamespace(rmtree=failing(errno.ENOTEMPTY)))
    files.remove(str(tmp_path / "folder"))
    left = f"{tmp_path}/.unfinished-{os.getpid()}-folder"
    assert f"{left} cannot be removed now: Directory not empty" in capsys.readouterr().err
    monkeypatch.undo()
    files.remove_unfinished(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


def test_device_stays_a_device():
    with files.whole("/dev/null") as unfinished:
        assert unfinished == "/dev/null"
    assert pathlib.Path("/dev/null").is_char_device()


def write_output(path):
    with files.output(path) as file:
        file.write(b"new")


def test_output_is_whole_or_stdout(tmp_path, capsysbinary):
    write_output(tmp_path / "file")
    for name in files.STDOUT:
        write_output(name)
    assert capsysbinary.readouterr().out == b"new" * len(files.STDOUT)
    assert (tmp_path / "file").read_text() == "new"
    with pytest.raises(UserError, match=f"cannot write {tmp_path}/no/file: No such file or dir"):
        write_output(tmp_path / "no" / "file")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="there are no names for pipes here")
def test_pipe_is_written_to_as_it_is():
    """Its name leads to one that is none of a file: /proc/1/fd/pipe:[2]."""
    reading, writing = os.pipe()
    write_output(f"/dev/fd/{writing}")
    assert os.read(reading, 10) == b"new"
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        write_output(f"/dev/fd/{writing}")
    os.close(writing)


def test_what_can_be_written_is_known_before(tmp_path):
    (tmp_path / "file").write_text("old")
    for name in tmp_path / "file", tmp_path / "new", "/dev/null", "-":
        files.check_writable(name)
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "old"
    for name, reason in (tmp_path, "Is a directory"), (tmp_path / "no" / "file", "No such file"):
        with pytest.raises(UserError, match=f"cannot write {name}: {reason}"):
            files.check_writable(name)


def test_path_of_any_kind(tmp_path):
    assert files.local_path(tmp_path) == str(tmp_path)
    assert files.local_path(pathlib.Path("~", "a")) == os.path.expanduser("~/a")


@pytest.mark.parametrize("name", ["nt", "posix"])
def test_file_that_windows_does_not_replace(name, monkeypatch, capsys):
    monkeypatch.setattr(files, "os", System(name=name))
    expected = pytest.raises(PermissionError) if name == "posix" else contextlib.nullcontext()
    with expected, files.unless_open("history.csv"):
        raise PermissionError(errno.EACCES, "Access is denied")
    assert ("history.csv is open elsewhere" in capsys.readouterr().err) == (name == "nt")


@pytest.mark.parametrize("error, reason", [
    (OSError(), "OSError"), (ValueError("first\nsecond"), "first"),
    (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
])
def test_reason_of_an_error(error, reason):
    assert files.reason_of(error) == reason


def test_no_temporary_folder(monkeypatch):
    def fail():
        raise OSError(errno.ENOENT, "No usable temporary directory")

    monkeypatch.setattr(files, "tempfile", types.SimpleNamespace(TemporaryDirectory=fail))
    with pytest.raises(UserError, match="temporary folder: No usable temporary directory; rename"):
        with files.plain_folder("[a]"):
            pass


def test_what_dead_processes_left_is_removed_and_nothing_else(tmp_path):
    for name in ".unfinished", ".unfinished-7-checkpoint-000002", "checkpoint-000001":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
    (tmp_path / ".unfinished.history.csv").write_text("")
    files.remove_unfinished(str(tmp_path))
    assert os.listdir(tmp_path) == ["checkpoint-000001"]


def test_folder_is_made_and_left_empty(tmp_path):
    files.make_folder(tmp_path / "a" / "b")
    files.make_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path in tmp_path / "file", tmp_path / "file" / "small":
        with pytest.raises(UserError, match=f"--save_path: {path} is a file, or inside one"):
            files.make_folder(path)
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(UserError, match="link is a link to nowhere, which is not there; make that"):
        files.make_folder(tmp_path / "link")


# The lock.

def test_lock_is_free_again_after_the_block(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), files.lock(tmp_path):
            with pytest.raises(UserError, match=f"{tmp_path}: another process is training there"):
                with files.lock(tmp_path):
                    pass
            raise KeyError
    assert os.listdir(tmp_path) == ["lock"]


def test_who_has_the_lock_is_said(tmp_path):
    """Not by a file of an earlier version, which is empty."""
    with files.lock(tmp_path):
        who = rf"training there \(process {os.getpid()} on .+\); wait, or use another --save_path$"
        with pytest.raises(UserError, match=who), files.lock(tmp_path):
            pass
        (tmp_path / "lock").write_text("")
        with pytest.raises(UserError, match="training there; wait"), files.lock(tmp_path):
            pass


def test_lock_needs_no_space_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "os", System(write=failing(errno.ENOSPC)))
    with files.lock(tmp_path), pytest.raises(UserError, match="another process is training there;"):
        with files.lock(tmp_path):
            pass


def test_error_in_the_block_is_not_the_locks(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere"), files.lock(tmp_path):
        open(tmp_path / "elsewhere")


def test_disk_without_locks(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "fcntl", types.SimpleNamespace(
        LOCK_EX=2, LOCK_NB=4, flock=failing(errno.ENOSYS)
    ))
    with files.lock(tmp_path):
        assert f"{tmp_path}: this disk cannot lock (Function not imp" in capsys.readouterr().err


def test_what_cannot_be_locked_is_named(tmp_path, monkeypatch):
    (tmp_path / "lock").mkdir()
    message = f"{tmp_path}/lock cannot be locked: Is a directory; use another --save_path"
    with pytest.raises(UserError, match=message), files.lock(str(tmp_path)):
        pass
    (tmp_path / "lock").rmdir()
    monkeypatch.setattr(files, "fcntl", types.SimpleNamespace(
        LOCK_EX=2, LOCK_NB=4, flock=failing(errno.EPERM)
    ))
    with pytest.raises(UserError, match="lock cannot be locked: Operation not permitted"):
        with files.lock(str(tmp_path)):
            pass


# An earlier run moved aside.

def test_set_aside_keeps_every_earlier_run(tmp_path, capsys):
    folder = str(tmp_path / "run")
    for text in "first", "second":
        os.mkdir(folder)
        pathlib.Path(folder, "text").write_text(text)
        files.set_aside(folder)
        files.set_aside(folder)  # Nothing is there now.
    assert sorted(os.listdir(tmp_path)) == ["run-old-1", "run-old-2"]
    assert (tmp_path / "run-old-1" / "text").read_text() == "first"
    assert capsys.readouterr().out == (
        f"What was in {folder} is now in {folder}-old-1.\n"
        f"What was in {folder} is now in {folder}-old-2.\n"
    )


def test_set_aside_through_a_link_stays_on_the_other_disk(tmp_path, capsys):
    disk = tmp_path / "disk"
    (disk / "small").mkdir(parents=True)
    (disk / "small" / "text").write_text("old")
    link = tmp_path / "small"
    link.symlink_to(disk / "small")
    files.set_aside(str(link))
    assert link.is_symlink() and os.listdir(link) == []
    assert (disk / "small-old-1" / "text").read_text() == "old"
    assert capsys.readouterr().out == f"What was in {link} is now in {disk}/small-old-1.\n"


def locking(monkeypatch, before):
    """Calls `before` whenever a lock's file is open and about to be locked."""
    fcntl = pytest.importorskip("fcntl")

    def flock(file, operation):
        before()
        fcntl.flock(file, operation)

    monkeypatch.setattr(files, "fcntl", types.SimpleNamespace(
        LOCK_EX=fcntl.LOCK_EX, LOCK_NB=fcntl.LOCK_NB, flock=flock
    ))


def test_moved_aside_under_the_lock(tmp_path, monkeypatch):
    """Another run that starts at that moment gets the folder neither before nor after."""
    folder = tmp_path / "run"
    folder.mkdir()
    refused = []

    def rename(source, target):
        def move():
            os.rename(source, target)
            folder.mkdir()

        for before in lambda: None, move:
            with monkeypatch.context() as patch, pytest.raises(UserError, match="another process"):
                locking(patch, before)
                with files.lock(folder):
                    pass
            refused.append(before)

    monkeypatch.setattr(files, "os", System(rename=rename))
    files.set_aside(str(folder))
    assert len(refused) == 2 and (tmp_path / "run-old-1" / "lock").exists()


@pytest.mark.parametrize("is_replaced", [False, True])
def test_lock_of_a_folder_that_was_moved_aside_is_none(is_replaced, tmp_path, monkeypatch):
    """It was moved, and perhaps another took its place, after the lock's file was opened."""
    folder = tmp_path / "run"
    folder.mkdir()

    def move():
        folder.rename(tmp_path / "old")
        if is_replaced:
            folder.mkdir()
            (folder / "lock").write_text("")

    locking(monkeypatch, move)
    with pytest.raises(UserError, match="run: another process is training there"):
        with files.lock(folder):
            pass


def test_windows_moves_no_folder_with_an_open_file(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()

    def rename(source, target):
        with files.lock(source):  # It is free.
            os.rename(source, target)

    monkeypatch.setattr(files, "os", System(name="nt", rename=rename))
    files.set_aside(str(tmp_path / "run"))
    assert (tmp_path / "run-old-1").exists()


def test_what_cannot_be_moved_aside_is_named(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(files, "os", System(rename=failing(errno.EPERM)))
    with pytest.raises(UserError, match="run cannot be moved aside: Operation not permitted"):
        files.set_aside(str(tmp_path / "run"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/lock cannot be locked: Not a directory"):
        files.set_aside(str(tmp_path / "file"))


@pytest.mark.parametrize("path, is_within", [
    ("run", True), ("run/", True), ("run/checkpoint-000001", True), ("link/model.ckpt", True),
    ("./run/../run", True), ("run-old-1", False), (".", False), ("nothing", False),
])
def test_what_is_within_a_folder(path, is_within, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    assert files.is_within(path, str(tmp_path / "run")) == is_within


def test_command_can_be_copied():
    words = ["python", "it's  here/$HOME/*.txt", "--name="]
    echo = subprocess.run(
        f"printf '%s|' {as_typed(words)}", shell=True, text=True, capture_output=True
    )
    assert echo.stdout == "".join(f"{word}|" for word in words)


def test_checksum_of_several_files(tmp_path):
    for name, text in ("a", "one"), ("b", " and two"), ("all", "one and two"):
        (tmp_path / name).write_text(text)
    several = files.sha256_of(tmp_path / "a", tmp_path / "b")
    assert several == files.sha256_of(tmp_path / "all")
