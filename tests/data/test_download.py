"""Downloads from a local server that cuts, stalls and refuses, and archives with faults."""

import email.utils
import hashlib
import http.server
import io
import os
import random
import resource
import stat
import tempfile
import threading
import time
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from soundfold.data import download, unpacking
from soundfold.data.download import fetch_esc50
from soundfold.data.tables import read_table
from soundfold.data.unpacking import ArchiveError, unpack
from soundfold.errors import ArgumentError

TABLE = "filename,fold,target,category\n0.wav,1,0,dog\n1.wav,1,1,rain\n2.wav,2,0,dog\n"
CLIPS = {f"{number}.wav": random.Random(number).randbytes(1000) for number in range(3)}
MEMBERS = {"meta/esc50.csv": TABLE.encode(), "LICENSE": b"CC", **{f"audio/{n}": clip for n, clip in CLIPS.items()}}


def sha256(table: str) -> str:
    return hashlib.sha256(table.encode()).hexdigest()


def make_archive(
    members: dict[str, bytes] = MEMBERS, *extra: tuple[str | zipfile.ZipInfo, bytes], method: int = 0
) -> bytes:
    """A ZIP file as GitHub makes them, with everything in one folder; `extra` members have their full names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as out:
        out.writestr("ESC-50-master/README.md", "not unpacked")
        for name, content in members.items():
            out.writestr(f"ESC-50-master/{name}", content)
        for name, content in extra:
            out.writestr(name, content)
    return buffer.getvalue()


@dataclass
class Server:
    """What the server answers, how it misbehaves, and what was requested.

    Attributes:
        errors: status and headers of the first answers.
        cuts: of the next answers, the byte of the body before which each ends.
        stalls: keep the connection open instead of closing it at a cut.
        length_error: bytes that are added to Content-Length.
        waits: seconds that the client slept.
    """

    body: bytes = make_archive()
    url: str = ""
    errors: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    stalls: bool = False
    chunked: bool = False
    length_error: int = 0
    requests: int = 0
    waits: list[float] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)

    def fetch(self, root: Path, table: str = TABLE) -> None:
        fetch_esc50(root, self.url, sha256(table))


@pytest.fixture
def server(monkeypatch):
    plan = Server()
    monkeypatch.setattr(time, "sleep", plan.waits.append)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            plan.requests += 1
            self.close_connection = True
            if plan.errors:
                status, headers = plan.errors.pop(0)
                self.answer(status, {"Content-Length": "0", **headers})
                return
            size = {"Content-Length": f"{len(plan.body) + plan.length_error}"}
            self.answer(200, {**({"Transfer-Encoding": "chunked"} if plan.chunked else size), **plan.headers})
            cut = plan.cuts.pop(0) if plan.cuts else None
            sent = plan.body[:cut]
            if plan.chunked:
                blocks = [sent[start : start + 400] for start in range(0, len(sent), 400)]
                sent = b"".join(f"{len(block):x}\r\n".encode() + block + b"\r\n" for block in blocks)
                sent += b"0\r\n\r\n" if cut is None else b""
            self.wfile.write(sent)
            if plan.stalls and cut is not None:
                plan.closed.wait(20)

        def answer(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_args) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        plan.url = f"http://127.0.0.1:{httpd.server_port}/esc50.zip"
        yield plan
        plan.closed.set()
        httpd.shutdown()


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "data" / "ESC-50"


def is_complete(root: Path) -> bool:
    """The collection exists, with nothing else in its folder or beside it except the lock."""
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return files == MEMBERS and siblings(root) == ["ESC-50"]


def siblings(root: Path) -> list[str]:
    return sorted(path.name for path in root.parent.iterdir())


def test_other_sounds_of_the_archive_are_skipped(server, root):
    server.body = make_archive(MEMBERS | {"tests/0.wav": b"", "tests/audio/0.wav": b""})
    server.fetch(root)
    assert is_complete(root)


def test_a_collection_is_downloaded_once_with_the_users_permissions(server, root):
    umask = os.umask(0o022)
    try:
        server.fetch(root)
    finally:
        os.umask(umask)
    assert is_complete(root)
    assert stat.S_IMODE(root.stat().st_mode) == 0o755
    server.fetch(root)
    assert server.requests == 1


@pytest.mark.parametrize("chunked", [False, True])
def test_a_cut_download_is_retried(server, root, chunked):
    server.cuts, server.chunked = [1500, 2500], chunked
    server.fetch(root)
    assert is_complete(root)
    assert server.requests == 3
    assert server.waits == [1, 2]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_download_that_is_always_cut_leaves_nothing(server, root, chunked):
    server.cuts, server.chunked = [1500] * 5, chunked
    with pytest.raises(ArgumentError, match="closed too early, in the last of 5 attempts"):
        server.fetch(root)
    assert server.requests == 5
    assert server.waits == [1, 2, 3, 4]
    assert siblings(root) == ["ESC-50.lock"]
    server.fetch(root)
    assert is_complete(root)


def test_a_stalled_connection_is_retried(server, root, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    server.cuts, server.stalls = [1500], True
    server.fetch(root)
    assert is_complete(root)
    assert server.requests == 2


@pytest.mark.parametrize(("error", "reason"), [(100, "closed too early"), (-100, "is damaged")])
def test_a_wrong_length_leaves_nothing(server, root, error, reason):
    server.length_error = error
    with pytest.raises(ArgumentError, match=reason):
        server.fetch(root)
    assert siblings(root) == ["ESC-50.lock"]
    server.length_error = 0
    server.fetch(root)
    assert is_complete(root)


@pytest.mark.parametrize("length", ["-5", "many", ""])
def test_an_invalid_length_counts_as_unknown(server, root, length):
    server.headers, server.chunked = {"Content-Length": length}, True
    server.fetch(root)
    assert is_complete(root)
    assert server.requests == 1


@pytest.mark.parametrize("chunked", [False, True])
def test_the_progress_bar_counts_the_bytes_of_the_file(server, root, chunked, monkeypatch):
    shown = []
    update = download.Progress.update
    monkeypatch.setattr(
        download.Progress, "update", lambda self, *args, **values: (shown.append(values), update(self, *args, **values))
    )
    server.chunked = chunked
    server.fetch(root)
    size = len(server.body)
    assert shown[-1] == {"completed": size, "total": None if chunked else size}


@pytest.mark.parametrize("status", [401, 403, 404, 410, 451])
def test_a_permanent_error_is_not_retried(server, root, status):
    server.errors = [(status, {})] * 9
    with pytest.raises(ArgumentError, match=rf"server answered {status} .*Set `root` to a copy.*data=synthetic"):
        server.fetch(root)
    assert (server.requests, server.waits) == (1, [])


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_transient_error_is_retried(server, root, status):
    server.errors = [(status, {})] * 4
    server.fetch(root)
    assert is_complete(root)
    assert server.waits == [1, 2, 3, 4]


def test_an_error_that_stays_is_reported(server, root):
    server.errors = [(503, {})] * 5
    with pytest.raises(ArgumentError, match=r"503 .*in the last of 5 attempts.*data=synthetic"):
        server.fetch(root)
    assert siblings(root) == ["ESC-50.lock"]


@pytest.mark.parametrize(
    ("retry_after", "least", "most"),
    [
        ("7", 7, 7),
        (30, 20, 31),  # a number stands for a date so many seconds from now
        ("9" * 5000, 0, 0),
        ("9999999", 60, 60),
        (1e6, 60, 60),
        ("0", 0, 0),
        ("-3", 0, 0),
        ("nan", 0, 0),
        ("soon", 0, 0),
        (-1e6, 0, 0),
        ("Mon, 40 Jan 99999 10:00:00 GMT", 0, 0),
    ],
)
def test_retry_after_is_respected_up_to_a_minute(server, root, retry_after, least, most):
    if not isinstance(retry_after, str):
        retry_after = email.utils.formatdate(time.time() + retry_after, usegmt=True)
    server.errors = [(429, {"Retry-After": retry_after})]
    server.fetch(root)
    assert server.waits.pop() == 1  # pooch's own
    assert least <= sum(server.waits) <= most


def test_a_login_page_is_refused_at_once(server, root):
    server.body, server.headers = b"<html>Log in</html>", {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(ArgumentError, match="web page .* login"):
        server.fetch(root)
    assert (server.requests, siblings(root)) == (1, ["ESC-50.lock"])


def test_a_page_with_the_type_of_an_archive_is_refused(server, root):
    server.body, server.headers = b"<html>Log in</html>", {"Content-Type": "application/zip"}
    with pytest.raises(ArgumentError, match="not a zip file"):
        server.fetch(root)
    assert siblings(root) == ["ESC-50.lock"]


@pytest.mark.parametrize("chunked", [False, True])
def test_an_endless_answer_is_refused(server, root, chunked, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 2000)
    server.chunked = chunked
    with pytest.raises(ArgumentError, match="the archive exceeds"):
        server.fetch(root)
    assert (server.requests, siblings(root)) == (1, ["ESC-50.lock"])


def test_a_redirection_is_followed(server, root):
    server.errors = [(302, {"Location": server.url})]
    server.fetch(root)
    assert is_complete(root)


def test_without_a_network_the_error_names_alternatives(root, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    with pytest.raises(ArgumentError, match=r"refused.*Set `root` to a copy.*data=synthetic") as error:
        fetch_esc50(root, "http://127.0.0.1:9/none.zip")
    assert "\n" not in str(error.value)
    assert waits == [1, 2, 3, 4]


def test_existing_files_are_not_replaced(server, root):
    root.mkdir(parents=True)
    (root / "own.txt").write_text("mine")
    with pytest.raises(ArgumentError, match="not replaced"):
        server.fetch(root)
    assert server.requests == 0
    (root / "own.txt").unlink()
    server.fetch(root)
    assert is_complete(root)


# faults of the archive


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("ESC-50-master/audio/3.wav")
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../../out.wav", "outside the folder"),
        ("ESC-50-master/audio/../../../out.wav", "outside the folder"),
        ("/out.wav", "outside the folder"),
        ("..\\..\\out.wav", "outside the folder"),
        ("C:/out.wav", "outside the folder"),
        ("0:/out.wav", "outside the folder"),
        (link(), "is a link"),
    ],
)
def test_a_member_outside_the_folder_is_refused(server, root, name, reason):
    server.body = make_archive(MEMBERS, (name, b"/etc/passwd"))
    before = set(root.parents[1].rglob("*"))
    with pytest.raises(ArgumentError, match=reason):
        server.fetch(root)
    assert set(root.parents[1].rglob("*")) - before == {root.parent, root.with_name("ESC-50.lock")}


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_another_compression_is_refused(server, root, method):
    server.body = make_archive(method=method)
    with pytest.raises(ArgumentError, match="neither stored nor deflated"):
        server.fetch(root)
    assert siblings(root) == ["ESC-50.lock"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["audio/0.wav", "meta/esc50.csv"])
def test_a_duplicate_member_is_refused(server, root, name):
    server.body = make_archive(MEMBERS, (f"ESC-50-master/{name}", b"another"))
    with pytest.raises(ArgumentError, match="contains a member twice"):
        server.fetch(root)
    assert not root.exists()


def test_a_bomb_is_refused_by_its_declared_size(server, root, monkeypatch):
    monkeypatch.setattr(unpacking, "MAX_BYTES", 10_000)
    server.body = make_archive(MEMBERS | {"audio/0.wav": bytes(20_000)}, method=zipfile.ZIP_DEFLATED)
    with pytest.raises(ArgumentError, match="would unpack to"):
        server.fetch(root)
    assert siblings(root) == ["ESC-50.lock"]


def test_a_bomb_with_a_false_size_is_not_unpacked(tmp_path, monkeypatch):
    size = 50_000_000
    body = make_archive(MEMBERS | {"audio/0.wav": bytes(size)}, method=zipfile.ZIP_DEFLATED)
    assert body.count(size.to_bytes(4, "little")) == 2  # in the member's header, and in the directory
    (tmp_path / "bomb").write_bytes(body.replace(size.to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    with file_size_limit(100_000), pytest.raises(ArchiveError, match="damaged"):
        unpack(tmp_path / "bomb", tmp_path / "ESC-50", sha256(TABLE))
    assert [path.name for path in tmp_path.iterdir()] == ["bomb"]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({name: content for name, content in MEMBERS.items() if name != "audio/1.wav"}, "2 of the 3 clips"),
        (MEMBERS | {"audio/9.wav": b""}, "1 others"),
        ({name: content for name, content in MEMBERS.items() if not name.startswith("meta")}, "0 tables"),
        (MEMBERS | {"meta/esc50.csv": TABLE.replace("rain", "dog").encode()}, "SHA-256.*unpack the archive by hand"),
        (MEMBERS | {"meta/esc50.csv": TABLE.encode() + b"\n" * (1 << 20)}, "SHA-256"),
    ],
)
def test_another_collection_is_refused(server, root, members, reason):
    server.body = make_archive(members)
    with pytest.raises(ArgumentError, match=reason):
        server.fetch(root)
    assert siblings(root) == ["ESC-50.lock"]


def test_line_ends_of_the_table_do_not_matter(server, root):
    server.body = make_archive(MEMBERS | {"meta/esc50.csv": TABLE.replace("\n", "\r\n").encode()})
    server.fetch(root)
    assert len(read_table(root / "meta" / "esc50.csv")) == 3


def test_the_expected_table_is_the_official_one(esc50_table):
    assert hashlib.sha256(esc50_table.read_bytes()).hexdigest() == unpacking.TABLE_SHA256


@pytest.mark.parametrize("fault", ["header near the end", "name not in UTF-8"])
def test_a_damaged_directory_is_refused(tmp_path, fault):
    body = bytearray(make_archive())
    entry = body.rindex(b"PK\x01\x02", 0, body.rindex(b"ESC-50-master/meta"))
    if fault == "header near the end":
        body[entry + 42 : entry + 46] = (len(body) - 10).to_bytes(4, "little")
    else:
        body[entry + 9] |= 0x08
        body[entry + 46] = 0xFF
    (tmp_path / "archive").write_bytes(body)
    with pytest.raises(ArchiveError, match="damaged"):
        unpack(tmp_path / "archive", tmp_path / "ESC-50", sha256(TABLE))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_archive_is_refused_or_does_no_harm(tmp_path, method):
    body = make_archive({name: content[:100] for name, content in MEMBERS.items()}, method=method)
    expected = {name: content[:100] for name, content in MEMBERS.items()}
    path, root = tmp_path / "archive", tmp_path / "ESC-50"
    refused = 0
    draws = random.Random(0)
    for position in range(0, len(body), 3):
        damaged = bytearray(body)
        damaged[position] ^= draws.randrange(1, 256)
        path.write_bytes(damaged if position % 2 else body[:position])
        try:
            unpack(path, root, sha256(TABLE))
        except ArchiveError:
            refused += 1
            assert [file.name for file in tmp_path.iterdir()] == ["archive"]
            continue
        files = {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}
        # the table does not list the license
        assert files == expected or files == {name: c for name, c in expected.items() if name != "LICENSE"}
        for file in sorted(root.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        root.rmdir()
    assert refused > len(body) / 6


# faults of the disk


@contextmanager
def file_size_limit(size: int):
    """Limit the size of files, bytes: writing more fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_during_the_download_is_one_clear_error(server, root):
    server.body = make_archive(MEMBERS, ("ESC-50-master/more", bytes(300_000)))
    with file_size_limit(100_000), pytest.raises(ArgumentError, match=r"written to `root`=.*Free some space"):
        server.fetch(root)
    assert server.waits == []
    assert not root.exists()
    server.fetch(root)
    assert is_complete(root)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_disk_that_fills_during_unpacking_keeps_the_archive(server, root, chunked):
    server.chunked = chunked
    large = {**MEMBERS, "audio/0.wav": bytes(300_000)}
    server.body = make_archive(large, method=zipfile.ZIP_DEFLATED)
    with file_size_limit(100_000), pytest.raises(ArgumentError, match=r"written to `root`=.*Free some space"):
        server.fetch(root)
    assert siblings(root) == ["ESC-50.download", "ESC-50.lock"]
    server.fetch(root)
    assert (root / "audio" / "0.wav").stat().st_size == 300_000
    assert server.requests == 1


@pytest.mark.parametrize(("free", "files"), [(100, []), (4500, ["ESC-50.zip"])])
def test_too_little_space_is_reported_before_the_disk_is_full(server, root, monkeypatch, free, files):
    server.body = make_archive(MEMBERS | {"audio/0.wav": bytes(5000)}, method=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(
        unpacking.shutil, "disk_usage", lambda _: unpacking.shutil._ntuple_diskusage(10**9, 10**9, free)
    )
    with pytest.raises(ArgumentError, match="GB are needed"):
        server.fetch(root)
    assert siblings(root) == ["ESC-50.download", "ESC-50.lock"]
    assert [path.name for path in root.with_name("ESC-50.download").iterdir()] == files


@pytest.fixture
def guarded(request):
    """A folder with restricted permissions, used by a user to whom they apply: they do not apply to root."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(request.param)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    folder.rmdir()


@pytest.mark.parametrize("guarded", [0o555, 0o000], indirect=True)
def test_a_folder_without_write_permission_is_one_clear_error(server, guarded):
    with pytest.raises(ArgumentError, match=r"denied.*set `root` to a folder"):
        server.fetch(guarded / "ESC-50")
    assert server.requests == 0


def test_a_folder_below_a_file_is_one_clear_error(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match=r"written to `root`=.*set `root` to a folder"):
        server.fetch(tmp_path / "file" / "ESC-50")
    assert server.requests == 0


def test_files_of_a_killed_process_are_removed(server, root):
    for name in ("ESC-50.4711.part/audio/0.wav", "ESC-50.download/tmp4711"):
        stale = root.parent / name
        stale.parent.mkdir(parents=True)
        stale.write_bytes(b"half")
    server.fetch(root)
    assert is_complete(root)
