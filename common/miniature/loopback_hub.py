"""Serve a small Hub on the loopback: enough of its HTTP API for the real client to publish, list, tag and download.

``with LocalHub() as hub:`` serves on a free port of 127.0.0.1 until the block ends; repositories are kept in memory. Like
the Hub, it checks tokens, digests and parent commits.

huggingface_hub reads ``HF_ENDPOINT`` when it is imported, so start the client's process with :meth:`LocalHub.environment`,
or set that environment before the first import.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import re
import secrets
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

LFS_PATTERNS = ("*.safetensors", "*.parquet", "*.bin", "*.gz", "*.arrow", "*.zip")  # part of the Hub's own list
LFS_SIZE = 10_000_000  # bytes from which every file goes to LFS
GIT_ATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS).encode()
PREFIXES = {"models": "", "datasets": "datasets/", "spaces": "spaces/"}
USER, TOKEN, READ_TOKEN = "miniature", "hf_miniature_write", "hf_miniature_read"


class Answer(Exception):
    """A response with an error, raised where it is noticed."""

    def __init__(self, status: int, message: str, code: str = "", headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, headers or {}


@dataclass(frozen=True)
class Blob:
    """A file's content, with its ids in git (``oid``) and LFS (``sha256``)."""

    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def oid(self) -> str:
        stored = self.data
        if self.lfs:
            stored = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()

    def entry(self, path: str) -> dict[str, object]:
        """Return what the Hub lists about the file."""
        entry: dict[str, object] = {"type": "file", "path": path, "oid": self.oid, "size": len(self.data)}
        if self.lfs:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.data), "pointerSize": 130}
        return entry


@dataclass(frozen=True)
class Commit:
    parent: str | None
    title: str
    files: dict[str, Blob]


@dataclass
class Repository:
    private: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)  # by full name: refs/heads/main

    def add(self, ref: str, title: str, files: dict[str, Blob]) -> str:
        sha = secrets.token_hex(20)
        self.commits[sha] = Commit(self.refs.get(ref), title, files)
        self.refs[ref] = sha
        return sha

    def sha(self, revision: str) -> str:
        for name in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if name in self.refs:
                return self.refs[name]
        if revision in self.commits:
            return revision
        raise Answer(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def files(self, revision: str = "main") -> dict[str, Blob]:
        """Return the files by path at a branch, tag or commit."""
        return self.commits[self.sha(revision)].files


class LocalHub:
    """The server. ``repositories`` maps ``(kind, id)`` to a repository; ``log`` lists ``METHOD /path`` of requests."""

    def __init__(self, handler: type[Handler] | None = None) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.lfs: dict[str, bytes] = {}
        self.log: list[str] = []
        self.lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (handler or Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> LocalHub:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: str) -> dict[str, str]:
        """Return variables that point the client here, with ``home`` for its caches and nothing of the user's own."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": home,
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
        }

    def add_model(self, id: str, folder: Path) -> None:
        """Serve a folder's files as a model."""
        files = {path.name: Blob(path.read_bytes(), path.suffix == ".safetensors") for path in folder.iterdir()}
        self.lfs |= {blob.sha256: blob.data for blob in files.values() if blob.lfs}
        repository = self.repositories["models", id] = Repository()
        repository.add("refs/heads/main", "model", files)


ROUTES = (  # methods, pattern of the path, name of the handler
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/validate-yaml", "validate_yaml"),
    ("POST", r"/api/repos/create", "create"),
    ("GET HEAD", r"/api/(models|datasets|spaces)/([^/]+/[^/]+)(?:/revision/([^/]+))?", "info"),
    ("GET", r"/api/(models|datasets|spaces)/([^/]+/[^/]+)/refs", "refs"),
    ("GET", r"/api/(models|datasets|spaces)/([^/]+/[^/]+)/commits/([^/]+)", "commits"),
    ("GET", r"/api/(models|datasets|spaces)/([^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?", "tree"),
    ("POST", r"/api/(models|datasets|spaces)/([^/]+/[^/]+)/paths-info/([^/]+)", "paths_info"),
    ("POST", r"/api/(models|datasets|spaces)/([^/]+/[^/]+)/tag/([^/]+)", "tag"),
    ("POST", r"/api/(models|datasets|spaces)/([^/]+/[^/]+)/preupload/([^/]+)", "preupload"),
    ("POST", r"/api/(models|datasets|spaces)/([^/]+/[^/]+)/commit/([^/]+)", "commit"),
    ("POST", r"/(datasets/|spaces/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", "lfs_batch"),
    ("POST", r"/(datasets/|spaces/)?([^/]+/[^/]+)\.git/info/lfs/verify", "lfs_verify"),
    ("PUT", r"/_lfs/([0-9a-f]{64})", "lfs_put"),
    ("GET HEAD", r"/_lfs/([0-9a-f]{64})", "lfs_get"),
    ("GET HEAD", r"/(datasets/|spaces/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
)


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"  # keep-alive, as the client expects
    disable_nagle_algorithm = True
    hub: LocalHub

    def log_message(self, *_: object) -> None:
        return

    def answer(self) -> None:
        self.hub.log.append(f"{self.command} {self.path}")
        url = urlsplit(self.path)
        self.query = parse_qs(url.query, keep_blank_values=True)
        self.body = self._read_body()
        try:
            self.respond(url.path)
        except Answer as error:
            headers = {"X-Error-Message": error.message, **error.headers}
            if error.code:
                headers["X-Error-Code"] = error.code
            self.send(error.status, {"error": error.message}, headers)

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def respond(self, path: str) -> None:
        for methods, pattern, name in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in methods.split():
                with self.hub.lock:
                    return getattr(self, name)(*(group and unquote(group) for group in match.groups()))
        raise Answer(404, f"No such page: {self.command} {path}")

    def send(self, status: int, body: object = b"", headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ").strip()

    def user(self) -> str | None:
        token = self.token
        if token and token not in (TOKEN, READ_TOKEN):
            raise Answer(401, "Invalid credentials in Authorization header")
        return token or None

    def require_user(self) -> str:
        token = self.user()
        if token is None:
            raise Answer(401, "Invalid username or password.")
        return token

    def require_write(self, namespace: str) -> None:
        token = self.require_user()
        if token != TOKEN or namespace != USER:
            raise Answer(403, f"You don't have the rights to write to the namespace {namespace!r}")

    def repository(self, kind: str | None, id: str, *, write: bool = False) -> Repository:
        kind = (kind or "models").rstrip("/")
        repository, user = self.hub.repositories.get((kind, id)), self.user()
        if repository is None or (repository.private and user is None):
            raise Answer(404 if user else 401, "Repository not found", "RepoNotFound")
        if write:
            self.require_write(id.split("/")[0])
        return repository

    def whoami(self) -> None:
        role = "write" if self.require_user() == TOKEN else "read"
        access = {"type": "access_token", "accessToken": {"displayName": "miniature", "role": role}}
        self.send(200, {"type": "user", "name": USER, "fullname": USER, "isPro": False, "orgs": [], "auth": access})

    def validate_yaml(self) -> None:
        self.send(200, {"errors": [], "warnings": []})

    def create(self) -> None:
        request = json.loads(self.body)
        namespace = request.get("organization") or USER
        self.require_write(namespace)
        kind, id = (request.get("type") or "model") + "s", f"{namespace}/{request['name']}"
        url = f"{self.hub.url}/{PREFIXES[kind]}{id}"
        if (kind, id) in self.hub.repositories:
            return self.send(409, {"error": "You already created this repo", "url": url}, {"X-Error-Message": "exists"})
        repository = Repository(private=bool(request.get("private")) or request.get("visibility") == "private")
        files = {".gitattributes": Blob(GIT_ATTRIBUTES, False)}
        if kind == "spaces":
            files["README.md"] = Blob(f"---\ntitle: {request['name']}\nsdk: {request['sdk']}\n---\n".encode(), False)
        repository.add("refs/heads/main", "initial commit", files)
        self.hub.repositories[kind, id] = repository
        self.send(200, {"url": url, "name": id})

    def info(self, kind: str, id: str, revision: str | None) -> None:
        repository = self.repository(kind, id)
        sha = repository.sha(revision or "main")
        files = sorted(repository.files(sha).items())
        siblings = [{"rfilename": path, "size": len(blob.data), "blobId": blob.oid} for path, blob in files]
        about = {"id": id, "modelId": id, "author": id.split("/")[0], "sha": sha, "private": repository.private}
        about |= {"gated": False, "disabled": False, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings}
        self.send(200, about)

    def refs(self, kind: str, id: str) -> None:
        groups: dict[str, list] = {"branches": [], "tags": [], "converts": []}
        for ref, sha in self.repository(kind, id).refs.items():
            group = "branches" if ref.startswith("refs/heads/") else "tags"
            groups[group].append({"name": ref.split("/", 2)[2], "ref": ref, "targetCommit": sha})
        self.send(200, groups)

    def commits(self, kind: str, id: str, revision: str) -> None:
        repository, listed = self.repository(kind, id), []
        sha: str | None = repository.sha(revision)
        while sha:
            commit = repository.commits[sha]
            entry = {"id": sha, "title": commit.title, "message": "", "date": "2026-01-01T00:00:00.000Z"}
            listed.append(entry | {"authors": [{"user": USER}]})
            sha = commit.parent
        self.send(200, listed)

    def tree(self, kind: str, id: str, revision: str, folder: str | None) -> None:
        files = self.repository(kind, id).files(revision)
        start = f"{folder.strip('/')}/" if folder and folder.strip("/") else ""
        inside = {path: blob for path, blob in files.items() if path.startswith(start)}
        if start and not inside:
            raise Answer(404, f"{folder} does not exist on {revision!r}", "EntryNotFound")
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        entries = [blob.entry(path) for path, blob in inside.items() if recursive or "/" not in path[len(start) :]]
        folders = {path[: path.index("/", len(start))] for path in inside if "/" in path[len(start) :]}
        for path in folders:
            oid = hashlib.sha1(path.encode()).hexdigest()
            entries.append({"type": "directory", "path": path, "oid": oid, "size": 0})
        self.send(200, sorted(entries, key=lambda entry: str(entry["path"])))

    def paths_info(self, kind: str, id: str, revision: str) -> None:
        files = self.repository(kind, id).files(revision)
        text = self.body.decode()
        paths = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text).get("paths", [])
        self.send(200, [files[path].entry(path) for path in paths if path in files])

    def resolve(self, kind: str | None, id: str, revision: str, path: str) -> None:
        repository = self.repository(kind, id)
        sha = repository.sha(revision)
        blob = repository.files(sha).get(path)
        if blob is None:
            raise Answer(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": sha})
        if blob.lfs:
            linked = {"X-Linked-Size": str(len(blob.data)), "X-Linked-ETag": f'"{blob.sha256}"'}
            # Another host name, as the real Hub's: the client reads the metadata off the redirect and does not follow it.
            target = f"{self.hub.url.replace('127.0.0.1', 'localhost')}/_lfs/{blob.sha256}"
            return self.send(302, b"", {"X-Repo-Commit": sha, "Location": target, **linked})
        self.send_range(blob.data, {"X-Repo-Commit": sha, "ETag": f'"{blob.oid}"'})

    def lfs_get(self, sha256: str) -> None:
        self.send_range(self.hub.lfs[sha256], {"ETag": f'"{sha256}"'})

    def send_range(self, data: bytes, headers: dict[str, str]) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not match:
            return self.send(200, data, {"Accept-Ranges": "bytes", **headers})
        first, last = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
        self.send(206, data[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(data)}", **headers})

    def preupload(self, kind: str, id: str, revision: str) -> None:
        files = self.repository(kind, id, write=True).files(revision)
        answers = []
        for request in json.loads(self.body)["files"]:
            path, sample = request["path"], base64.b64decode(request.get("sample") or "")
            name = path.rsplit("/", 1)[-1]
            large = request["size"] > LFS_SIZE or b"\0" in sample or any(fnmatch.fnmatch(name, p) for p in LFS_PATTERNS)
            entry = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if path in files:
                entry["oid"] = files[path].sha256 if files[path].lfs else files[path].oid
            answers.append(entry)
        self.send(200, {"files": answers})

    def lfs_batch(self, kind: str | None, id: str) -> None:
        self.repository(kind, id, write=True)
        objects = []
        for request in json.loads(self.body)["objects"]:
            entry = {"oid": request["oid"], "size": request["size"]}
            if request["oid"] not in self.hub.lfs:
                upload = f"{self.hub.url}/_lfs/{request['oid']}"
                verify = f"{self.hub.url}/{kind or ''}{quote(id)}.git/info/lfs/verify"
                entry["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
            objects.append(entry)
        self.send(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, sha256: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != sha256:
            raise Answer(400, "The SHA-256 of the uploaded bytes is not the announced one")
        self.hub.lfs[sha256] = self.body
        self.send(200)

    def lfs_verify(self, kind: str | None, id: str) -> None:
        request = json.loads(self.body)
        if len(self.hub.lfs.get(request["oid"], b"")) != request["size"]:
            raise Answer(404, f"LFS object {request['oid']} not found or of another size")
        self.send(200, {})

    def commit(self, kind: str, id: str, revision: str) -> None:
        repository = self.repository(kind, id, write=True)
        operations = [json.loads(line) for line in self.body.splitlines() if line.strip()]
        files, title = dict(repository.files(revision)), ""
        for operation in operations:  # all or nothing: the repository changes after the last one
            key, value = operation["key"], operation["value"]
            if key == "header":
                title, parent = value["summary"], value.get("parentCommit")
                if parent and not repository.sha(revision).startswith(parent):
                    raise Answer(412, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), False)
            elif key == "lfsFile":
                if value["oid"] not in self.hub.lfs:
                    raise Answer(400, f"An LFS pointer points to a file that does not exist: {value['path']}")
                files[value["path"]] = Blob(self.hub.lfs[value["oid"]], True)
            elif key == "deletedFile":
                files.pop(value["path"], None)
        sha = repository.add(f"refs/heads/{revision}", title, files)
        url = f"{self.hub.url}/{PREFIXES[kind]}{id}/commit/{sha}"
        self.send(200, {"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

    def tag(self, kind: str, id: str, revision: str) -> None:
        repository = self.repository(kind, id, write=True)
        name = f"refs/tags/{json.loads(self.body)['tag']}"
        if name in repository.refs:
            raise Answer(409, f"Reference {name} already exists")
        repository.refs[name] = repository.sha(revision)
        self.send(200, {})
