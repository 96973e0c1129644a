"""Finding the corpus, downloads from a real HTTP server on the loopback address included."""

import contextlib
import hashlib
import http.server
import io
import os
import re
import socket
import tarfile
import threading
import time

import pytest
from conftest import SAMPLE, System

from ptb import dataset
from ptb.saving import files
from ptb.terminal.errors import UserError

TEXTS = {name: f" {name} \n".encode() * 2000 for name in dataset.FILES}
PREFIX = "./simple-examples/data/"


def archive(texts=TEXTS, members=(), prefix=PREFIX):
    """Returns the bytes of a .tgz with the texts, and before them the TarInfo members."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
        for name, text in texts.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return file.getvalue()


GOOD = archive()


@pytest.fixture(autouse=True)
def small_ptb(monkeypatch):
    """Our texts and archive stand for PTB; no proxy, no long waits, no address to go to."""
    files = {name: (len(text), hashlib.sha256(text).hexdigest()) for name, text in TEXTS.items()}
    monkeypatch.setattr(dataset, "FILES", files)
    monkeypatch.setattr(dataset, "MD5", hashlib.md5(GOOD).hexdigest())
    monkeypatch.setattr(dataset, "MAX_BYTES", 100_000)
    monkeypatch.setattr(dataset, "TIMEOUT", 1)
    monkeypatch.setattr(dataset, "GRACE_PERIOD", 0.5)
    monkeypatch.setattr(dataset, "URLS", ())
    for name in "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY":
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    """Serves what a test puts into `routes`, {path: handler function}; `asked` lists the paths."""
    routes, asked = {}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            with contextlib.suppress(ConnectionError):
                routes[self.path](self)

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    httpd.routes, httpd.asked = routes, asked
    httpd.url = f"http://127.0.0.1:{httpd.server_port}"
    threading.Thread(target=httpd.serve_forever, args=[0.01], daemon=True).start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


def send(body, length=None):
    """Returns a handler that sends the bytes and says how many it sends."""

    def handle(request):
        request.send_response(200)
        request.send_header("Content-Length", str(len(body) if length is None else length))
        request.end_headers()
        request.wfile.write(body)

    return handle


def send_endlessly(piece, pause):
    """Returns a handler that never ends; what it sends has no announced length."""

    def handle(request):
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(piece)
            request.wfile.flush()
            time.sleep(pause)

    return handle


def hang(request):
    """A handler that says nothing for longer than anyone waits."""
    time.sleep(3)


def redirect(url):
    """Returns a handler that sends elsewhere."""

    def handle(request):
        request.send_response(302)
        request.send_header("Location", url)
        request.end_headers()

    return handle


def assert_ptb(corpus, folder):
    assert corpus == (str(folder), "PTB")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == TEXTS


def test_good_archive(server, tmp_path, monkeypatch):
    server.routes["/a"] = send(GOOD)
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a", server.url + "/b"))
    folder = tmp_path / "simple-examples" / "data"
    assert_ptb(dataset.find_corpus(str(folder), explicit=False), folder)
    assert os.listdir(folder.parent) == ["data"]
    assert server.asked == ["/a"]
    assert_ptb(dataset.find_corpus(str(folder), explicit=False), folder)  # there now
    assert server.asked == ["/a"]


@pytest.mark.parametrize("there", [[], [".DS_Store", ".gitkeep"], ["notes.txt"]])
def test_folder_that_is_there_is_filled_and_what_is_in_it_stays(
    there, server, tmp_path, monkeypatch
):
    for name in there:
        (tmp_path / name).write_text("somebody's")
    server.routes["/a"] = send(GOOD)
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a",))
    assert dataset.find_corpus(str(tmp_path), explicit=False) == (str(tmp_path), "PTB")
    assert sorted(os.listdir(tmp_path)) == sorted([*there, *TEXTS])
    assert all((tmp_path / name).read_text() == "somebody's" for name in there)


def test_link_to_an_empty_folder_is_filled(server, tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "data"
    link.symlink_to(tmp_path / "disk")
    server.routes["/a"] = send(GOOD)
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a",))
    assert_ptb(dataset.find_corpus(str(link), explicit=False), link)
    assert sorted(os.listdir(tmp_path / "disk")) == sorted(TEXTS)


@pytest.mark.parametrize("there", [1, 2])
def test_what_is_missing_of_ptb_is_downloaded(there, server, tmp_path, monkeypatch):
    """As after a download that was killed while it put the files in place."""
    for name in list(TEXTS)[:there]:
        (tmp_path / name).write_bytes(TEXTS[name])
    server.routes["/a"] = send(GOOD)
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a",))
    assert_ptb(dataset.find_corpus(str(tmp_path), explicit=False), tmp_path)


def test_two_first_runs_at_once(server, tmp_path, monkeypatch):
    """Both are downloading before one of them has put anything in place."""
    both = threading.Barrier(2, timeout=10)

    def handle(request):
        both.wait()
        send(GOOD)(request)

    server.routes["/a"] = handle
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a",))
    folder, found = tmp_path / "data", []
    monkeypatch.setattr(files, "os", System(getpid=threading.get_ident))

    def find():
        found.append(dataset.find_corpus(str(folder), explicit=False))

    threads = [threading.Thread(target=find) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for corpus in found:
        assert_ptb(corpus, folder)
    assert len(found) == 2


def test_three_texts_without_an_archive(server, tmp_path, monkeypatch, capsys):
    server.routes.update({f"/bad/{name}": send(text[::-1]) for name, text in TEXTS.items()})
    server.routes.update({f"/good/{name}": send(text) for name, text in TEXTS.items()})
    monkeypatch.setattr(dataset, "URLS", (server.url + "/bad/", server.url + "/good/"))
    assert_ptb(dataset.find_corpus(str(tmp_path), explicit=False), tmp_path)
    printed = capsys.readouterr().out
    assert "No PTB from there: ptb.train.txt: wrong SHA-256 checksum" in printed
    assert server.asked == ["/bad/ptb.train.txt", *(f"/good/{name}" for name in TEXTS)]


def test_run_on_the_sample_takes_the_place_of_a_download(server, tmp_path, monkeypatch, capsys):
    """Unless PTB, or another corpus, is there meanwhile."""
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a",))
    corpus = dataset.find_corpus(str(tmp_path), explicit=False, is_on_sample=True)
    assert corpus == (str(SAMPLE), "sample") and server.asked == []
    assert "try the download again with --restart" in capsys.readouterr().out
    for name, text in TEXTS.items():
        (tmp_path / name).write_bytes(text)
    assert_ptb(dataset.find_corpus(str(tmp_path), explicit=False, is_on_sample=True), tmp_path)


def test_where_nothing_can_be_stored_nothing_is_downloaded(server, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a",))
    folder = tmp_path / "file" / "data"
    assert dataset.find_corpus(str(folder), explicit=False).kind == "sample"
    said = f"PTB cannot be stored in {folder}: {tmp_path}/file cannot be written to."
    assert said in capsys.readouterr().out
    assert server.asked == []


def test_sample_is_the_sample_however_it_is_named(capsys):
    for path in SAMPLE, SAMPLE / ".." / "sample":
        assert dataset.find_corpus(str(path), explicit=True) == (str(path), "sample")
    assert capsys.readouterr().out.count("compare with nothing published") == 2


@pytest.mark.parametrize("names, said", [
    (None, "my-corpus: no such folder; name that of train.txt, valid.txt and test.txt"),
    ([], "my-corpus is empty; it needs train.txt, valid.txt and test.txt"),
    (["wiki.valid.tokens", "wiki.train.tokens"],
     "my-corpus has wiki.train.tokens, wiki.valid.tokens; name the texts train.txt, valid.txt and"),
    (["input.txt", ".DS_Store"], "my-corpus has input.txt; name the texts train.txt"),
    (["a", "c/train.txt"], "my-corpus has a, c; name the texts"),
    (["a", "c/train.txt", "c/valid.txt", "c/test.txt"],
     "my-corpus has no corpus, but {}/my-corpus/c has one; name that folder"),
    (list("abcdefg"), "my-corpus has a, b, c, d, e, …; name the texts"),
])
def test_named_folder_without_a_corpus(names, said, tmp_path, server, monkeypatch):
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a",))
    folder = tmp_path / "my-corpus"
    if names is not None:
        folder.mkdir()
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("")
    said = re.escape(said.format(tmp_path))
    with pytest.raises(UserError, match=f"^--data_path: {tmp_path}/{said}"):
        dataset.find_corpus(str(folder), explicit=True)
    assert server.asked == []


def test_named_folder_that_is_a_file_or_the_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.txt").write_text("a")
    with pytest.raises(UserError, match="train.txt is a file; name the folder of train.txt"):
        dataset.find_corpus("train.txt", explicit=True)
    with pytest.raises(UserError, match="has no corpus; leave the flag out, and PTB is downloaded"):
        dataset.find_corpus("./simple-examples/data", explicit=True)


def test_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in dataset.FILES:
        (tmp_path / name).write_text("my own words\n")
    assert dataset.find_corpus("~", explicit=True) == (str(tmp_path), "own")


def test_members_without_dot_slash(server, tmp_path, monkeypatch):
    body = archive(prefix=PREFIX[2:])
    server.routes["/a"] = send(body)
    monkeypatch.setattr(dataset, "MD5", hashlib.md5(body).hexdigest())
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a",))
    assert_ptb(dataset.find_corpus(str(tmp_path), explicit=False), tmp_path)


BAD = {
    "wrong checksum": (send(GOOD[:-1] + b"!"), "wrong MD5"),
    "truncated": (send(GOOD[:-10], len(GOOD)), f"only {len(GOOD) - 10:,} of {len(GOOD):,} bytes"),
    "too large": (send(b"x", 100_001), "larger than 100,000 bytes"),
    "endless": (send_endlessly(b"x" * 10_000, 0), "larger than 100,000 bytes"),
    "slow": (send_endlessly(b"x", 0.05), "bytes in "),
    "stalled": (hang, "timed out"),
    "not found": (lambda request: request.send_error(404), "Not Found"),
    "garbled length": (send(GOOD, "many"), "invalid literal"),
    "not HTTP": (lambda request: request.wfile.write(b"hello\r\n\r\n"), "hello"),
    "redirect to a file": (redirect("file:///etc/passwd"), "not allowed"),
    "redirect without end": (lambda request: redirect(request.path)(request), "infinite loop"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_download_then_the_mirror(name, server, tmp_path, monkeypatch, capsys):
    handler, reason = BAD[name]
    server.routes.update({"/a": handler, "/b": send(GOOD)})
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a", server.url + "/b"))
    folder = tmp_path / "data"
    assert_ptb(dataset.find_corpus(str(folder), explicit=False), folder)
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith("No PTB from there: ") and reason in line


def test_redirect_is_followed(server, tmp_path, monkeypatch):
    server.routes.update({"/a": redirect(server.url + "/b"), "/b": send(GOOD)})
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a",))
    assert_ptb(dataset.find_corpus(str(tmp_path), explicit=False), tmp_path)


def test_refused_everywhere_falls_back_to_the_sample(tmp_path, monkeypatch, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(dataset, "URLS", (url, url))
    corpus = dataset.find_corpus(str(tmp_path / "data"), explicit=False)
    assert corpus == (str(SAMPLE), "sample")
    assert os.listdir(tmp_path) == []
    out = capsys.readouterr().out
    assert out.count("Connection refused") == 2
    assert "training on the sample corpus" in out and "nothing published" in out


def member(name, kind=tarfile.REGTYPE, size=0, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, target
    return info


TRAIN = PREFIX + "ptb.train.txt"
REST = {name: text for name, text in TEXTS.items() if name != "ptb.train.txt"}
LINKS = {"symbolic": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "device": tarfile.CHRTYPE}


@pytest.mark.parametrize("body, reason", [
    (archive(REST), "no ptb.train.txt in the archive"),
    (archive({**TEXTS, "ptb.test.txt": TEXTS["ptb.test.txt"][:-1]}), "ptb.test.txt in the archive"),
    (archive({**TEXTS, "ptb.test.txt": TEXTS["ptb.test.txt"][::-1]}), "wrong SHA-256"),
    (archive(prefix="./simple-examples/data/../data/"), "no ptb.train.txt"),
    (archive(prefix="/simple-examples/data/"), "no ptb.train.txt"),
    *((archive(REST, [member(TRAIN, kind, target="/etc/passwd")]), "ptb.train.txt in the archive")
      for kind in LINKS.values()),
    (GOOD[: len(GOOD) // 2], "not a whole .tgz archive"),
    (b"not an archive", "not a whole .tgz archive"),
])
def test_archive_that_is_not_ptb_leaves_nothing(
    body, reason, server, tmp_path, monkeypatch, capsys
):
    server.routes["/a"] = send(body)
    monkeypatch.setattr(dataset, "MD5", hashlib.md5(body).hexdigest())  # as if it were the one
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a",))
    assert dataset.find_corpus(str(tmp_path / "data"), explicit=False).kind == "sample"
    assert reason in capsys.readouterr().out
    assert os.listdir(tmp_path) == []


def test_hostile_members_go_nowhere(server, tmp_path, monkeypatch):
    """Beside the three files: paths that climb out, absolute paths, links, a device."""
    outside = tmp_path / "outside"
    body = archive(members=[
        member("../../outside", size=5),
        member("./simple-examples/data/../../../outside", size=5),
        member(str(outside), size=5),
        member("./simple-examples/data/link", tarfile.SYMTYPE, target=str(tmp_path)),
        member("./simple-examples/data/link/outside", size=5),
        member("./simple-examples/data/hard", tarfile.LNKTYPE, target=str(outside)),
        member("./simple-examples/data/device", tarfile.CHRTYPE),
        member("./simple-examples/data/fifo", tarfile.FIFOTYPE),
    ])
    server.routes["/a"] = send(body)
    monkeypatch.setattr(dataset, "MD5", hashlib.md5(body).hexdigest())
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a",))
    folder = tmp_path / "inside" / "data"
    assert_ptb(dataset.find_corpus(str(folder), explicit=False), folder)
    assert os.listdir(tmp_path) == ["inside"] and os.listdir(folder.parent) == ["data"]


@pytest.mark.parametrize("error, expected", [
    (OSError(28, "No space left on device"), None),
    (KeyboardInterrupt(), KeyboardInterrupt),
])
@pytest.mark.parametrize("when", ["ptb.train.txt", "ptb.valid.txt", "rename"])
def test_full_disk_or_ctrl_c_leaves_nothing(
    when, error, expected, server, tmp_path, monkeypatch, capsys
):
    def fail(*args, **kwargs):
        raise error

    def open_until(path, *args, **kwargs):
        return fail() if str(path).endswith(when) else open(path, *args, **kwargs)

    server.routes["/a"] = send(GOOD)
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a",))
    if when == "rename":
        monkeypatch.setattr(files, "os", System(replace=fail))
    else:
        monkeypatch.setattr(dataset, "open", open_until, raising=False)
    with pytest.raises(expected) if expected else contextlib.nullcontext():
        assert dataset.find_corpus(str(tmp_path / "data"), explicit=False).kind == "sample"
        assert "No space left on device" in capsys.readouterr().out
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("explicit", [True, False])
def test_own_text_is_used_and_said(explicit, tmp_path, capsys):
    for name in dataset.FILES:
        (tmp_path / name).write_text("my own words\n")
    assert dataset.find_corpus(str(tmp_path), explicit) == (str(tmp_path), "own")
    assert "published figures do not apply" in capsys.readouterr().out


@pytest.mark.parametrize("name", dataset.FILES)
def test_one_changed_byte_is_not_ptb(name, tmp_path):
    for each, text in TEXTS.items():
        (tmp_path / each).write_bytes(text)
    assert dataset.find_corpus(str(tmp_path), explicit=True).kind == "PTB"
    (tmp_path / name).write_bytes(b"X" + TEXTS[name][1:])
    assert dataset.find_corpus(str(tmp_path), explicit=False).kind == "own"


@pytest.mark.parametrize("text, explicit", [
    (TEXTS["ptb.train.txt"], True), (b"my own", True), (b"my own", False),
])
def test_incomplete_folder_of_the_user_is_never_downloaded_to(
    text, explicit, server, tmp_path, monkeypatch, capsys
):
    """What is missing there is the reader's error, which names the file."""
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a",))
    (tmp_path / "ptb.train.txt").write_bytes(text)
    assert dataset.find_corpus(str(tmp_path), explicit) == (str(tmp_path), "own")
    assert server.asked == []
    assert capsys.readouterr().out == ""


def test_progress_is_shown_on_a_terminal_only(server, terminal, capsys):
    server.routes["/a"] = send(GOOD)
    terminal()
    assert dataset.fetch(server.url + "/a") == GOOD
    assert "\rDownloading: 100%" in capsys.readouterr().err


def test_real_ptb_is_recognized(shared, monkeypatch):
    monkeypatch.undo()
    folder = str(shared / "simple-examples" / "data")
    assert dataset.find_corpus(folder, explicit=True) == (folder, "PTB")
