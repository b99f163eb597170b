"""Receivers of notices that really listen: an HTTP server with answers by script, and a small mail server.

Both keep what came. Nothing here imports the code that is tested: a signature is verified as a receiver would.
"""

from __future__ import annotations

import hashlib
import hmac
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

WAIT_S = 20.0
"""Nobody waits that long but for something that never comes."""


@dataclass(frozen=True)
class Posted:
    """One request, as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What is answered: a status (None: nothing, until the receiver closes), headers, a body, and byte by byte if `drips`."""

    status: int | None = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"ok"
    drips: bool = False


class Receiver:
    """An HTTP server; answers the given answers in turn, then the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self.posted: list[Posted] = []
        self.closing = threading.Event()
        self._answers = list(answers) or [Answer()]
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                receiver.handle(self)

            do_GET = do_POST = handle_any  # noqa: N815 - the library's names

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def answer_from_now_on(self, *answers: Answer) -> None:
        with self._lock:
            self._answers = list(answers)

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        with self._lock:
            self.posted.append(Posted(request.command, request.path, dict(request.headers.items()), body))
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer.status is None:
            self.closing.wait(WAIT_S)
            return
        if answer.drips:
            self._drip(request, answer.status)
            return
        request.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(answer.body)

    def _drip(self, request: BaseHTTPRequestHandler, status: int) -> None:
        """Header after header, each soon enough that no read times out."""
        try:
            request.wfile.write(b"HTTP/1.1 %d OK\r\n" % status)
            while not self.closing.wait(0.02):
                request.wfile.write(b"X-More: x\r\n")
                request.wfile.flush()
        except OSError:
            return

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(WAIT_S)


@contextmanager
def receiving(*answers: Answer) -> Iterator[Receiver]:
    """A receiver for as long as the block."""
    receiver = Receiver(*answers)
    try:
        yield receiver
    finally:
        receiver.close()


def signature_is_right(posted: Posted, secret: str, *, now_s: int, tolerance_s: int = 300) -> bool:
    """As docs/notifications.md tells a receiver to verify."""
    timestamp = posted.headers["X-Fraud-Timestamp"]
    version, _, given = posted.headers["X-Fraud-Signature"].partition("=")
    expected = hmac.new(secret.encode("utf-8"), timestamp.encode() + b"." + posted.body, hashlib.sha256).hexdigest()
    fresh = abs(now_s - int(timestamp)) <= tolerance_s
    return version == "v1" and fresh and hmac.compare_digest(expected, given)


class MailServer:
    """As much of SMTP as a client needs: EHLO, STARTTLS, AUTH PLAIN, MAIL, RCPT, DATA, QUIT.

    `says` maps a command's first word to another answer than the good one; an empty answer says nothing until it closes.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        tls_from_the_start: bool = False,
        password: str = "",
        says: dict[str, bytes] | None = None,
        refuses: Sequence[str] = (),
    ) -> None:
        self.messages: list[EmailMessage] = []
        self.receivers: list[list[str]] = []
        self.logins: list[tuple[str, str]] = []
        self.encrypted: list[bool] = []
        self.tls, self.from_the_start, self.password = tls, tls_from_the_start, password
        self.says, self.refuses = says or {}, refuses
        self.closing = threading.Event()
        server = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                _MailSession(server, self.request).run()

        socketserver.ThreadingTCPServer.allow_reuse_address = True
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(WAIT_S)


class _MailSession:
    """One connection."""

    def __init__(self, server: MailServer, connection: Any) -> None:
        self._server, self._connection = server, connection
        self._encrypted = False
        self._to: list[str] = []

    def run(self) -> None:
        try:
            if self._server.from_the_start:
                self._encrypt()
            self._say(self._server.says.get("CONNECT", b"220 test ESMTP"))
            while line := self._line():
                if not self._obey(line):
                    return
        except OSError:
            return  # the client has gone, or wants no such certificate
        finally:
            self._connection.close()

    def _obey(self, line: bytes) -> bool:
        word = line.split(None, 1)[0].upper().decode() if line.split() else ""
        said = self._server.says.get(word)
        if said is not None:
            self._say(said)
            return True
        commands: dict[str, Callable[[bytes], None]] = {
            "EHLO": self._ehlo, "STARTTLS": self._starttls, "AUTH": self._auth, "RCPT": self._rcpt, "DATA": self._data,
        }  # fmt: skip
        if word in commands:
            commands[word](line)
        elif word == "QUIT":
            self._say(b"221 bye")
            return False
        else:
            self._say(b"250 ok")
        return True

    def _ehlo(self, _line: bytes) -> None:
        offers = [b"250-test"]
        if self._server.tls is not None and not self._encrypted:
            offers.append(b"250-STARTTLS")
        if self._server.password:
            offers.append(b"250-AUTH PLAIN")
        self._say(b"\r\n".join([*offers, b"250 8BITMIME"]))

    def _starttls(self, _line: bytes) -> None:
        self._say(b"220 go on")
        self._encrypt()

    def _auth(self, line: bytes) -> None:
        from base64 import b64decode

        _, user, password = b64decode(line.split()[2]).decode().split("\0")
        self._server.logins.append((user, password))
        self._say(
            b"235 welcome" if password == self._server.password else b"535 5.7.8 no such user: " + password.encode()
        )

    def _rcpt(self, line: bytes) -> None:
        receiver = line.partition(b"<")[2].partition(b">")[0].decode()
        if receiver in self._server.refuses:
            self._say(b"550 no such mailbox")
            return
        self._to.append(receiver)
        self._say(b"250 ok")

    def _data(self, _line: bytes) -> None:
        self._say(b"354 go on")
        lines = []
        while (line := self._line()) != b".\r\n":
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        self._server.messages.append(BytesParser(policy=default).parsebytes(b"".join(lines)))
        self._server.receivers.append(self._to)
        self._server.encrypted.append(self._encrypted)
        self._say(b"250 taken")

    def _encrypt(self) -> None:
        assert self._server.tls is not None
        self._connection = self._server.tls.wrap_socket(self._connection, server_side=True)
        self._encrypted = True

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            more = self._connection.recv(1)
            if not more:
                return b""
            line += more
        return line

    def _say(self, answer: bytes) -> None:
        if answer:
            self._connection.sendall(answer + b"\r\n")
        else:
            self._server.closing.wait(WAIT_S)


@contextmanager
def mail_server(**options: Any) -> Iterator[MailServer]:
    """A mail server for as long as the block."""
    server = MailServer(**options)
    try:
        yield server
    finally:
        server.close()


def certificate(folder: Path, *, name: str = "localhost") -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate that it signed itself, and a client's that trusts it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    built = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = built.public_bytes(serialization.Encoding.PEM)
    held = folder / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    held.write_bytes(private + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(held)
    return server, ssl.create_default_context(cadata=pem.decode())
