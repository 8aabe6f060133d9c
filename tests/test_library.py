"""Models by name: those that come along, and those of a hub, which a server on this machine plays for the client."""

from __future__ import annotations

import hashlib
import http.server
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from showtell import library
from showtell.bundle import find_bundle
from showtell.captioner import Captioner
from showtell.cli.main import main
from showtell.cli.models import describe_search
from showtell.errors import BundleError, MissingExtraError
from showtell.files import digest_file
from showtell.library import bundled_names, is_name, list_models, locate_model
from tiny_runs import exported_run, trained_run

VERSION = "0123456789abcdef0123456789abcdef01234567"
Capture = pytest.CaptureFixture[str]


class Hub(http.server.ThreadingHTTPServer):
    """Answers what huggingface_hub asks of a hub that has one model, somebody/captioner."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files = files
        self.asked: list[str] = []
        self.version = VERSION


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        hub = self.server
        assert isinstance(hub, Hub)
        path = self.path.partition("?")[0]
        hub.asked.append(path)
        if path == f"/api/models/somebody/captioner/revision/{VERSION}" or path.endswith("/revision/main"):
            self._json(
                {"id": "somebody/captioner", "sha": hub.version, "siblings": self._entries(hub, "rfilename")}
            )
        elif path.startswith("/api/models/somebody/captioner/tree/"):
            self._json(self._entries(hub, "path"))
        elif path.startswith("/somebody/captioner/resolve/"):
            content = hub.files[path.rsplit("/", 1)[1]]
            self._send(
                content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', **{"X-Repo-Commit": hub.version}
            )
        elif "/captioner/revision/" in path:
            self._send(b"{}", status=404, **{"X-Error-Code": "RevisionNotFound"})
        else:
            self._send(b"{}", status=404, **{"X-Error-Code": "RepoNotFound"})

    def do_HEAD(self) -> None:
        self.do_GET()

    def _entries(self, hub: Hub, key: str) -> list[dict[str, Any]]:
        return [
            {"type": "file", key: name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for name, content in hub.files.items()
        ]

    def _json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), **{"Content-Type": "application/json"})

    def _send(self, content: bytes, *, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    files = {path.name: path.read_bytes() for path in exported_run().iterdir()}
    files |= {"weights.bin": b"a pickle", "setup.py": b"import os", "README.md": b"# A captioner"}
    server = Hub(files)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path / "cache"))
    address = f"http://127.0.0.1:{server.server_port}"
    import huggingface_hub.constants
    import huggingface_hub.hf_api

    # The client reads its address once; a process of its own would take HF_ENDPOINT.
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", address)
    monkeypatch.setattr(
        huggingface_hub.constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


# By name


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert locate_model(tmp_path) == tmp_path
    assert not is_name(str(tmp_path))


def test_what_comes_along_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(exported_run(), tmp_path / "bundled" / "mini")
    (tmp_path / "bundled" / "no-model").mkdir()
    monkeypatch.setattr(library, "BUNDLED", tmp_path / "bundled")
    assert bundled_names() == ["mini"]
    assert is_name("mini")
    assert locate_model("mini") == tmp_path / "bundled" / "mini"
    [picture] = Captioner.load("mini").caption([Image.new("RGB", (64, 64))])
    assert picture.text
    with pytest.raises(
        BundleError, match=r"minni: no such model\. Did you mean 'mini'\? Models by name: mini\. Give"
    ):
        locate_model("minni")


def test_a_folder_here_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(exported_run(), tmp_path / "bundled" / "mini")
    monkeypatch.setattr(library, "BUNDLED", tmp_path / "bundled")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini").mkdir()
    assert not is_name("mini")
    assert locate_model("mini") == Path("mini")


# From a hub


def test_a_model_is_fetched_once_and_then_used_without_a_network(hub: Hub, tmp_path: Path) -> None:
    folder = locate_model("hub:somebody/captioner")
    assert folder.is_relative_to(tmp_path / "cache" / "hub")
    assert {file.name for file in folder.iterdir()} == {
        *(file.name for file in exported_run().iterdir()),
        "README.md",
    }
    [ours] = Captioner.load("hub:somebody/captioner").caption([Image.new("RGB", (64, 64), (200, 40, 40))])
    [theirs] = Captioner.load(exported_run()).caption([Image.new("RGB", (64, 64), (200, 40, 40))])
    assert ours.text == theirs.text
    hub.asked.clear()
    assert locate_model("hub:somebody/captioner") == folder
    assert locate_model(f"hub:somebody/captioner@{VERSION}") == folder
    assert hub.asked == []


def test_a_digest_is_demanded(hub: Hub) -> None:
    digest = digest_file(exported_run() / "portable.json")
    assert locate_model(f"hub:somebody/captioner#{digest}") == locate_model(
        f"hub:somebody/captioner#{digest[:12]}"
    )
    with pytest.raises(
        BundleError, match=f"its manifest has the SHA-256 {digest}, not one that begins with 000000"
    ):
        locate_model(f"hub:somebody/captioner#{'0' * 12}")


def test_a_new_version_is_fetched_where_its_digest_is_given(hub: Hub) -> None:
    locate_model("hub:somebody/captioner@main")
    old = dict(hub.files)
    hub.files["portable.json"] = old["portable.json"].replace(b"{", b"{ ", 1)
    hub.version = VERSION[::-1]
    digest = hashlib.sha256(hub.files["portable.json"]).hexdigest()
    folder = locate_model(f"hub:somebody/captioner#{digest}")
    assert digest_file(folder / "portable.json") == digest


def test_a_file_that_changed_on_the_way_is_refused(hub: Hub) -> None:
    hub.files["step.onnx"] = hub.files["step.onnx"][:-1] + b"!"
    with pytest.raises(BundleError, match=r"step\.onnx: its content .* is not what its manifest lists"):
        Captioner.load("hub:somebody/captioner")


def test_a_damaged_cache_is_fetched_again(hub: Hub) -> None:
    folder = locate_model("hub:somebody/captioner")
    damaged = (folder / "start.onnx").resolve()
    damaged.unlink()
    locate_model("hub:somebody/captioner")
    assert (folder / "start.onnx").read_bytes() == hub.files["start.onnx"]


def test_what_is_no_captioner_is_refused(hub: Hub) -> None:
    del hub.files["portable.json"]
    with pytest.raises(
        BundleError, match=r"is no captioner of Showtell: it has neither portable\.json nor bundle"
    ):
        locate_model("hub:somebody/captioner")


def test_a_bundle_can_be_fetched_too(hub: Hub) -> None:
    bundle = find_bundle(trained_run(include_encoder=True))
    hub.files = {path.name: path.read_bytes() for path in bundle.iterdir()}
    [picture] = Captioner.load("hub:somebody/captioner").caption([Image.new("RGB", (64, 64))])
    assert picture.text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hub:somebody/other", "the hub has no such model, or it is private"),
        ("hub:somebody/captioner@old", "the hub has no version 'old' of somebody/captioner"),
        ("hub:somebody", "must be like hub:OWNER/NAME"),
        ("hub:somebody/captioner#12ab", "at least 12 digits"),
        ("hub:../captioner", "not a name that a hub can have"),
    ],
)
def test_what_the_hub_does_not_have(hub: Hub, name: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        locate_model(name)


def test_without_a_network_the_message_says_what_to_do(hub: Hub) -> None:
    hub.shutdown()
    hub.server_close()
    with pytest.raises(
        BundleError, match=r"cannot be fetched, and is not in the cache .*Check the network, or copy"
    ):
        locate_model("hub:somebody/captioner")


def test_without_the_client_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"showtell\[hub\]"):
        locate_model("hub:somebody/captioner")


# The command


def test_models_are_listed(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(library, "BUNDLED", tmp_path / "bundled")
    assert main(["models"]) == 0
    assert "no captioner comes with this installation" in capsys.readouterr().err
    shutil.copytree(exported_run(), tmp_path / "bundled" / "mini")
    locate_model("hub:somebody/captioner")
    assert [one.name for one in list_models()] == ["mini", f"hub:somebody/captioner@{VERSION}"]
    assert main(["models"]) == 0
    output = capsys.readouterr()
    head, first, second = output.out.splitlines()
    assert head.split() == ["name", "MB", "CIDEr", "Bleu_4", "search", "folder"]
    assert "as training found them by the search that is named" in output.err
    assert first.split()[0] == "mini"
    assert second.split()[0] == f"hub:somebody/captioner@{VERSION}"
    dev = json.loads((exported_run() / "portable.json").read_text())["scores"]["dev"]
    assert first.split()[2:4] == [f"{100 * dev[key]:.1f}" for key in ("CIDEr", "Bleu_4")]
    assert first.split()[4] == describe_search(dev["beam"])
    assert [describe_search(beam) for beam in (None, 1, 3)] == ["-", "greedy", "beam-3"]
    assert main(["models", "--json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)["models"]] == [
        "mini",
        f"hub:somebody/captioner@{VERSION}",
    ]


def test_a_command_takes_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    from tiny_runs import shared_dataset

    shutil.copytree(exported_run(), tmp_path / "bundled" / "mini")
    monkeypatch.setattr(library, "BUNDLED", tmp_path / "bundled")
    data = next(iter(shared_dataset().images)).path.parent.parent
    words = ["evaluate", "mini", "--data", str(data), "--split", "dev", "--no-overlap"]
    assert main(words) == 0
    assert "CIDEr" in json.loads(capsys.readouterr().out.splitlines()[-1])
