"""A Hub on the loopback interface, for the real client to talk to.

It speaks what huggingface_hub calls to push and to pull a model, as
https://huggingface.co does as far as the client can see: the Hub and, at
another port, its storage, which large files are redirected to and which must
never be shown a token. Repositories are in memory. Every request is kept, and
any can be made to fail.
"""

import base64
import collections
import hashlib
import json
import re
import socket
import struct
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import yaml

LARGE = (".safetensors", ".ckpt", ".onnx", ".png", ".wav")


class Request(NamedTuple):
    """What a client sent."""

    server: str
    method: str
    path: str
    headers: dict
    body: bytes


class Answer(Exception):
    """Ends the handling of a request with a status and perhaps a reason."""

    def __init__(self, status, code=None, message=None, **body):
        self.status = status
        self.headers = {}
        if code:
            self.headers["X-Error-Code"] = code
        if message:
            self.headers["X-Error-Message"] = message
            body.setdefault("error", message)
        self.body = json.dumps(body).encode()


class Repository:
    """Commits of files, with branches and tags.

    Arguments
    ---------
    private, gated : bool
    """

    def __init__(self, private=False, gated=False):
        self.private = private
        self.gated = gated
        self.commits = {}
        self.messages = []
        self.refs = {}
        self.commit("main", {".gitattributes": b""}, "initial commit")

    def commit(self, branch, files, message):
        """Puts a commit of all these files on a branch."""
        identity = f"{len(self.commits)} {branch} {message}"
        oid = hashlib.sha1(identity.encode()).hexdigest()
        self.commits[oid] = dict(files)
        self.messages.append(message)
        self.refs[branch] = oid
        return oid

    def resolve(self, revision):
        """The commit of a branch, tag or commit hash, None if there is none."""
        oid = self.refs.get(revision, revision)
        return oid if oid in self.commits else None

    def files(self, revision="main"):
        """Name -> bytes."""
        return self.commits[self.resolve(revision)]


class LoopbackHub:
    """The Hub and its storage, as a context manager.

    Arguments
    ---------
    writers : dict
        Token -> user whose repositories it may read and write.
    readers : dict
        Token -> user whose repositories it may read.
    """

    def __init__(self, writers, readers):
        self.writers = writers
        self.readers = readers
        self.repositories = {}
        # What large files the storage has, by their SHA-256.
        self.objects = {}
        # Pieces of large files that came by Xet, by the name it gives them.
        self.xorbs = {}
        self.requests = []
        # Route -> what to do with its next requests: "cut" or "hold" them
        # half-way, "lose" the answer, or answer with a status (an int).
        self.faults = collections.defaultdict(list)
        self.held = threading.Event()
        self._lock = threading.RLock()
        self._servers = {}
        for name in ("hub", "storage"):
            server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
            server.daemon_threads = True
            server.hub, server.name = self, name
            self._servers[name] = server

    def __enter__(self):
        for server in self._servers.values():
            threading.Thread(
                target=server.serve_forever,
                kwargs={"poll_interval": 0.01},  # seconds until it is shut down
                daemon=True,
            ).start()
        return self

    def __exit__(self, *_):
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    def url(self, name="hub"):
        """Where the Hub, or the storage, listens."""
        return f"http://127.0.0.1:{self._servers[name].server_port}"

    def sent(self, method, pattern):
        """Requests of a method whose path holds a pattern."""
        return [
            request
            for request in self.requests
            if request.method == method and re.search(pattern, request.path)
        ]

    def handle(self, handler, body):
        """Status, headers and body for a request whose body was read."""
        path, _, query = handler.path.partition("?")
        name, groups, route = _route(handler.server.name, handler.command, path)
        groups = [urllib.parse.unquote(group) for group in groups]
        with self._lock:
            return route(self, handler, body, query, *groups)

    # Rights

    def user(self, handler, tokens):
        """Whose token it is, None without one."""
        header = handler.headers.get("Authorization")
        if header is None:
            return None
        token = header.removeprefix("Bearer ")
        if token not in self.writers | self.readers:
            message = "Invalid credentials in Authorization header"
            raise Answer(401, message=message)
        return tokens.get(token)

    def readable(self, handler, repo_id):
        """The repository, if there is one that the client may see."""
        user = self.user(handler, self.writers | self.readers)
        repository = self.repositories.get(repo_id)
        hidden = repository is None or (
            repository.private and user != repo_id.split("/")[0]
        )
        if hidden:
            status = 401 if user is None else 404
            raise Answer(status, "RepoNotFound", "Repository not found")
        return repository

    def writable(self, handler, repo_id):
        """The repository, if there is one that the client may write to."""
        repository = self.readable(handler, repo_id)
        if self.user(handler, self.writers) != repo_id.split("/")[0]:
            raise Answer(403, message="This token has no write access")
        return repository

    # Routes of the Hub

    def create(self, handler, body, query):
        asked = json.loads(body)
        user = self.user(handler, self.writers)
        if self.user(handler, self.writers | self.readers) is None:
            raise Answer(401, message="Invalid username or password.")
        if user != asked["organization"]:
            message = (
                "You don't have the rights to create a model under the "
                f'namespace "{asked["organization"]}"'
            )
            raise Answer(403, message=message)
        repo_id = f"{user}/{asked['name']}"
        url = f"{self.url()}/{repo_id}"
        if repo_id in self.repositories:
            raise Answer(409, message="You already created this model", url=url)
        private = asked.get("visibility") == "private"
        self.repositories[repo_id] = Repository(private=private)
        return 200, {}, {"url": url}

    def validate_yaml(self, handler, body, query):
        content = json.loads(body)["content"]
        found = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
        try:
            if found and not isinstance(yaml.safe_load(found[1]), dict):
                raise yaml.YAMLError("the metadata is not a mapping")
        except yaml.YAMLError as error:
            raise Answer(400, errors=[{"message": str(error)}]) from error
        return 200, {}, {"errors": [], "warnings": []}

    def branch(self, handler, body, query, repo_id, name):
        repository = self.writable(handler, repo_id)
        if name in repository.refs:
            raise Answer(409, message="Reference already exists")
        repository.refs[name] = repository.refs["main"]
        return 200, {}, {}

    def info(self, handler, body, query, repo_id, revision="main"):
        repository = self.readable(handler, repo_id)
        oid, files = self.at(repository, revision)
        return (
            200,
            {},
            {
                "id": repo_id,
                "modelId": repo_id,
                "sha": oid,
                "private": repository.private,
                "gated": "manual" if repository.gated else False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": [{"rfilename": name} for name in files],
            },
        )

    def tree(self, handler, body, query, repo_id, revision):
        _, files = self.at(self.readable(handler, repo_id), revision)
        entries = []
        for name, content in files.items():
            entry = {"type": "file", "path": name, "size": len(content)}
            entry["oid"] = _git_oid(content)
            if name.endswith(LARGE):
                entry["lfs"] = {
                    "oid": _sha256(content),
                    "size": len(content),
                    "pointerSize": 130,
                }
            entries.append(entry)
        return 200, {}, entries

    def at(self, repository, revision):
        """The commit hash and the files at a revision."""
        oid = repository.resolve(revision)
        if oid is None:
            message = f"Invalid rev id: {revision}"
            raise Answer(404, "RevisionNotFound", message)
        return oid, repository.commits[oid]

    def preupload(self, handler, body, query, repo_id, revision):
        _, files = self.at(self.writable(handler, repo_id), revision)
        answers = []
        for file in json.loads(body)["files"]:
            large = file["path"].endswith(LARGE)
            answer = {
                "path": file["path"],
                "uploadMode": "lfs" if large else "regular",
                "shouldIgnore": False,
            }
            if file["path"] in files:
                content = files[file["path"]]
                oid = _sha256(content) if large else _git_oid(content)
                answer["oid"] = oid
            answers.append(answer)
        return 200, {}, {"files": answers}

    def lfs_batch(self, handler, body, query, repo_id):
        self.writable(handler, repo_id)
        asked = json.loads(body)
        assert asked["operation"] == "upload" and "basic" in asked["transfers"]
        objects = []
        for item in asked["objects"]:
            answer = dict(item)
            if item["oid"] not in self.objects:
                href = f"{self.url('storage')}/{item['oid']}?signature=abc"
                verify = f"{self.url()}/{repo_id}/lfs/verify"
                answer["actions"] = {
                    "upload": {"href": href},
                    "verify": {"href": verify},
                }
            objects.append(answer)
        return 200, {}, {"transfer": "basic", "objects": objects}

    def lfs_verify(self, handler, body, query, repo_id):
        self.writable(handler, repo_id)
        asked = json.loads(body)
        if len(self.objects.get(asked["oid"], b"")) != asked["size"]:
            raise Answer(404, message="no such object")
        return 200, {}, {}

    def commit(self, handler, body, query, repo_id, branch):
        repository = self.writable(handler, repo_id)
        lines = [json.loads(line) for line in body.splitlines()]
        _, files = self.at(repository, branch)
        files = dict(files)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.objects:
                    raise Answer(400, message="the LFS object is missing")
                files[value["path"]] = self.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                raise Answer(400, message=f"unknown key {line['key']}")
        oid = repository.commit(branch, files, lines[0]["value"]["summary"])
        url = f"{self.url()}/{repo_id}/commit/{oid}"
        return 200, {}, {"commitUrl": url, "commitOid": oid}

    def resolve(self, handler, body, query, repo_id, revision, name):
        repository = self.readable(handler, repo_id)
        user = self.user(handler, self.writers | self.readers)
        if repository.gated and user != repo_id.split("/")[0]:
            message = f"Access to model {repo_id} is restricted"
            raise Answer(401 if user is None else 403, "GatedRepo", message)
        oid, files = self.at(repository, revision)
        if name not in files:
            raise Answer(404, "EntryNotFound", "Entry not found")
        content = files[name]
        headers = {"X-Repo-Commit": oid}
        if not name.endswith(LARGE):
            headers["ETag"] = f'"{_git_oid(content)}"'
            return 200, headers, content
        digest = _sha256(content)
        self.objects[digest] = content
        headers |= {
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str(len(content)),
            "Location": f"{self.url('storage')}/{digest}?signature=def",
        }
        return 302, headers, b""

    def xet_token(self, handler, body, query, repo_id, revision):
        self.writable(handler, repo_id)
        return (
            200,
            {},
            {
                "accessToken": "for the storage",
                "exp": int(time.time()) + 3600,
                "casUrl": self.url("storage"),
            },
        )

    # Routes of the storage

    def store(self, handler, body, query, digest):
        if query != "signature=abc" or _sha256(body) != digest:
            raise Answer(403, message="the signature does not match")
        self.objects[digest] = body
        return 200, {}, b""

    def load(self, handler, body, query, digest):
        if query != "signature=def" or digest not in self.objects:
            raise Answer(403, message="the signature does not match")
        return 200, {"ETag": f'"{digest}"'}, self.objects[digest]

    def xorb(self, handler, body, query, digest):
        self.xorbs[digest] = body
        return 200, {}, {"was_inserted": True}

    def shard(self, handler, body, query):
        for content in _files_of_shard(body, self.xorbs):
            self.objects[_sha256(content)] = content
        return 200, {}, {"result": 1}


_MODEL = r"/api/models/([^/]+/[^/]+)"
_ROUTES = [
    ("create", "hub", "POST", "/api/repos/create"),
    ("validate_yaml", "hub", "POST", "/api/validate-yaml"),
    ("branch", "hub", "POST", _MODEL + "/branch/([^/]+)"),
    ("info", "hub", "GET", _MODEL),
    ("info", "hub", "GET", _MODEL + "/revision/([^/]+)"),
    ("tree", "hub", "GET", _MODEL + "/tree/([^/]+)"),
    ("preupload", "hub", "POST", _MODEL + "/preupload/([^/]+)"),
    ("lfs_batch", "hub", "POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch"),
    ("lfs_verify", "hub", "POST", "/([^/]+/[^/]+)/lfs/verify"),
    ("commit", "hub", "POST", _MODEL + "/commit/([^/]+)"),
    ("resolve", "hub", "HEAD|GET", "/([^/]+/[^/]+)/resolve/([^/]+)/(.+)"),
    ("xet_token", "hub", "GET", _MODEL + "/xet-write-token/([^/]+)"),
    ("xorb", "storage", "POST", "/v1/xorbs/default/([0-9a-f]{64})"),
    ("shard", "storage", "POST", "/v1/shards"),
    ("store", "storage", "PUT", "/([0-9a-f]{64})"),
    ("load", "storage", "GET", "/([0-9a-f]{64})"),
]


def _route(server, method, path):
    for name, of_server, methods, pattern in _ROUTES:
        found = re.fullmatch(pattern, path)
        if found and server == of_server and re.fullmatch(methods, method):
            return name, found.groups(), getattr(LoopbackHub, name)
    raise Answer(404, message=f"the loopback Hub has no {method} {path}")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        hub = self.server.hub
        fault = self._fault(hub)
        if fault in ("cut", "hold"):
            self._read_half()
            if fault == "hold":
                hub.held.set()
                self._wait_for_the_end()
            self._drop()
            return
        body = self._read()
        request = (self.server.name, self.command, self.path)
        hub.requests.append(Request(*request, dict(self.headers), body))
        try:
            if isinstance(fault, int):
                raise Answer(fault, message="as the test asked")
            status, headers, content = hub.handle(self, body)
        except Answer as answer:
            status, headers, content = (
                answer.status,
                answer.headers,
                answer.body,
            )
        if fault == "lose":
            self._drop()
            return
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
            headers["Content-Type"] = "application/json"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_POST = do_PUT = do_GET

    def _fault(self, hub):
        try:
            path = self.path.partition("?")[0]
            name, *_ = _route(self.server.name, self.command, path)
        except Answer:
            return None
        return hub.faults[name].pop(0) if hub.faults[name] else None

    def _read(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _read_half(self):
        # Of a chunked body, whose length isn't known, nothing.
        self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)

    def _wait_for_the_end(self):
        """Until the client is gone, killed by the test."""
        deadline = time.monotonic() + 60
        self.connection.settimeout(1)
        while time.monotonic() < deadline:
            try:
                if not self.connection.recv(1 << 16):
                    return
            except TimeoutError:
                continue
            except OSError:
                return

    def _drop(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_):
        """Not on the test's standard error."""


def _sha256(content):
    return hashlib.sha256(content).hexdigest()


def _git_oid(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _files_of_shard(shard, xorbs):
    """Puts files together that came by Xet.

    As https://huggingface.co/docs/xet says: a header of 48 bytes, then for
    each file records of 48 bytes, a first one with the number of its terms,
    and of a term the xorb and which of its chunks.
    """
    records = (shard[i : i + 48] for i in range(48, len(shard), 48))
    for first in records:
        if first[:32] == b"\xff" * 32:
            return
        flags, n_terms = struct.unpack_from("<II", first, 32)
        content = []
        for _ in range(n_terms):
            term = next(records)
            start, end = struct.unpack_from("<II", term, 40)
            # A hash is written as four little-endian numbers.
            numbers = struct.unpack("<4Q", term[:32])
            name = "".join(f"{number:016x}" for number in numbers)
            content += _chunks_of_xorb(xorbs[name])[start:end]
        for _ in range(n_terms * (flags >> 31) + (flags >> 30 & 1)):
            next(records)
        yield b"".join(content)


def _chunks_of_xorb(xorb):
    chunks, at = [], 0
    while at < len(xorb):
        size = int.from_bytes(xorb[at + 1 : at + 4], "little")
        if xorb[at : at + 8] == b"XETBLOB\x01":
            break
        if xorb[at + 4]:
            raise Answer(400, message="compressed chunks are not spoken")
        chunks.append(xorb[at + 8 : at + 8 + size])
        at += 8 + size
    return chunks
