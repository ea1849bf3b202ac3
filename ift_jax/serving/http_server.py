"""The HTTP server: a socket, and uvicorn in a thread of its own."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import uvicorn

from ift_jax.errors import UserError
from ift_jax.io.stop_signals import StopSignals
from ift_jax.serving.answer_queue import AnswerQueue
from ift_jax.serving.app import make_app
from ift_jax.serving.served_model import ServedModel

_LOOK_SECONDS = 0.2  # How often a signal is looked for.
_LAST_SECONDS = 10.0  # For a batch that nobody waits for any more.


def open_socket(host: str, port: int, timeout: float) -> socket.socket:
    """Take an address, before weights are read; connections are refused until the server starts.

    Args:
        host: A name or an address.
        port: The port; 0 for a free one.
        timeout: Seconds after which the system drops a connection whose client does not take what
            was sent (on Linux).

    Raises:
        UserError: The address cannot be used.
    """
    try:
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # Notices clients that died.
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Accepted connections inherit it.
            milliseconds = min(int(timeout * 1000), (1 << 31) - 1)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        opened.bind(address)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--host {host} --port {port}: cannot be served ({reason})") from error
    return opened


class HttpServer:
    """A server that runs from `start` to `stop`; as a context, for the duration of the block."""

    def __init__(
        self, model: ServedModel, queue: AnswerQueue, opened: socket.socket, *, timeout: float
    ):
        """Prepare to serve.

        Args:
            model: What is served.
            queue: Answers its prompts; it is closed by `stop`.
            opened: The socket of `open_socket`.
            timeout: Seconds that a request may take.
        """
        self._queue = queue
        self._opened = opened
        self._text_work = ThreadPoolExecutor(1, "text")
        config = uvicorn.Config(
            make_app(model, queue, self._text_work, timeout=timeout),
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            # Every request has ended by itself before that.
            timeout_graceful_shutdown=int(timeout + 2 * _LAST_SECONDS),
        )
        self._server = uvicorn.Server(config)
        # Only on a main thread would uvicorn handle signals, by ending with their status.
        self._thread = threading.Thread(
            target=self._server.run, args=([opened],), name="http", daemon=True
        )

    @property
    def address(self) -> str:
        """The beginning of the server's URLs."""
        host, port = self._opened.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> None:
        """Begin to accept connections."""
        self._opened.listen(512)
        self._thread.start()

    def __enter__(self) -> "HttpServer":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def wait(self, signals: StopSignals) -> None:
        """Serve until a signal comes; a second Ctrl-C is a KeyboardInterrupt."""
        while self._thread.is_alive() and not signals.received():
            self._thread.join(_LOOK_SECONDS)
        if not signals.received():
            raise RuntimeError("the HTTP server ended by itself")

    def stop(self) -> None:
        """Accept nothing more, answer what was accepted, and end all threads.

        Ctrl-C meanwhile fails what has no answer yet.
        """
        self._server.should_exit = True
        try:
            self._thread.join()
        except KeyboardInterrupt:
            self._queue.abort()
            self._thread.join(_LAST_SECONDS)  # The clients are told.
            self._server.force_exit = True
            raise
        finally:
            self._queue.close(_LAST_SECONDS)
            self._text_work.shutdown(wait=False)
