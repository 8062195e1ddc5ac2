"""A network between applications and the server that the tests can cut."""

import contextlib
import socket
import threading


class Proxy:
    """Forwards TCP connections on a port of loopback; `cut` and `restore` are the cable.

    While cut, connections that exist are reset and new ones are refused, as far as a program can
    refuse: they are closed at once.
    """

    def __init__(self, upstream: tuple[str, int]) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._lock = threading.Lock()
        self._connected = True
        self._open: set[socket.socket] = set()
        #: What applications have sent, connection by connection.
        self.sent: list[bytearray] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        with self._lock:
            self._connected = False
            doomed, self._open = self._open, set()
        for end in doomed:
            self._close(end)

    def restore(self) -> None:
        with self._lock:
            self._connected = True

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._connected:
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()
            else:
                client.close()

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._upstream, timeout=5)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        with self._lock:
            if self._connected:
                self._open |= {client, server}
            else:
                self._close(client)
                self._close(server)
                return
        sent = bytearray()
        self.sent.append(sent)
        threading.Thread(target=self._pump, args=(client, server, sent), daemon=True).start()
        threading.Thread(target=self._pump, args=(server, client), daemon=True).start()

    def _pump(
        self, source: socket.socket, sink: socket.socket, record: bytearray | None = None
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                if record is not None:
                    record += chunk
                sink.sendall(chunk)
        for end in (source, sink):
            self._close(end)
            with self._lock:
                self._open.discard(end)

    @staticmethod
    def _close(end: socket.socket) -> None:
        # Shutting down wakes the thread that reads from it; closing alone does not.
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
