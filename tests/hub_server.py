"""A Hub on the loopback interface, for the real huggingface_hub client.

The client reads HF_ENDPOINT when it is imported: run it in a process with
``hub.environment(home, token)``.
"""

import base64
import hashlib
import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import unquote


class Refusal(Exception):
    """Ends the handling of a request: (status, error code, message[, URL])."""


class Repository:
    """Commits, which map names to contents, and branches of them."""

    def __init__(self, private):
        self.private = private
        self.commits, self.branches = {}, {}
        self.commit("main", {})

    def commit(self, branch, files):
        oid = hashlib.sha1(b"%d" % len(self.commits)).hexdigest()
        self.commits[oid] = dict(files)
        self.branches[branch] = oid
        return oid

    def at(self, revision):
        """The hash and the files of a branch's commit, or of a commit."""
        oid = self.branches.get(revision, revision)
        if oid not in self.commits:
            raise Refusal(404, "RevisionNotFound", "Invalid rev id")
        return oid, self.commits[oid]


class LoopbackHub:
    """``users`` maps tokens to users, who own the repositories named after
    them; ``fault`` is a status with which commits fail."""

    def __init__(self, users):
        self.users, self.fault = users, None
        self.repositories, self.requests = {}, []
        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.server.hub = self
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        serve = self.server.serve_forever
        threading.Thread(target=serve, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def environment(self, home, token=None):
        """Of a client with this token, whose cache is in ``home``."""
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("HF_") and not key.lower().endswith("_proxy")
        }
        kept |= {"HF_ENDPOINT": self.url, "HF_HOME": str(home)}
        kept |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        return kept | ({"HF_TOKEN": token} if token else {})

    def files(self, repo_id, revision="main"):
        """Name -> content, as a visitor sees them."""
        return self.repositories[repo_id].at(revision)[1]

    def answer(self, request, token, body):
        """What is sent as JSON, or a commit and a file's content."""
        self.requests.append((request, body))
        if token and token not in self.users:
            raise Refusal(401, "", "Invalid credentials")
        for pattern, function in ROUTES.items():
            if found := re.fullmatch(pattern, request):
                groups = [group and unquote(group) for group in found.groups()]
                return function(self, self.users.get(token), body, *groups)
        raise Refusal(404, "", f"the test's Hub has no {request}")

    def repository(self, user, repo_id, write=False):
        found = self.repositories.get(repo_id)
        owned = user == repo_id.split("/")[0]
        if found is None or (found.private and not owned):
            raise Refusal(404 if user else 401, "RepoNotFound", "not found")
        if write and not owned:
            raise Refusal(403, "", "This token has no write access")
        return found

    def create(self, user, body):
        asked = json.loads(body)
        if user is None or asked.get("organization", user) not in (user, None):
            raise Refusal(403 if user else 401, "", "You have no rights here")
        repo_id = f"{user}/{asked['name']}"
        url = f"{self.url}/{repo_id}"
        if repo_id in self.repositories:
            raise Refusal(409, "", "You already created this model", url)
        private = asked.get("private") or asked.get("visibility") == "private"
        self.repositories[repo_id] = Repository(private)
        return {"url": url}

    def info(self, user, body, repo_id, revision):
        repository = self.repository(user, repo_id)
        oid, files = repository.at(revision or "main")
        siblings = [{"rfilename": name} for name in files]
        answer = {"id": repo_id, "sha": oid, "private": repository.private}
        return answer | {"tags": [], "siblings": siblings}

    def tree(self, user, body, repo_id, revision):
        files = self.repository(user, repo_id).at(revision)[1].items()
        entries = [{"path": n, "size": len(c), "oid": oid(c)} for n, c in files]
        return [{"type": "file", **entry} for entry in entries]

    def preupload(self, user, body, repo_id, revision):
        self.repository(user, repo_id, write=True).at(revision)
        files = json.loads(body)["files"]
        # Large files, too, come with the commit and not by LFS or Xet.
        how = {"uploadMode": "regular", "shouldIgnore": False}
        return {"files": [file | how for file in files]}

    def commit(self, user, body, repo_id, branch):
        repository = self.repository(user, repo_id, write=True)
        if self.fault:
            raise Refusal(self.fault, "", "as the test asked")
        _, *lines = (json.loads(line) for line in body.splitlines())
        files = dict(repository.at(branch)[1])
        for kind, value in ((line["key"], line["value"]) for line in lines):
            if kind == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert kind == "deletedFile"
                del files[value["path"]]
        oid = repository.commit(branch, files)
        url = f"{self.url}/{repo_id}/commit/{oid}"
        return {"commitUrl": url, "commitOid": oid}

    def resolve(self, user, body, repo_id, revision, name):
        commit, files = self.repository(user, repo_id).at(revision)
        if name not in files:
            raise Refusal(404, "EntryNotFound", "Entry not found")
        return commit, files[name]


MODEL = r"/api/models/([^/]+/[^/]+)"
ROUTES = {
    "POST /api/repos/create": LoopbackHub.create,
    "POST /api/validate-yaml": lambda *_: {"errors": [], "warnings": []},
    f"GET {MODEL}(?:/revision/([^/]+))?": LoopbackHub.info,
    f"GET {MODEL}/tree/([^/]+)": LoopbackHub.tree,
    f"POST {MODEL}/preupload/([^/]+)": LoopbackHub.preupload,
    f"POST {MODEL}/commit/([^/]+)": LoopbackHub.commit,
    "(?:HEAD|GET) /([^/]+/[^/]+)/resolve/([^/]+)/(.+)": LoopbackHub.resolve,
}


def oid(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        request = f"{self.command} {self.path.partition('?')[0]}"
        status, headers = 200, {}
        try:
            answer = self.server.hub.answer(request, token, body)
        except Refusal as refusal:
            status, code, message, *url = refusal.args
            headers = {"X-Error-Code": code, "X-Error-Message": message}
            answer = {"error": message, "url": "".join(url)}
        if isinstance(answer, tuple):
            headers["X-Repo-Commit"], content = answer
            headers["ETag"] = f'"{oid(content)}"'
        else:
            content = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_POST = do_GET

    def log_message(self, *_):
        pass
