"""What an executor said on its websocket, from a recording of the bytes (RFC 6455, section 5.2)."""


def messages(sent: bytes) -> list[str]:
    """The text messages after the upgrade request. Compression must not have been agreed on."""
    at = sent.index(b"\r\n\r\n") + 4
    texts: list[str] = []
    whole = b""
    while len(sent) - at >= 2:
        final, compressed, kind = sent[at] & 0x80, sent[at] & 0x40, sent[at] & 0x0F
        assert not compressed, "a compressed frame"
        length, at = sent[at + 1] & 0x7F, at + 2
        if length >= 126:
            size = 2 if length == 126 else 8
            length, at = int.from_bytes(sent[at : at + size], "big"), at + size
        mask, at = sent[at : at + 4], at + 4
        data = bytes(byte ^ mask[number % 4] for number, byte in enumerate(sent[at : at + length]))
        at += length
        if kind < 8:  # not a ping, pong or close
            whole += data
            if final:
                texts.append(whole.decode())
                whole = b""
    return texts
