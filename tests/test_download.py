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

        def do_GET(self) -> None:
            body = (folder / Path(self.path).name).read_bytes()
            start = int(self.headers.get("Range", "bytes=0-")[6:-1])
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            self.wfile.write(body[start : Handler.cut_at])

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


def test_a_cut_download_is_continued(server, tmp_path):
    folder, url, handler = server
    archive(folder / "esc50.zip")
    root = tmp_path / "ESC-50"
    handler.cut_at = 1500
    with pytest.raises(InputError, match="run again to continue|IncompleteRead"):
        fetch_esc50(root, url, clips=3)
    assert not root.exists()
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
