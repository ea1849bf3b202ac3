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
        pushed: Name -> file -> bytes.
    """

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.requests = []
        self.created = {}
        self.pushed = {}
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
        if path.startswith("/api/") and token == f"Bearer {TOKEN}":
            return self._write(path, body)
        return (401 if path.startswith("/api/repos") else 404), {}, {"X-Error-Code": "RepoNotFound"}

    def _entry(self, name):
        return {"type": "file", "path": name, "size": len(self.files[name]), "oid": "c" * 40}

    def _write(self, path, body):
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name.startswith("forbidden/"):
                return 403, {"error": "You are not in the organization forbidden"}, {}
            if name in self.created:
                return 409, {"url": f"{self.endpoint}/{name}"}, {}
            self.created[name] = bool(asked.get("private"))
            return 200, {"url": f"{self.endpoint}/{name}"}, {}
        name = "/".join(path.split("/")[3:5])
        if "/preupload/" in path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return 200, {"files": files}, {}
        if "/commit/" in path:
            files = self.pushed.setdefault(name, {})
            for line in body.splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            commit = {"commitUrl": f"{self.endpoint}/{name}/commit/{COMMIT}", "commitOid": COMMIT}
            return 200, commit, {}
        return 200, {"id": name, "sha": COMMIT, "private": self.created.get(name)}, {}


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

    do_HEAD = do_POST = do_GET

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
