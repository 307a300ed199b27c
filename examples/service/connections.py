"""HTTP connections that end: uvicorn itself waits for ever for a header, and for a client to read its answer."""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
TOO_MANY = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"


class Connection(H11Protocol):
    """HTTP/1.1 of uvicorn's, in which a client has `timeout_keep_alive` seconds for each thing that is its turn.

    These are a request's header (from when it connected, or was answered), the rest of a body that was answered before
    it ended, and to read an answer. Above `limit_concurrency` connections a further one is closed with 503 at once.
    """

    _clock: asyncio.TimerHandle | None = None
    _awaited = ""
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) > self.limit_concurrency:
            transport.write(TOO_MANY)
            transport.close()
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._clock, self._unread):
            if timer is not None:
                timer.cancel()

    def _watch(self) -> None:
        """Start the clock anew where something else is the client's turn than before."""
        awaited = self._turn()
        if awaited == self._awaited:
            return
        self._awaited = awaited
        if self._clock is not None:
            self._clock.cancel()
        self._clock = self.loop.call_later(self.timeout_keep_alive, self._end) if awaited else None

    def _turn(self) -> str:
        """What the client has yet to do; nothing while its body is read, or it waits for its answer."""
        if self.transport.is_closing():
            return "read the answer"
        if self.conn.their_state is h11.IDLE:
            return "header"
        answered = self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY
        return "rest of the body" if answered else ""

    def _end(self) -> None:
        if self.transport.is_closing():
            self.transport.abort()
            return
        if self._awaited == "header" and self.conn.trailing_data[0]:  # half a header, rather than none
            self.transport.write(TOO_SLOW)
        self.transport.close()
        self._watch()
