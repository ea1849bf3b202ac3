"""A Hugging Face hub on this machine's loopback: one data set to read, and models to push to."""

import base64
import contextlib
import hashlib
import http.server
import json
import os
import threading
import urllib.parse
from collections.abc import Iterator

import pytest

COMMIT = "b" * 40
DATASET = "own/MySet"
TOKEN = "hf_fake"
_CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: train.jsonl
  - split: test_sft
    path: test.jsonl
- config_name: other
  data_files:
  - split: train
    path: test.jsonl
---
"""


def pairs(n):
    return "".join(
        json.dumps({"prompt": f"Say {k}", "completion": f"{k}!"}) + "\n" for k in range(n)
    )


def without_network(monkeypatch, folder):
    """Have the packages use empty caches in a folder, and no network."""
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    import huggingface_hub

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder / "datasets"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder / "hub"))
    datasets.disable_progress_bars()


def prepare(folder, commit, subset="default", **rows):
    """Have the package write a subset of DATASET into its cache in a folder.

    Args:
        folder: As in `without_network`.
        commit: The commit that it is of.
        subset: Its name.
        rows: The lines of each split.
    """
    from datasets.packaged_modules.json.json import Json

    files = {}
    for split, text in rows.items():
        path = folder / f"{commit}-{subset}-{split}.jsonl"
        path.write_text(text)
        files[split] = [str(path)]
    Json(
        cache_dir=str(folder / "datasets"),
        dataset_name="my_set",
        config_name=subset,
        config_id=subset,
        hash=commit,
        data_files=files,
    ).download_and_prepare()
    named = folder / "datasets" / "own___my_set" / subset / "0.0.0"
    named.mkdir(parents=True, exist_ok=True)
    os.rename(folder / "datasets" / "my_set" / subset / "0.0.0" / commit, named / commit)


class FakeHub:
    """What the hub holds, and what it was asked.

    Attributes:
        endpoint: Its address.
        requests: "METHOD /path" of each request.
        created: Name -> whether it is private, of each repository made.
        pushed: Name -> branch -> file -> bytes.
        blobs: SHA-256 -> bytes, of each file that was uploaded apart from its commit.
        messages: The message of each commit.
    """

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.requests = []
        self.created = {}
        self.pushed = {}
        self.blobs = {}
        self.messages = []
        self.files = {
            "README.md": _CARD.encode(),
            "train.jsonl": pairs(60).encode(),
            "test.jsonl": pairs(1).encode(),
        }

    def answer(self, method, path, query, body, token):
        """Return status, JSON value or bytes, and headers."""
        of_dataset = f"/api/datasets/{DATASET}"
        if path.startswith(f"/datasets/{DATASET}/resolve/"):
            name = path.split("/", 6)[6]
            if name not in self.files:
                headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
                return 404, {}, headers
            tag = hashlib.sha1(self.files[name]).hexdigest()
            return 200, self.files[name], {"X-Repo-Commit": COMMIT, "ETag": f'"{tag}"'}
        if path.startswith(f"{of_dataset}/tree/"):
            return 200, [self._entry(name) for name in self.files], {}
        if path in (of_dataset, f"{of_dataset}/revision/{COMMIT}", f"{of_dataset}/revision/main"):
            return 200, {"id": DATASET, "sha": COMMIT, "private": False, "siblings": []}, {}
        if path.startswith(f"{of_dataset}/revision/"):
            return 404, {}, {"X-Error-Code": "RevisionNotFound"}
        if path.startswith("/lfs/"):
            self.blobs[path.removeprefix("/lfs/")] = body
            return 200, {}, {}
        if (
            path.startswith(("/api/models/", "/api/repos/", "/api/validate-yaml"))
            or ".git/" in path
        ):
            if token != f"Bearer {TOKEN}":
                return 401, {"error": "Invalid credentials in Authorization header"}, {}
            return self._write(method, path, body)
        return 404, {}, {"X-Error-Code": "RepoNotFound"}

    def _entry(self, name):
        return {"type": "file", "path": name, "size": len(self.files[name]), "oid": "c" * 40}

    def _write(self, method, path, body):
        """Answer what `HfApi` asks to look at, make and fill a model repository."""
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}, {}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            return 200, {"transfer": "basic", "objects": self._uploads(json.loads(body))}, {}
        _, _, _, owner, name, *rest = path.split("/")
        name = f"{owner}/{name}"
        if owner == "me" and name.endswith("/broken"):
            return 418, {"error": "I am a teapot"}, {}
        if name not in self.created:
            return 404, {}, {"X-Error-Code": "RepoNotFound"}
        branches = self.pushed.setdefault(name, {"main": {}})
        what, branch = (rest[0], "/".join(rest[1:])) if rest else ("revision", "main")
        if what == "branch" and method == "POST":
            branches[branch] = dict(branches["main"])
            return 200, {}, {}
        if branch not in branches:
            return 404, {}, {"X-Error-Code": "RevisionNotFound"}
        if what == "preupload":
            files = [_preupload(file["path"]) for file in json.loads(body)["files"]]
            return 200, {"files": files}, {}
        if what == "commit":
            self._commit(branches[branch], map(json.loads, body.splitlines()))
            url = f"{self.endpoint}/{name}/commit/{COMMIT}"
            return 200, {"commitUrl": url, "commitOid": COMMIT}, {}
        siblings = [
            {"rfilename": file, "blobId": git_blob(content), "size": len(content)}
            for file, content in branches[branch].items()
        ]
        private = self.created[name]
        return 200, {"id": name, "sha": COMMIT, "private": private, "siblings": siblings}, {}

    def _create(self, asked):
        name = f"{asked['organization']}/{asked['name']}"
        if name.startswith("forbidden/"):
            return 403, {"error": "You are not in the organization forbidden"}, {}
        if name in self.created:
            return 409, {"url": f"{self.endpoint}/{name}"}, {}
        self.created[name] = asked.get("private") or asked.get("visibility") == "private"
        return 200, {"url": f"{self.endpoint}/{name}"}, {}

    def _uploads(self, asked):
        return [
            {**file, "actions": {"upload": {"href": f"{self.endpoint}/lfs/{file['oid']}"}}}
            for file in asked["objects"]
        ]

    def _commit(self, files, items):
        for item in items:
            value = item["value"]
            if item["key"] == "header":
                self.messages.append(value["summary"])
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.blobs[value["oid"]]


def _preupload(path):
    mode = "lfs" if path.endswith(".safetensors") else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False}


def git_blob(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextlib.contextmanager
def serve() -> Iterator[FakeHub]:
    """Serve a fake hub on a free port until the block ends."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub = FakeHub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        hub = self.server.hub
        url = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(url.path)
        hub.requests.append(f"{self.command} {path}")
        body = self._body()
        status, content, headers = hub.answer(
            self.command, path, url.query, body, self.headers.get("Authorization")
        )
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_POST = do_PUT = do_GET

    def _body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        return body

    def log_message(self, *_):
        pass
