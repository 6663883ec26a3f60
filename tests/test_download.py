import http.server
import threading
import zipfile
from pathlib import Path

import pytest

from soundfold.data.download import fetch_esc50
from soundfold.errors import InputError


@pytest.fixture
def server(tmp_path):
    """A local server of tmp_path/www, which answers ranges and can cut an answer short."""
    folder = tmp_path / "www"
    folder.mkdir()

    class Handler(http.server.BaseHTTPRequestHandler):
        cut_at: int | None = None
        chunked = False
        ranges = True
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = (folder / Path(self.path).name).read_bytes()
            start = int(self.headers.get("Range", "bytes=0-")[6:-1]) if Handler.ranges else 0
            self.send_response(206 if start else 200)
            if Handler.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Content-Length", str(len(body) - start))
            self.send_header("Connection", "close")
            self.end_headers()
            sent = body[start : Handler.cut_at]
            if not Handler.chunked:
                self.wfile.write(sent)
                return
            for at in range(0, len(sent), 400):
                self.wfile.write(f"{len(sent[at : at + 400]):x}\r\n".encode() + sent[at : at + 400] + b"\r\n")
            if Handler.cut_at is None:
                self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_args) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}/esc50.zip", Handler
        httpd.shutdown()


def archive(path: Path, clips: int = 3) -> None:
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("ESC-50-master/meta/esc50.csv", "filename,fold,target,category\n")
        for number in range(clips):
            out.writestr(f"ESC-50-master/audio/{number}.wav", bytes(1000))


def test_fetch_unpacks_and_is_done_once(server, tmp_path):
    folder, url, _ = server
    archive(folder / "esc50.zip")
    root = tmp_path / "data" / "ESC-50"
    fetch_esc50(root, url, clips=3)
    assert sorted(p.name for p in (root / "audio").iterdir()) == ["0.wav", "1.wav", "2.wav"]
    (folder / "esc50.zip").unlink()
    fetch_esc50(root, url, clips=3)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_cut_download_is_continued(server, tmp_path, chunked, ranges):
    folder, url, handler = server
    archive(folder / "esc50.zip")
    root = tmp_path / "ESC-50"
    handler.cut_at, handler.chunked, handler.ranges = 1500, chunked, ranges
    with pytest.raises(InputError, match="closed after 1500 .*run again to continue"):
        fetch_esc50(root, url, clips=3)
    assert not root.exists()
    assert (tmp_path / "ESC-50.zip.part").read_bytes() == (folder / "esc50.zip").read_bytes()[:1500]
    handler.cut_at = None
    fetch_esc50(root, url, clips=3)
    assert (root / "meta" / "esc50.csv").is_file()


def test_another_archive_is_refused(server, tmp_path):
    folder, url, _ = server
    archive(folder / "esc50.zip", clips=2)
    with pytest.raises(InputError, match="does not hold 3 clips"):
        fetch_esc50(tmp_path / "ESC-50", url, clips=3)
    assert not (tmp_path / "ESC-50").exists()


def test_no_network_names_the_alternatives(tmp_path):
    with pytest.raises(InputError, match=r"data\.root.*data=synthetic"):
        fetch_esc50(tmp_path / "ESC-50", "http://127.0.0.1:9/none.zip")
