"""Downloads from a server here that cuts, stalls, lies and refuses, and archives that are not what they should be."""

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
from soundfold.errors import InputError

TABLE = "filename,fold,target,category\n0.wav,1,0,dog\n1.wav,1,1,rain\n2.wav,2,0,dog\n"
CLIPS = {f"{number}.wav": random.Random(number).randbytes(1000) for number in range(3)}
MEMBERS = {"meta/esc50.csv": TABLE.encode(), "LICENSE": b"CC", **{f"audio/{n}": clip for n, clip in CLIPS.items()}}


def sha256(table: str) -> str:
    return hashlib.sha256(table.encode()).hexdigest()


def packed(members: dict[str, bytes] = MEMBERS, *more: tuple[str | zipfile.ZipInfo, bytes], method: int = 0) -> bytes:
    """A ZIP file as GitHub makes them, in a folder of its own; `more` members stand under their own names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as out:
        out.writestr("ESC-50-master/README.md", "not unpacked")
        for name, content in members.items():
            out.writestr(f"ESC-50-master/{name}", content)
        for name, content in more:
            out.writestr(name, content)
    return buffer.getvalue()


@dataclass
class Server:
    """What the server gives, how it misbehaves, and what it was asked."""

    body: bytes = packed()
    url: str = ""
    # the first answers: a status and its headers each
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)  # of the next answers: the byte of the body that each ends before
    stalls: bool = False  # instead of a cut the connection stays open
    chunked: bool = False
    ranges: bool = True
    if_range: bool = True  # an If-Range of another version is answered with the whole
    lie: int = 0  # bytes that are added to Content-Length
    shift: int = 0  # bytes that are added to the start of a range
    total: bool = True  # a range says how long the whole is
    asked: list[dict[str, str]] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def fetch(self, root: Path, table: str = TABLE) -> None:
        fetch_esc50(root, self.url, sha256(table), self.waited.append)

    def starts(self) -> list[int]:
        """The first byte that each request asked for."""
        return [int(request.get("Range", "bytes=0-")[6:-1]) for request in self.asked]


@pytest.fixture
def server():
    plan = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            plan.asked.append(dict(self.headers))
            self.close_connection = True
            if plan.refusals:
                status, headers = plan.refusals.pop(0)
                self.answer(status, {"Content-Length": "0", **headers})
                return
            start = plan.starts()[-1] if plan.ranges else 0
            version = plan.headers.get("ETag") or plan.headers.get("Last-Modified")
            if plan.if_range and self.headers.get("If-Range", version) != version:
                start = 0
            size = len(plan.body)
            if start and start >= size:
                self.answer(416, {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
                return
            start = start + plan.shift if start else 0
            length = (
                {"Transfer-Encoding": "chunked"} if plan.chunked else {"Content-Length": f"{size - start + plan.lie}"}
            )
            span = {"Content-Range": f"bytes {start}-{size - 1}/{size if plan.total else '*'}"} if start else {}
            self.answer(206 if start else 200, {**length, **span, **plan.headers})
            cut = plan.cuts.pop(0) if plan.cuts else None
            sent = plan.body[start:cut]
            if plan.chunked:
                blocks = [sent[at : at + 400] for at in range(0, len(sent), 400)]
                sent = b"".join(f"{len(block):x}\r\n".encode() + block + b"\r\n" for block in blocks)
                sent += b"0\r\n\r\n" if cut is None else b""
            self.wfile.write(sent)
            if plan.stalls and cut is not None:
                plan.over.wait(20)

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
        plan.over.set()
        httpd.shutdown()


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "data" / "ESC-50"


def whole(root: Path) -> bool:
    """The collection is there, with nothing else in it or beside it but the lock."""
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return found == MEMBERS and beside(root) == ["ESC-50", "ESC-50.lock"]


def beside(root: Path) -> list[str]:
    return sorted(path.name for path in root.parent.iterdir())


def test_other_sounds_of_the_archive_are_left_out(server, root):
    server.body = packed(MEMBERS | {"tests/0.wav": b"", "tests/audio/0.wav": b""})
    server.fetch(root)
    assert whole(root)


def test_a_collection_is_downloaded_once_and_readable_as_the_user_wants(server, root):
    umask = os.umask(0o022)
    try:
        server.fetch(root)
    finally:
        os.umask(umask)
    assert whole(root)
    assert stat.S_IMODE(root.stat().st_mode) == 0o755
    server.fetch(root)
    assert len(server.asked) == 1


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_cut_download_goes_on_after_a_while(server, root, chunked, ranges):
    server.cuts, server.chunked, server.ranges = [1500, 2500], chunked, ranges
    server.fetch(root)
    assert whole(root)
    assert server.starts() == [0, 1500, 2500]
    first, second = server.waited
    assert 0.5 <= first <= 1.5
    assert 1 <= second <= 3


def test_a_download_that_is_always_cut_is_kept_and_goes_on_in_the_next_run(server, root):
    server.cuts = [1500] * 9
    with pytest.raises(InputError, match="closed after 1500 of .* run again to continue"):
        server.fetch(root)
    assert len(server.asked) == 5
    assert all(2**k * 0.5 <= wait <= 2**k * 1.5 for k, wait in enumerate(server.waited))
    assert not root.exists()
    assert root.with_name("ESC-50.zip.part").read_bytes() == server.body[:1500]
    server.cuts = []
    server.fetch(root)
    assert whole(root)
    assert server.starts()[-1] == 1500


def test_jobs_do_not_come_back_together(server, root):
    server.refusals = [(503, {})] * 10
    for _ in range(2):
        with pytest.raises(InputError, match="503"):
            server.fetch(root)
    assert len(set(server.waited)) == 8


def test_a_stalled_connection_counts_as_cut(server, root, monkeypatch):
    monkeypatch.setattr(download, "STALLED", 0.3)
    server.cuts, server.stalls = [1500], True
    server.fetch(root)
    assert whole(root)
    assert server.starts() == [0, 1500]


VERSIONS = [{"ETag": '"1"'}, {"ETag": 'W/"1"'}, {"Last-Modified": "Mon, 05 Jan 2026 10:00:00 GMT"}]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_part_goes_on_only_in_the_same_version(server, root, version):
    server.headers, server.cuts = version, [1500]
    server.fetch(root)
    assert whole(root)
    (value,) = version.values()
    assert server.asked[1].get("If-Range") == (None if value.startswith("W/") else value)


@pytest.mark.parametrize("if_range", [True, False])
@pytest.mark.parametrize("version", VERSIONS)
def test_an_archive_that_changed_meanwhile_begins_again(server, root, version, if_range):
    server.headers, server.cuts, server.if_range = version, [1500] * 5, if_range
    with pytest.raises(InputError, match="run again"):
        server.fetch(root)
    server.cuts = []
    ((name, value),) = version.items()
    server.headers = {name: value.replace("1", "2").replace("Mon", "Thu")}
    # as long as the other: only the version tells them apart
    clips = {name: clip[::-1] if name.startswith("audio") else clip for name, clip in MEMBERS.items()}
    server.body = packed(clips)
    server.fetch(root)
    assert (root / "audio" / "0.wav").read_bytes() == CLIPS["0.wav"][::-1]
    assert server.starts()[5:] == ([1500] if if_range and "W/" not in value else [1500, 0])


def test_an_archive_of_another_length_begins_again(server, root):
    server.cuts = [1500] * 5
    with pytest.raises(InputError, match="run again"):
        server.fetch(root)
    server.cuts = []
    server.body = packed(MEMBERS, ("ESC-50-master/new", b"."))
    server.fetch(root)
    assert whole(root)
    assert server.starts()[5:] == [1500, 0]


def test_a_range_that_begins_elsewhere_is_not_appended(server, root):
    server.cuts, server.shift = [1500], 1
    server.fetch(root)
    assert whole(root)
    assert server.starts() == [0, 1500, 0]


def test_a_range_that_does_not_say_of_how_much_is_cut_short_too(server, root):
    server.total, server.cuts = False, [1500, 2500]
    server.fetch(root)
    assert whole(root)
    assert server.starts() == [0, 1500, 2500]


def test_a_part_of_unknown_length_that_was_whole_is_known_to_be(server, root):
    server.chunked, server.cuts = True, [len(server.body)]
    server.fetch(root)
    assert whole(root)
    assert server.starts() == [0, len(server.body)]


def test_a_part_beyond_the_archive_begins_again(server, root):
    long, server.body = server.body, packed(MEMBERS, ("ESC-50-master/more", bytes(500)))
    server.chunked, server.cuts = True, [len(server.body) - 1] * 5
    with pytest.raises(InputError, match="run again"):
        server.fetch(root)
    server.body, server.cuts = long, []
    server.fetch(root)
    assert whole(root)


@pytest.mark.parametrize(("lie", "reason"), [(100, "closed after .* run again"), (-100, "is damaged")])
def test_a_wrong_length_leaves_nothing(server, root, lie, reason):
    server.lie, server.ranges = lie, False
    with pytest.raises(InputError, match=reason):
        server.fetch(root)
    assert not root.exists()
    server.lie = 0
    server.fetch(root)
    assert whole(root)


@pytest.mark.parametrize("length", ["-5", "many", ""])
def test_a_length_that_is_none_counts_as_unknown(server, root, length):
    server.headers = {"Content-Length": length}
    server.lie = -len(server.body)  # the handler's own, before it: the last that is sent does not count
    server.chunked = True
    server.fetch(root)
    assert whole(root)


@pytest.mark.parametrize("status", [401, 403, 404, 410, 451])
def test_a_final_answer_is_not_asked_for_again(server, root, status):
    server.refusals = [(status, {})] * 9
    with pytest.raises(InputError, match=rf"HTTP Error {status}.*data\.root=DIRECTORY.*data=synthetic"):
        server.fetch(root)
    assert (len(server.asked), server.waited) == (1, [])


def test_a_final_answer_keeps_what_had_arrived(server, root):
    server.cuts = [1500] * 5
    with pytest.raises(InputError, match="run again"):
        server.fetch(root)
    server.refusals = [(404, {})]
    with pytest.raises(InputError, match="404"):
        server.fetch(root)
    server.cuts = []
    server.fetch(root)
    assert server.starts()[-1] == 1500


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_answer_is(server, root, status):
    server.refusals = [(status, {})] * 4
    server.fetch(root)
    assert whole(root)
    assert len(server.waited) == 4


def dated(seconds: float) -> str:
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


@pytest.mark.parametrize(
    ("asks", "least", "most"),
    [
        ("7", 7, 7),
        (30, 20, 31),  # a number stands for a date so many seconds from now
        ("9" * 5000, 60, 60),
        (1e6, 60, 60),
        ("0", 0.5, 1.5),
        ("-3", 0.5, 1.5),
        ("nan", 0.5, 1.5),
        ("soon", 0.5, 1.5),
        (-1e6, 0.5, 1.5),
        ("Mon, 40 Jan 99999 10:00:00 GMT", 0.5, 1.5),
    ],
)
def test_a_server_that_names_a_wait_is_given_it_up_to_a_minute(server, root, asks, least, most):
    server.refusals = [(429, {"Retry-After": asks if isinstance(asks, str) else dated(asks)})]
    server.fetch(root)
    (wait,) = server.waited
    assert least <= wait <= most


def test_a_login_page_is_refused_and_keeps_what_had_arrived(server, root):
    server.cuts = [1500] * 5
    with pytest.raises(InputError, match="run again"):
        server.fetch(root)
    body, server.body, server.cuts = server.body, b"<html>Log in</html>" * 200, []
    server.headers = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(InputError, match="web page .* login"):
        server.fetch(root)
    assert server.waited[4:] == []
    server.body, server.headers = body, {}
    server.fetch(root)
    assert whole(root)
    assert server.starts()[-1] == 1500


def test_a_page_that_calls_itself_an_archive_is_refused(server, root):
    server.body, server.headers = b"<html>Log in</html>", {"Content-Type": "application/zip"}
    with pytest.raises(InputError, match=r"not ESC-50's archive.*not a zip file.*deleted"):
        server.fetch(root)
    assert beside(root) == ["ESC-50.lock"]


@pytest.mark.parametrize(("chunked", "reason"), [(False, "it is .* GB, but"), (True, "does not end")])
def test_an_endless_answer_is_refused(server, root, chunked, reason, monkeypatch):
    monkeypatch.setattr(download, "LIMIT", 2000)
    server.chunked = chunked
    with pytest.raises(InputError, match=f"{reason}.*ESC-50 is less"):
        server.fetch(root)
    assert beside(root) == ["ESC-50.lock"]


def test_no_network_names_the_alternatives(root):
    waited: list[float] = []
    with pytest.raises(InputError, match=r"refused.*data\.root=DIRECTORY.*data=synthetic"):
        fetch_esc50(root, "http://127.0.0.1:9/none.zip", sleep=waited.append)
    assert len(waited) == 4


def test_what_is_there_is_not_replaced(server, root):
    root.mkdir(parents=True)
    (root / "own.txt").write_text("mine")
    with pytest.raises(InputError, match="not replaced"):
        server.fetch(root)
    assert server.asked == []
    (root / "own.txt").unlink()
    server.fetch(root)
    assert whole(root)


# the archive's own faults


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
def test_a_member_that_could_be_written_elsewhere_is_refused(server, root, name, reason):
    server.body = packed(MEMBERS, (name, b"/etc/passwd"))
    before = set(root.parents[1].rglob("*"))
    with pytest.raises(InputError, match=reason):
        server.fetch(root)
    assert set(root.parents[1].rglob("*")) - before == {root.parent, root.with_name("ESC-50.lock")}


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_another_compression_is_refused(server, root, method):
    server.body = packed(method=method)
    with pytest.raises(InputError, match="another method than deflate"):
        server.fetch(root)
    assert beside(root) == ["ESC-50.lock"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["audio/0.wav", "meta/esc50.csv"])
def test_a_member_that_is_there_twice_is_refused(server, root, name):
    server.body = packed(MEMBERS, (f"ESC-50-master/{name}", b"another"))
    with pytest.raises(InputError, match="twice|2 tables"):
        server.fetch(root)
    assert not root.exists()


def test_a_bomb_is_refused_by_what_it_declares(server, root, monkeypatch):
    monkeypatch.setattr(unpacking, "LIMIT", 10_000)
    server.body = packed(MEMBERS | {"audio/0.wav": bytes(20_000)}, method=zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="would unpack to"):
        server.fetch(root)
    assert beside(root) == ["ESC-50.lock"]


def test_a_bomb_that_declares_little_is_not_unpacked(tmp_path, monkeypatch):
    real = 50_000_000
    body = packed(MEMBERS | {"audio/0.wav": bytes(real)}, method=zipfile.ZIP_DEFLATED)
    assert body.count(real.to_bytes(4, "little")) == 2  # in the member's own header, and in the directory
    (tmp_path / "bomb").write_bytes(body.replace(real.to_bytes(4, "little"), (1000).to_bytes(4, "little")))
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
    server.body = packed(members)
    with pytest.raises(InputError, match=reason):
        server.fetch(root)
    assert beside(root) == ["ESC-50.lock"]


def test_line_ends_of_the_table_do_not_matter(server, root):
    server.body = packed(MEMBERS | {"meta/esc50.csv": TABLE.replace("\n", "\r\n").encode()})
    server.fetch(root)
    assert len(read_table(root / "meta" / "esc50.csv")) == 3


def test_the_expected_table_is_the_official_one(esc50_table):
    assert hashlib.sha256(esc50_table.read_bytes()).hexdigest() == unpacking.TABLE_SHA256


@pytest.mark.parametrize("fault", ["header near the end", "name that is no UTF-8"])
def test_a_damaged_directory_is_told(tmp_path, fault):
    body = bytearray(packed())
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
    body = packed({name: content[:100] for name, content in MEMBERS.items()}, method=method)
    expected = {name: content[:100] for name, content in MEMBERS.items()}
    path, root = tmp_path / "archive", tmp_path / "ESC-50"
    refused = 0
    draws = random.Random(0)
    for place in range(0, len(body), 3):
        damaged = bytearray(body)
        damaged[place] ^= draws.randrange(1, 256)
        path.write_bytes(damaged if place % 2 else body[:place])
        try:
            unpack(path, root, sha256(TABLE))
        except ArchiveError:
            refused += 1
            assert [found.name for found in tmp_path.iterdir()] == ["archive"]
            continue
        found = {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}
        # the licence has no entry in the table
        assert found == expected or found == {name: c for name, c in expected.items() if name != "LICENSE"}
        for file in sorted(root.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        root.rmdir()
    assert refused > len(body) / 6


# the disk's faults


@contextmanager
def file_size_limit(size: int):
    """No file may grow beyond `size` bytes: writing more fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_during_the_download_is_one_plain_answer(server, root):
    server.body = packed(MEMBERS, ("ESC-50-master/more", bytes(300_000)))
    with file_size_limit(100_000), pytest.raises(InputError, match=r"neither read from data\.root=.*free some"):
        server.fetch(root)
    assert server.waited == []
    assert not root.exists()
    server.fetch(root)
    assert whole(root)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_disk_that_fills_during_unpacking_keeps_the_archive(server, root, chunked):
    server.chunked = chunked
    large = {**MEMBERS, "audio/0.wav": bytes(300_000)}
    server.body = packed(large, method=zipfile.ZIP_DEFLATED)
    with file_size_limit(100_000), pytest.raises(InputError, match=r"neither read from data\.root=.*free some"):
        server.fetch(root)
    assert beside(root) == ["ESC-50.lock", "ESC-50.zip.part", "ESC-50.zip.part.json"]
    server.fetch(root)
    assert (root / "audio" / "0.wav").stat().st_size == 300_000
    assert len(server.asked) == 1


@pytest.mark.parametrize(("free", "files"), [(100, []), (4500, ["ESC-50.zip.part", "ESC-50.zip.part.json"])])
def test_a_disk_with_too_little_room_is_told_before_it_is_filled(server, root, monkeypatch, free, files):
    server.body = packed(MEMBERS | {"audio/0.wav": bytes(5000)}, method=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(
        unpacking.shutil, "disk_usage", lambda _: unpacking.shutil._ntuple_diskusage(10**9, 10**9, free)
    )
    with pytest.raises(InputError, match="GB are needed there"):
        server.fetch(root)
    assert beside(root) == ["ESC-50.lock", *files]


@pytest.fixture
def guarded(request):
    """A folder of a mode, looked at by a user whom modes stop, as they do not stop root."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(request.param)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    folder.rmdir()


@pytest.mark.parametrize("guarded", [0o555, 0o000], indirect=True)
def test_a_folder_that_may_not_be_written_is_one_plain_answer(server, guarded):
    with pytest.raises(InputError, match=r"denied.*data\.root=DIRECTORY"):
        server.fetch(guarded / "ESC-50")
    assert server.asked == []


def test_a_folder_that_cannot_be_is_one_plain_answer(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"neither read from data\.root=.*data\.root=DIRECTORY"):
        server.fetch(tmp_path / "file" / "ESC-50")
    assert server.asked == []


def test_what_a_killed_process_left_is_cleared_away(server, root):
    left = root.with_name("ESC-50.4711.part") / "audio"
    left.mkdir(parents=True)
    (left / "0.wav").write_bytes(b"half")
    server.fetch(root)
    assert whole(root)
