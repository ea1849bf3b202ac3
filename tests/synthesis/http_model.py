"""A model behind HTTP whose answers are known."""

import contextlib
import http.server
import json
import threading


@contextlib.contextmanager
def serving(answer):
    """Serve `answer(path, body, number)` -> (status, headers, body); yields address and bodies."""
    received = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.append((self.path, body, self.headers.get("Authorization")))
            status, headers, content = answer(self.path, body, len(received))
            self.send_response(status)
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def echo(path, body, number):
    if path == "/v1/completions":
        choice = {"text": body["prompt"], "finish_reason": "length"}
        return 200, {}, {"choices": [choice | {"logprobs": {"token_logprobs": [-1.0, -0.5]}}]}
    content = [{"token": "a", "logprob": -0.25}]
    choice = {"message": {"content": "Hi"}, "finish_reason": "stop"}
    return 200, {}, {"choices": [choice | {"logprobs": {"content": content}}] * body["n"]}
