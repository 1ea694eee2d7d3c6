# bench/forwarder.py: counts the bytes on a party's sockets.
import socket
import threading


class Forwarder:
    """127.0.0.1:port to 127.0.0.2:port, counting bytes of TCP payload in both directions."""

    def __init__(self, port):
        self.port, self.bytes, self.lock = port, 0, threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                incoming, _ = self.listener.accept()
            except OSError:
                return  # closed
            try:
                outgoing = socket.create_connection(("127.0.0.2", self.port), timeout=10)
                outgoing.settimeout(None)
            except OSError:
                incoming.close()  # not up yet; the party dials again
                continue
            for source, target in ((incoming, outgoing), (outgoing, incoming)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self.copy, args=(source, target), daemon=True).start()

    def copy(self, source, target):
        try:
            while data := source.recv(1 << 18):
                target.sendall(data)
                with self.lock:
                    self.bytes += len(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            for side in (source, target):
                side.close()
