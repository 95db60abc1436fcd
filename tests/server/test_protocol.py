"""Heads of requests, however they arrive."""

import pytest

from mlx_rerank.server.protocol import BoundedProtocol

HEAD = b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n"
REST = b"HTTP2-Settings: AAEAAEAA\r\nUpgraded: no\r\nContent-Length: 4\r\n\r\n"
BODY = b"{}\r\n"


@pytest.mark.parametrize("offer", [b"Upgrade: h2c\r\n", b"upgrade:websocket\r\n", b"UPGRADE: h2c, a\r\n"])
def test_an_offer_of_another_protocol_is_left_out_wherever_it_is_split(offer: bytes) -> None:
    head = HEAD + offer + REST
    last = len(head) - 1
    for first in range(len(head)):
        for second in (first, min(first + 1, last), min(first + 7, last)):
            protocol = BoundedProtocol.__new__(BoundedProtocol)
            parts = (head[:first], head[first:second], head[second:] + BODY)
            assert b"".join(map(protocol._without_offer, parts)) == HEAD + REST + BODY
            assert not protocol._held
