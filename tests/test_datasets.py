"""Downloads: a zip archive from a server on this machine, whole, wrong, cut, and out of reach."""

import io
import socket
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from whatwhere import datasets
from whatwhere.errors import FormatError, OptionError
from whatwhere.formats import antolik

FILES = {"Data/region1/a.npy": b"first", "Data/region1/b.npy": b"second"}
BLOBS = {name: antolik.git_blob(content) for name, content in FILES.items()}
ENTRIES = {f"S1/{name}": content for name, content in FILES.items()}
EXTRA = {"../../outside.txt": b"no", "__MACOSX/Data/region1/a.npy": b"no", "S1/README": b"no"}


def zipped(entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def serve(monkeypatch):
    """Starts a server on loopback that answers every request with the given bytes; counts the requests."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers = []

    def start(content):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.count += 1
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.count = 0
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server, dataset(server.server_port)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def dataset(*ports):
    urls = tuple(f"http://127.0.0.1:{port}/s001" for port in ports)
    return datasets.Dataset("tiny", urls, BLOBS, "supplement S1, doi 10.0/tiny", "Data")


def held(folder):
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_published_files_alone_are_kept(serve, tmp_path, capfd):
    server, tiny = serve(zipped(EXTRA | ENTRIES))
    folder = tmp_path / "deep" / "tiny"
    assert datasets.download(tiny, folder) == folder / "Data"
    assert held(tmp_path) == {f"deep/tiny/{name}" for name in FILES}
    assert (folder / "Data/region1/b.npy").read_bytes() == b"second"
    datasets.download(tiny, folder)
    assert server.count == 1
    (folder / "Data/region1/a.npy").unlink()
    datasets.download(tiny, folder)
    assert (server.count, held(folder)) == (2, set(FILES))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            zipped(ENTRIES | {"S1/Data/region1/b.npy": b"forged"}),
            r"nothing was kept: Data/region1/b\.npy \(git blob",
        ),
        (zipped({"S1/Data/region1/a.npy": b"first"}), r"b\.npy \(not in it\)"),
        (b"<html>moved</html>", "not a whole zip archive"),
        (zipped(ENTRIES)[:-30], "not a whole zip archive"),
    ],
    ids=["forged", "absent", "page", "cut"],
)
def test_nothing_is_kept_of_a_wrong_archive(serve, tmp_path, content, message):
    _, tiny = serve(content)
    with pytest.raises(FormatError, match=message):
        datasets.download(tiny, tmp_path)
    assert held(tmp_path) == set()


def test_out_of_reach_it_says_what_to_do_by_hand(monkeypatch, tmp_path):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(FormatError, match="could not be downloaded") as caught:
        datasets.download(dataset(closed_port()), tmp_path)
    for part in ("supplement S1", "doi 10.0/tiny", str(tmp_path), *FILES):
        assert part in str(caught.value)
    assert held(tmp_path) == set()


def test_the_second_address_is_tried(serve, tmp_path):
    server, _ = serve(zipped(ENTRIES))
    datasets.download(dataset(closed_port(), server.server_port), tmp_path)
    assert held(tmp_path) == set(FILES)


def test_other_files_in_the_place_are_never_replaced(tmp_path):
    path = tmp_path / "Data/region1/a.npy"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(FormatError, match=r"not the published ones of tiny: Data/region1/a\.npy"):
        datasets.download(dataset(closed_port()), tmp_path)
    assert path.read_bytes() == b"mine"


def test_the_cache_is_chosen_by_the_environment(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("WHATWHERE_CACHE", str(tmp_path))
    _, tiny = serve(zipped(ENTRIES))
    monkeypatch.setitem(datasets.DATASETS, "tiny", tiny)
    assert datasets.fetch("tiny") == tmp_path / "tiny" / "Data"


def test_an_unknown_dataset_names_the_nearest():
    with pytest.raises(OptionError, match="Did you mean 'antolik2016'"):
        datasets.fetch("antolik")


def test_the_registry_names_every_published_file_once():
    files = datasets.DATASETS["antolik2016"].files
    assert len(files) == 15
    assert files["Data/region3/training_inputs.npy"] == "1ccc45c1c07c5002b9a01ca4793f03905eb2ce98"
    assert all(len(blob) == 40 for blob in files.values())
