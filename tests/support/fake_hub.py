"""A local stand-in for the Hugging Face hub, which speaks enough of its protocol for the hub library's own client."""

import base64
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_valid"


@dataclass
class Repository:
    """What the hub holds under one id."""

    files: dict[str, bytes] = field(default_factory=dict)
    private: bool = False
    commits: list[str] = field(default_factory=list)


class FakeHub:
    """A hub on 127.0.0.1, with what it was asked and what it was sent.

    Attributes:
        repositories: by id; tests may put some there.
        asked: method and path of every request.
        authorizations: headers of all requests; None where one had none.
        objects: large files received, by the SHA-256 of their bytes.
        refusals: status and message to answer with, by a part of "METHOD path".
        unanswered: a part of "METHOD path" of requests that get no answer.
        role: of the token.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []
        self.authorizations: set[str | None] = set()
        self.objects: dict[str, bytes] = {}
        self.refusals: dict[str, tuple[int, str]] = {}
        self.unanswered = "none"
        self.role = "write"
        self.closing = threading.Event()
        self.address = ""

    def publish(self, repo_id: str, directory: Path) -> None:
        """Hold a copy of a directory."""
        self.repositories[repo_id] = Repository({path.name: path.read_bytes() for path in directory.iterdir()})

    @contextmanager
    def serving(self) -> Iterator["FakeHub"]:
        """Answer at self.address."""
        hub = self

        class Handler(_Handler):
            def __init__(self, *arguments: object) -> None:
                self.hub = hub
                super().__init__(*arguments)  # type: ignore[arg-type]

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield self
        finally:
            self.closing.set()
            server.shutdown()
            server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: FakeHub

    def handle_any(self) -> None:
        path = unquote(self.path.partition("?")[0])
        request = f"{self.command} {path}"
        self.hub.asked.append(request)
        self.hub.authorizations.add(self.headers.get("Authorization"))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.hub.unanswered in request:
            self.hub.closing.wait()
            return None
        refusal = next((answer for part, answer in self.hub.refusals.items() if part in request), None)
        if refusal:
            return self.answer_json({"error": refusal[1]}, refusal[0])
        if self.command in ("GET", "HEAD") and "/api/whoami" not in path:
            return self.read(path)
        if self.command == "PUT":  # to storage, whose address is a secret: there is no token
            self.hub.objects[path.removeprefix("/storage/")] = body
            return self.answer(200, b"", {})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer_json({"error": "Invalid username or password."}, 401)
        return self.write(path, json.loads(body.splitlines()[0]) if body else {}, body)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815

    def read(self, path: str) -> None:
        """Answer a download."""
        repo_id = "/".join(path.removeprefix("/api/models").split("/")[1:3])
        repository = self.hub.repositories.get(repo_id)
        if repository is None:
            return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        name = path.rpartition("/")[2]
        if "/resolve/" in path:
            return self.answer(200, repository.files[name], {"X-Repo-Commit": COMMIT, "ETag": f'"{name}"'})
        if "/tree/" in path:
            listed = repository.files.items()
            return self.answer_json([{"type": "file", "path": n, "size": len(b), "oid": n} for n, b in listed])
        siblings = [{"rfilename": name} for name in repository.files]
        return self.answer_json({"id": repo_id, "sha": COMMIT, "private": repository.private, "siblings": siblings})

    def write(self, path: str, sent: dict, body: bytes) -> None:
        """Answer a request that needs a token; `sent` is the body's JSON, or its first line's."""
        if path == "/api/whoami-v2":
            return self.answer_json({"name": "user", "orgs": [], "auth": {"accessToken": {"role": self.hub.role}}})
        if path == "/api/validate-yaml":
            return self.answer_json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            repo_id = f"{sent['organization']}/{sent['name']}"
            exists = repo_id in self.hub.repositories
            private = sent.get("visibility") == "private" or sent.get("private") is True
            self.hub.repositories.setdefault(repo_id, Repository(private=private))
            return self.answer_json({"url": f"{self.hub.address}/{repo_id}"}, 409 if exists else 200)
        if "/preupload/" in path:
            modes = {True: "lfs", False: "regular"}
            files = [(file["path"], modes[file["path"].endswith(".safetensors")]) for file in sent["files"]]
            return self.answer_json(
                {"files": [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in files]}
            )
        if path.endswith(".git/info/lfs/objects/batch"):
            wanted = [
                {**one, "actions": {"upload": {"href": f"{self.hub.address}/storage/{one['oid']}"}}}
                for one in sent["objects"]
            ]
            return self.answer_json({"transfer": "basic", "objects": wanted})
        if "/commit/" in path:
            return self.commit("/".join(path.split("/")[3:5]), [json.loads(line) for line in body.splitlines()])
        return self.answer_json({"error": "no such route"}, 404)

    def commit(self, repo_id: str, lines: list[dict]) -> None:
        """Take a commit: a header, small files as they are, large ones by the hash of what storage received."""
        repository = self.hub.repositories[repo_id]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                repository.commits.append(value["summary"])
            elif line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                stored = self.hub.objects[value["oid"]]
                assert hashlib.sha256(stored).hexdigest() == value["oid"]
                repository.files[value["path"]] = stored
        self.answer_json({"commitUrl": f"{self.hub.address}/{repo_id}/commit/{COMMIT}", "commitOid": COMMIT})

    def answer_json(self, value: object, status: int = 200) -> None:
        self.answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002
