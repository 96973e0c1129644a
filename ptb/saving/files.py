"""Files that are whole or absent, checksums, and the lock of a folder.

What is written here is written under another name, flushed to the disk and then renamed, so that a
file or folder is there whole or not at all, even where the power fails. This is the only module
that knows the disk: what Windows, or a disk in the network, does in another way than a local disk
under Linux or macOS is settled here.
"""

import contextlib
import errno
import glob
import hashlib
import os
import re
import shutil
import socket
import sys
import tempfile

from ptb.terminal.errors import UserError

try:
    import fcntl
except ImportError:  # Windows locks files in another way.
    fcntl = None
    import msvcrt

UNFINISHED = ".unfinished"
PATTERN = re.compile(r"[][*?{}]" if os.name == "nt" else r"[][*?{}\\]")
STDOUT = {"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}  # how a user names it as an output
LOST = {errno.EIO, errno.ENOSPC, errno.EDQUOT}  # after these errors what was written is not safe
LOCKED = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}  # another process has the lock
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}

warned = set()  # what warn_once has warned of in this process


def warn_once(what, message):
    """Prints a message on stderr, the first time in this process that there is one on `what`."""
    if what not in warned:
        warned.add(what)
        print(message, file=sys.stderr)


@contextlib.contextmanager
def whole(path):
    """Yields another path, and renames what was made there to `path` when the block ends.

    A file takes the place of an earlier one; a folder only that of an empty one. Where the block
    fails, `path` is what it was before.

        with files.whole("history.csv") as unfinished, open(unfinished, "w") as file:
            file.write(text)

    Raises:
      OSError: it cannot be written; nothing of it is left.
    """
    if is_stream(path):
        yield path
        return
    if os.path.islink(path):
        path = os.path.realpath(path)  # What it leads to is replaced.
    unfinished = _unfinished(path)
    _delete(unfinished)  # of an earlier process of that number
    try:
        yield unfinished
        _flush(unfinished)
        if os.path.isdir(unfinished) and os.path.isdir(path):
            os.rmdir(path)  # Windows renames no folder over another, not even an empty one.
        os.replace(unfinished, path)
    except BaseException:
        _delete(unfinished)
        raise
    _flush_names(os.path.dirname(path) or os.curdir)


@contextlib.contextmanager
def output(path):
    """Yields a binary file for what a user wants written to a path; see STDOUT for that of stdout.

    A file is there whole or not at all, as with `whole`.

    Raises:
      UserError: it cannot be written.
      OSError: stdout cannot be written, or nobody reads the pipe that the path names; the program
        ends as others do then, see command_line.errors_in_one_line.
    """
    if path in STDOUT:
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    try:
        with whole(path) as unfinished, open(unfinished, "wb") as file:
            yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason_of(error)}") from error


def check_writable(path):
    """Raises UserError where `output` could not write to a path, for who has long work to do first.

    The file that is there stays as it is.
    """
    if path in STDOUT or is_stream(path):
        return
    try:
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        unfinished = _unfinished(os.path.realpath(path))
        open(unfinished, "wb").close()
        os.remove(unfinished)
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason_of(error)}") from error


def said_beside(path):
    """Returns the stream for what is said besides an `output`: stderr where that is stdout."""
    return sys.stderr if path in STDOUT else sys.stdout


def is_stream(path):
    """Returns whether a path is that of a device or a pipe, which is written to as it is."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _unfinished(path):
    """Returns the path of what is not whole yet, or no longer, and so is not at its own path."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f"{UNFINISHED}-{os.getpid()}-{name}")


@contextlib.contextmanager
def unless_open(path):
    """Lets the block fail, with a warning, where Windows does not replace a file that is open.

    For files that can be written again later, such as a table that somebody looks at.
    """
    try:
        yield
    except PermissionError as error:
        if os.name != "nt":
            raise
        warn_once("open", f"{path} is open elsewhere and stays as it is: {error.strerror}")


def remove(path):
    """Removes a folder; nobody ever finds half of it under its name.

    What cannot be removed is left for the next start, with a warning: a disk in the network refuses
    while a reader has a file open, and that is no reason to end a run.
    """
    going = _unfinished(path)
    try:
        os.rename(path, going)
        shutil.rmtree(going)
    except OSError as error:
        left = going if os.path.exists(going) else path
        warn_once("removing", f"{left} cannot be removed now: {reason_of(error)}.")


def remove_unfinished(folder):
    """Removes what processes that died while writing have left in a folder.

    Only for who has the folder's lock: no other run is writing there then.
    """
    for path in glob.glob(os.path.join(glob.escape(folder), UNFINISHED + "*")):
        _delete(path)


def _delete(path):
    """Deletes a file or folder as far as that is possible."""
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        os.remove(path)


def _flush(path):
    """Returns when a file, or a folder with the files in it, is on the disk."""
    if not os.path.isdir(path):
        with open(path, "rb+") as file:  # Windows flushes only what is open for writing.
            _sync(file.fileno(), path)
        return
    for name in os.listdir(path):
        _flush(os.path.join(path, name))
    _flush_names(path)


def _flush_names(folder):
    """Returns when the names in a folder are on the disk, where the system can do that."""
    if os.name == "nt":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return  # Who may write in a folder need not be allowed to read it.
    try:
        _sync(descriptor, folder)
    finally:
        os.close(descriptor)


def _sync(descriptor, path):
    try:
        if hasattr(fcntl, "F_FULLFSYNC"):  # The fsync of macOS stops at the cache of the disk.
            with contextlib.suppress(OSError):
                fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
                return
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in LOST:
            raise
        kind = "folders" if os.path.isdir(path) else "files"
        warn_once(
            kind,
            f"The disk of {os.path.abspath(path)} does not flush {kind} ({error.strerror}): after "
            "a power failure the last checkpoint may be missing."
        )


def reason_of(error):
    """Returns why the system refused, such as "No space left on device", for an error of a file.

    TensorFlow's errors have it somewhere between the operations of the graph and hints.
    """
    text = getattr(error, "strerror", None) or str(error)
    known = [os.strerror(number) for number in errno.errorcode if os.strerror(number) in text]
    first_line = text.splitlines()[0] if text else type(error).__name__
    return max(known, key=len, default=first_line)


def sha256_of(*paths):
    """Returns the SHA-256 checksum of a file, or of several joined together, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()


def local_path(path, name="a path"):
    """Returns a path that a user typed, as a str, with `~` for the home folder as a shell has it.

    Args:
      path: a str or os.PathLike.
      name: what an empty one is called.

    Raises:
      UserError: it is empty, or an address such as gs://bucket/run, or cannot be told to
        TensorFlow.
    """
    path = os.fspath(path)
    if not path:  # A shell writes this for a variable that is not set: "$FOLDER".
        raise UserError(f"{name} is empty; name a file or folder")
    if re.match("[A-Za-z][A-Za-z0-9+.-]*://", path):
        raise UserError(f"{path} is an address; name a folder of this machine")
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"{path}: the name is not UTF-8; use another") from error
    return os.path.expanduser(path)


def make_folder(path):
    """Makes a folder to save in, where it is missing, tries to write there, and returns its path.

    Raises:
      UserError: it cannot be made, or nothing can be written there.
    """
    path = local_path(path, "--save_path")
    try:
        os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (FileExistsError, NotADirectoryError) as error:
        what = "a file, or inside one; name a folder"
        if os.path.islink(path) and not os.path.exists(path):
            what = f"a link to {os.readlink(path)}, which is not there; make that, or name a folder"
        raise UserError(f"--save_path: {path} is {what}") from error
    except OSError as error:
        raise UserError(
            f"--save_path: cannot write to {path} ({error.strerror}); make that possible, or name "
            "another folder"
        ) from error
    return path


@contextlib.contextmanager
def plain_folder(folder):
    """Yields a path of a folder that has none of the signs by which TensorFlow knows a pattern.

    TensorFlow writes a checkpoint under a name such as `runs/[lr=1]`, and then does not find it.

    Raises:
      UserError: such a path needs the system's temporary folder, which cannot be written to.
    """
    folder = os.fspath(folder)
    if not PATTERN.search(folder):
        yield folder
        return
    with contextlib.ExitStack() as stack:
        try:
            link = os.path.join(stack.enter_context(tempfile.TemporaryDirectory()), "folder")
            try:
                os.symlink(os.path.abspath(folder), link, target_is_directory=True)
            except OSError:  # Windows allows links to some users only.
                shutil.copytree(folder, link)
        except OSError as error:
            raise UserError(
                f"{folder} cannot be read by way of the temporary folder: {error.strerror}; "
                "rename it without brackets, stars and question marks"
            ) from error
        yield link


@contextlib.contextmanager
def lock(folder):
    """Keeps other processes out of a folder while the block runs.

    The lock is free again when the process is gone, however it ended. A disk that has no locks gets
    a warning and no lock.

    Raises:
      UserError: another process has it, or the file that carries it cannot be opened.
    """
    path = os.path.join(folder, "lock")
    try:
        with open(path, "a+", encoding="utf-8") as file:  # What another process wrote there stays.
            _lock_file(file, folder)
            yield
    except OSError as error:
        if getattr(error, "filename", None) != path:
            raise  # It comes from the block.
        raise UserError(
            f"{path} cannot be locked: {error.strerror}; use another --save_path"
        ) from error


def _lock_file(file, folder):
    """Locks an open file for as long as it is open, and writes into it which process has it."""
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # set_aside may have renamed the folder just before.
            if not is_still(file.name, os.fstat(file.fileno())):
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        else:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError as error:
        if error.errno in LOCKED:
            raise UserError(
                f"{folder}: another process is training there{_holder(file)}; wait, or use another "
                "--save_path"
            ) from error
        if error.errno not in NO_LOCKS:
            raise OSError(error.errno, error.strerror, file.name) from error
        warn_once(
            "locks",
            f"{folder}: this disk cannot lock ({error.strerror}); start no second run there."
        )
    with contextlib.suppress(OSError):  # The disk may be full.
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def is_still(path, stat):
    """Returns whether a path leads to the file or folder that had an os.stat_result before."""
    try:
        return os.path.samestat(os.stat(path), stat)
    except FileNotFoundError:
        return False


def _holder(file):
    """Returns " (process 123 on node7)", as the file of a lock has it; "" where it has nothing."""
    try:
        file.seek(0)
        text = file.read().strip()
    except (OSError, ValueError):  # Windows lets nobody else read a byte that is locked.
        return ""
    return text and f" ({text})"


def is_within(path, folder):
    """Returns whether a path is that of a folder or leads into it, whether they exist or not."""
    path, folder = (os.path.normcase(os.path.realpath(name)) for name in (path, folder))
    return path == folder or path.startswith(os.path.join(folder, ""))


def set_aside(folder):
    """Renames a folder, where there is one, to the first free <folder>-old-<n>, and says so.

    Where the folder's name is a link, the folder that it leads to is renamed, beside itself, and an
    empty one takes its place: what is saved next goes to the same disk.

    Raises:
      UserError: another process trains there, or it cannot be renamed.
    """
    if not os.path.exists(folder):
        return
    target = os.path.realpath(folder) if os.path.islink(folder) else folder
    number = 1
    while os.path.lexists(f"{target}-old-{number}"):
        number += 1
    with contextlib.ExitStack() as locked:
        locked.enter_context(lock(target))  # Nobody trains there.
        if os.name == "nt":
            locked.close()  # Windows renames no folder with an open file in it.
        try:
            os.rename(target, f"{target}-old-{number}")
            if os.path.islink(folder):
                os.mkdir(target)
        except OSError as error:
            raise UserError(f"{folder} cannot be moved aside: {error.strerror}") from error
    print(f"What was in {folder} is now in {target}-old-{number}.")
