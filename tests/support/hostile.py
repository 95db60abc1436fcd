"""What a client sends that knows more than it should, byte by byte."""

import socket
from urllib.parse import urlsplit

import httpx
from servers import Server

GOOD = {"query": "what do pandas eat?", "documents": ["Pandas eat bamboo.", "It rains."]}
HEAD = b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SECRET = "Geheimnis-7f3a"


def exchange(server: Server, data: bytes, patience: float = 5.0) -> bytes:
    """Send bytes, and return all that comes until the server closes or falls silent."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=patience) as connection:
        answer = b""
        try:
            connection.sendall(data)
            while piece := connection.recv(65536):
                answer += piece
        except (TimeoutError, ConnectionResetError, BrokenPipeError):
            pass
        return answer


def post(server: Server, content: bytes, path: str = "/rerank", **headers: str) -> httpx.Response:
    return httpx.post(server.url + path, content=content, headers={"content-type": "application/json", **headers})
