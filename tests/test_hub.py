"""From names to directories; the hub itself is a local stand-in that speaks its protocol."""

import http.server
import json
import threading
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from checkpoints import write_checkpoint

from mlx_rerank import Reranker
from mlx_rerank.errors import CheckpointNotFoundError
from mlx_rerank.hub import EMBEDDED, commit_of, resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_embedded_and_local_names(tmp_path: Path) -> None:
    assert resolve("mini") == EMBEDDED["mini"]
    assert resolve(tmp_path) == tmp_path
    assert resolve(str(tmp_path)) == tmp_path
    assert commit_of(tmp_path) is None
    assert commit_of(tmp_path / "snapshots" / COMMIT) == COMMIT


@pytest.mark.parametrize("name", ["~nosuchuser/model", "x" * 5000, "null\0"])
def test_names_that_no_file_system_takes(name: str) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"cannot be a model|is not a directory"):
        resolve(name)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Serve tmp_path/served as the repository test/tiny."""
    served = write_checkpoint(tmp_path / "served")
    (served / "unwanted.onnx").write_bytes(b"x")
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0])
            asked.append(path)
            if not path.startswith(("/api/models/test/tiny", "/test/tiny/resolve")):
                return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            name = path.rpartition("/")[2]
            if path.startswith("/test/tiny/resolve"):
                return self.answer(200, (served / name).read_bytes(), {"X-Repo-Commit": COMMIT, "ETag": f'"{name}"'})
            files = [
                {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": p.name} for p in served.iterdir()
            ]
            siblings = [{"rfilename": p.name} for p in served.iterdir()]
            body = files if "/tree/" in path else {"id": "test/tiny", "sha": COMMIT, "siblings": siblings}
            return self.answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

        do_HEAD = do_GET  # noqa: N815

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    for module in ("huggingface_hub.constants", "huggingface_hub.file_download", "huggingface_hub.hf_api"):
        monkeypatch.setattr(f"{module}.ENDPOINT", address, raising=False)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", address, raising=False)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    yield asked
    server.shutdown()
    server.server_close()


def test_a_hub_id_is_downloaded_and_scores(hub: list[str], tiny_reranker: Reranker, tmp_path: Path) -> None:
    directory = resolve("test/tiny", cache_dir=tmp_path / "cache")
    assert commit_of(directory) == COMMIT
    assert not any("onnx" in path for path in hub if "resolve" in path)
    reranker = Reranker("test/tiny", cache_dir=tmp_path / "cache")
    pairs = [("panda", "the bear")]
    np.testing.assert_array_equal(reranker.score(pairs), tiny_reranker.score(pairs))


@pytest.mark.usefixtures("hub")
def test_what_the_hub_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="'test/missing' could not be fetched"):
        resolve("test/missing", cache_dir=tmp_path / "cache")
