"""A hub on this machine: as much of the Hugging Face hub's HTTP API as huggingface_hub needs here.

Repositories are dicts of files in memory. What a server answered is in `HubStandIn.requests`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_owner"
READ_ONLY = "hf_of_a_reader"
LARGE = 1024
"""Bytes from which a file is uploaded as the hub's large files are."""


@dataclass
class Repository:
    """Files by branch; every state that a branch has had is kept by its commit."""

    private: bool = False
    gated: bool = False
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit_of(self, revision: str) -> str | None:
        if revision in self.branches:
            files = self.branches[revision]
            content = b"".join(name.encode() + files[name] for name in sorted(files))
            commit = hashlib.sha1(content).hexdigest()
            self.commits[commit] = dict(files)
            return commit
        return revision if revision in self.commits else None


class HubStandIn:
    """The hub: its repositories by `user/name`, and the address at which it answers."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.uploads: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.endpoint = ""
        self.refuses_large_files = False

    def add(self, name: str, files: dict[str, bytes], **more: Any) -> Repository:
        made = self.repositories[name] = Repository(branches={"main": dict(files)}, **more)
        return made


@contextmanager
def hub_stand_in() -> Iterator[HubStandIn]:
    hub = HubStandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Refusal(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.headers = status, {}
        if code:
            self.headers["X-Error-Code"] = code
        if message:
            self.headers["X-Error-Message"] = message


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_ROUTES = (
    ("GET", rf"/api/models/{_REPO}(?:/revision/(?P<rev>[^/]+))?", "info"),
    ("GET", rf"/api/models/{_REPO}/tree/(?P<rev>[^/]+)/?", "tree"),
    ("POST", r"/api/repos/create", "create"),
    ("POST", rf"/api/models/{_REPO}/branch/(?P<rev>[^/]+)", "branch"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("POST", rf"/api/models/{_REPO}/preupload/(?P<rev>[^/]+)", "preupload"),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/upload/(?P<oid>\w+)", "put"),
    ("POST", rf"/api/models/{_REPO}/commit/(?P<rev>[^/]+)", "commit"),
    ("GET", rf"/{_REPO}/resolve/(?P<rev>[^/]+)/(?P<path>.+)", "resolve"),
)


class _Handler(BaseHTTPRequestHandler):
    hub: HubStandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer("GET")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.answer("POST")

    def do_PUT(self) -> None:
        self.answer("PUT")

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, method: str) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append((self.command, path))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for known, pattern, name in _ROUTES:
            if known == method and (found := re.fullmatch(pattern, path)):
                parts = {k: v and unquote(v) for k, v in found.groupdict().items()}
                try:
                    return self.reply(*getattr(self, name)(**parts))
                except _Refusal as refusal:
                    return self.reply(refusal.status, {"error": "refused"}, refusal.headers)
        return self.reply(404, {"error": f"the stand-in has no {method} {path}"}, {})

    def reply(self, status: int, content: Any, headers: dict[str, str]) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @property
    def token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def find(self, repo: str, rev: str | None, write: bool = False) -> tuple[Repository, str]:
        found = self.hub.repositories.get(repo)
        if found is None or (found.private and self.token != TOKEN):
            raise _Refusal(404 if self.token else 401, "RepoNotFound", "Repository not found")
        if found.gated and self.token != TOKEN:
            raise _Refusal(403, "GatedRepo", "Access to this model is restricted")
        if write:
            self.may_write()
        commit = found.commit_of(rev or "main")
        if commit is None:
            raise _Refusal(404, "RevisionNotFound", f"Invalid rev id: {rev}")
        return found, commit

    def may_write(self) -> None:
        if not self.token:
            raise _Refusal(401, "", "Invalid username or password.")
        if self.token != TOKEN:
            raise _Refusal(403, "", "You don't have the rights to create a model here")

    def info(self, repo: str, rev: str | None) -> Any:
        found, commit = self.find(repo, rev)
        siblings = [{"rfilename": name} for name in sorted(found.commits[commit])]
        facts = {"id": repo, "modelId": repo, "sha": commit, "private": found.private}
        return 200, facts | {"siblings": siblings, "tags": [], "downloads": 0, "likes": 0}, {}

    def tree(self, repo: str, rev: str) -> Any:
        found, commit = self.find(repo, rev)
        entries = [
            {"type": "file", "path": name, "size": len(content), "oid": _git_id(content)}
            for name, content in sorted(found.commits[commit].items())
        ]
        return 200, entries, {}

    def create(self) -> Any:
        self.may_write()
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or 'owner'}/{asked['name']}"
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.hub.add(name, {".gitattributes": b""}, private=private)
        return 200, {"url": f"{self.hub.endpoint}/{name}", "name": name, "id": name}, {}

    def branch(self, repo: str, rev: str) -> Any:
        found, _ = self.find(repo, None, write=True)
        if rev in found.branches:
            raise _Refusal(409, "", "Reference already exists")
        found.branches[rev] = dict(found.branches["main"])
        return 200, {}, {}

    def validate(self) -> Any:
        assert json.loads(self.body)["content"].startswith("---\n")
        return 200, {"errors": [], "warnings": []}, {}

    def preupload(self, repo: str, rev: str) -> Any:
        found, commit = self.find(repo, rev, write=True)
        there = found.commits[commit]
        files = [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["size"] >= LARGE else "regular",
                "shouldIgnore": False,
                "oid": _git_id(there[one["path"]]) if one["path"] in there else None,
            }
            for one in json.loads(self.body)["files"]
        ]
        return 200, {"files": files}, {}

    def batch(self, repo: str) -> Any:
        self.find(repo, None, write=True)
        objects = [
            {
                **one,
                "actions": {"upload": {"href": f"{self.hub.endpoint}/upload/{one['oid']}"}},
            }
            for one in json.loads(self.body)["objects"]
        ]
        return 200, {"transfer": "basic", "objects": objects}, {}

    def put(self, oid: str) -> Any:
        assert hashlib.sha256(self.body).hexdigest() == oid
        if self.hub.refuses_large_files:
            raise _Refusal(400)
        self.hub.uploads[oid] = self.body
        return 200, b"", {}

    def commit(self, repo: str, rev: str) -> Any:
        found, _ = self.find(repo, rev, write=True)
        for line in self.body.splitlines():
            one = json.loads(line)
            value = one["value"]
            if one["key"] == "file":
                found.branches[rev][value["path"]] = base64.b64decode(value["content"])
            elif one["key"] == "lfsFile":
                found.branches[rev][value["path"]] = self.hub.uploads[value["oid"]]
        oid = found.commit_of(rev)
        url = f"{self.hub.endpoint}/{repo}/commit/{oid}"
        return 200, {"commitUrl": url, "commitOid": oid, "success": True}, {}

    def resolve(self, repo: str, rev: str, path: str) -> Any:
        found, commit = self.find(repo, rev)
        content = found.commits[commit].get(path)
        if content is None:
            raise _Refusal(404, "EntryNotFound", "Entry not found")
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        return 200, content, {"ETag": etag, "X-Repo-Commit": commit}


def _git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
