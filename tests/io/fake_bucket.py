"""A fake Google Cloud Storage: one bucket in memory, behind the JSON API on loopback.

It has as much of https://docs.cloud.google.com/storage/docs/json_api/v1 as three clients use:
TensorFlow's, TensorStore's and google-cloud-storage. The first one always asks the same host, so
this is a proxy that answers for that host; the others take an address. As in the real service,
writes of objects are atomic, the newest version is read at once, and there are no folders.
"""

import base64
import datetime
import hashlib
import http.server
import itertools
import json
import re
import ssl
import threading
import urllib.parse
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class FakeBucket:
    """Serves the bucket `bucket` until `close`.

    Attributes:
        url: the address, in the form of the clients' environment variables.
        objects: name -> (content, generation).
        requests: "METHOD path" of every request.
        denied: patterns of requests that are answered with 403.
    """

    def __init__(self, folder, bucket="bucket"):
        self.bucket = bucket
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.requests: list[str] = []
        self.denied: list[str] = []
        self.generations = itertools.count(1)
        self.lock = threading.Lock()
        self.uploads: dict[str, tuple[str, bytes]] = {}
        self.certificate = _certificate(folder, ["www.googleapis.com", "storage.googleapis.com"])
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(self.certificate)
        handler = type("Handler", (_Handler,), {"fake": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def environment(self):
        """Variables that send the three clients here."""
        return {
            "https_proxy": self.url,
            "CURL_CA_BUNDLE": self.certificate,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "nobody",
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "STORAGE_EMULATOR_HOST": self.url,
            "no_proxy": "127.0.0.1",
        }

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def content(self, name):
        return self.objects[name][0]

    def names(self, prefix=""):
        return sorted(name for name in self.objects if name.startswith(prefix))

    def put(self, name, content):
        self.objects[name] = (content, next(self.generations))

    def resource(self, name):
        content, generation = self.objects[name]
        return {
            "kind": "storage#object",
            "id": f"{self.bucket}/{name}/{generation}",
            "name": name,
            "bucket": self.bucket,
            "generation": str(generation),
            "metageneration": "1",
            "size": str(len(content)),
            "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "updated": "2026-01-01T00:00:00.000Z",
            "storageClass": "STANDARD",
        }


def _certificate(folder: Path, hosts):
    """Writes a key and a self-signed certificate for these hosts; returns the file."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fake bucket")])
    names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
    day = datetime.timedelta(days=1)
    built = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    built = built.not_valid_before(now - day).not_valid_after(now + day)
    built = built.add_extension(names, critical=False)
    built = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "certificate.pem"
    public = built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    path.write_bytes(private + public)
    return str(path)


class _Handler(http.server.BaseHTTPRequestHandler):
    fake: FakeBucket
    protocol_version = "HTTP/1.1"

    def do_CONNECT(self):
        """Acts as a proxy that answers requests inside the tunnel itself."""
        self.send_response(200)
        self.end_headers()
        self.connection = self.fake.tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", 0)
        self.close_connection = False

    def log_message(self, *args):
        pass

    def answer(self, status=200, body=b"", **headers):
        if isinstance(body, dict):
            body = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        self.reply = status, headers, body

    def send(self):
        status, headers, body = self.reply
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status, why):
        self.answer(status, {"error": {"code": status, "message": why, "errors": []}})

    def handle_any(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        body = self.body()
        self.fake.requests.append(f"{self.command} {self.path}")
        with self.fake.lock:
            self.route(url.path, query, body)
        self.send()  # Without the lock: a client may read slowly.

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def route(self, path, query, body):
        bucket = re.escape(self.fake.bucket)
        asked = f"{self.command} {urllib.parse.unquote(self.path)}"
        if any(re.search(pattern, asked) for pattern in self.fake.denied):
            return self.refuse(403, "nobody does not have that access")
        if re.fullmatch(rf"/upload/storage/v1/b/{bucket}/o", path):
            return self.upload(query, body)
        if re.fullmatch(rf"/storage/v1/b/{bucket}", path):
            return self.answer(200, {"kind": "storage#bucket", "name": self.fake.bucket})
        if re.fullmatch(rf"/storage/v1/b/{bucket}/o", path):
            return self.list(query)
        if found := re.fullmatch(rf"/storage/v1/b/{bucket}/o/(.+?)(/rewriteTo/.*)?", path):
            return self.object(urllib.parse.unquote(found[1]), found[2], query)
        if found := re.fullmatch(rf"/{bucket}/(.+)", path):
            return self.object(urllib.parse.unquote(found[1]), None, {"alt": "media"})
        self.refuse(404, f"The specified bucket does not exist: {path}")

    def list(self, query):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        start, end = query.get("startOffset", ""), query.get("endOffset", "")
        items, prefixes = [], set()
        for name in self.fake.names(prefix):
            if name < start or (end and name >= end) or name <= query.get("pageToken", ""):
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                folder = prefix + rest[: rest.index(delimiter) + 1]
                prefixes.add(folder)
                if not (query.get("includeTrailingDelimiter") == "true" and name == folder):
                    continue
            items.append(name)
        most = int(query.get("maxResults", 1000))
        answer = {"kind": "storage#objects", "prefixes": sorted(prefixes)}
        answer["items"] = [self.fake.resource(name) for name in items[:most]]
        if len(items) > most:
            answer["nextPageToken"] = items[most - 1]
        self.answer(200, answer)

    def object(self, name, rewrite, query):
        if name not in self.fake.objects:
            return self.refuse(404, f"No such object: {self.fake.bucket}/{name}")
        content, generation = self.fake.objects[name]
        if self.command == "DELETE":
            del self.fake.objects[name]
            return self.answer(204)
        if rewrite:
            target = urllib.parse.unquote(rewrite.rpartition("/o/")[2])
            self.fake.put(target, content)
            size = str(len(content))
            done = {"done": True, "totalBytesRewritten": size, "objectSize": size}
            return self.answer(200, done | {"resource": self.fake.resource(target)})
        if query.get("alt") != "media":
            return self.answer(200, self.fake.resource(name))
        headers, status = {"x_goog_generation": str(generation)}, 200
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first = int(found[1])
            last = min(int(found[2] or len(content)), len(content) - 1)
            if first >= len(content):
                return self.refuse(416, "Request range not satisfiable")
            headers["Content_Range"] = f"bytes {first}-{last}/{len(content)}"
            content, status = content[first : last + 1], 206
        self.answer(status, content, Content_Type="application/octet-stream", **headers)

    def upload(self, query, body):
        kind, name = query.get("uploadType"), query.get("name", "")
        wanted = query.get("ifGenerationMatch")
        if kind == "resumable" and self.command == "POST":
            name = name or json.loads(body)["name"]
            upload = str(next(self.fake.generations))
            self.fake.uploads[upload] = (name, b"")
            where = f"{self.fake.url}{self.path.partition('?')[0]}"
            return self.answer(200, Location=f"{where}?uploadType=resumable&upload_id={upload}")
        if kind == "resumable":
            name, before = self.fake.uploads[query["upload_id"]]
            body = before + body
            whole = self.headers.get("Content-Range", "*/*").rpartition("/")[2]
            if whole == "*" or int(whole) > len(body):
                self.fake.uploads[query["upload_id"]] = (name, body)
                had = {"Range": f"bytes=0-{len(body) - 1}"} if body else {}
                return self.answer(308, **had)
        elif kind == "multipart":
            boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1]
            _, described, content, _ = body.split(f"--{boundary}".encode())
            name = name or json.loads(described.partition(b"\r\n\r\n")[2])["name"]
            body = content.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        generation = self.fake.objects.get(name, (b"", 0))[1]
        if wanted is not None and int(wanted) != generation:
            return self.refuse(412, "conditionNotMet")
        self.fake.put(name, body)
        self.answer(200, self.fake.resource(name))
