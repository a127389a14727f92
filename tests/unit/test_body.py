"""Bodies that arrive in parts, more of them than there is memory for, or in part only."""

import asyncio
import gzip
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.requests import Request

from shared.body import SLICE_BYTES, Receiver
from shared.problems import Problem
from tests.support import turns_beside

FULL = "Too many bodies are arriving; send it again in a second"
GZIP = {"content-encoding": "gzip"}
TOO_LARGE = "A body holds at most 1000 bytes; send it in parts"


async def receive(receiver: Receiver, parts: Iterable[bytes], **headers: str) -> bytes:
    """What a function gets of a body that comes in these parts; after them the client is gone."""
    *before, last = parts
    messages: list[dict[str, Any]] = [
        *({"type": "http.request", "body": part, "more_body": True} for part in before),
        {"type": "http.request", "body": last} if last else {"type": "http.disconnect"},
    ]

    async def next_message() -> Any:
        return messages.pop(0)

    return await asyncio.create_task(receiver.receive(Request({"type": "http"}, next_message), headers))


def refused(parts: Iterable[bytes], **headers: str) -> Problem:
    with pytest.raises(Problem) as refusal:
        asyncio.run(receive(Receiver(1_000), parts, **headers))
    return refusal.value


@pytest.mark.parametrize("parts", [[b"x" * 1_000], [b"x" * 400, b"x" * 600], [b"", b"x", b"y"]])
def test_a_body_is_its_parts(parts: list[bytes]) -> None:
    assert asyncio.run(receive(Receiver(1_000), parts)) == b"".join(parts)
    # A gzip file may have several members (RFC 1952, 2.2).
    members = [b"".join(map(gzip.compress, parts))]
    assert asyncio.run(receive(Receiver(1_000), members, **GZIP)) == b"".join(parts)


@pytest.mark.parametrize("parts", [[b"x" * 1_001], [b"x" * 400, b"x" * 601], [b"x" * 2_000, b"x"]])
def test_a_body_that_is_too_large_is_413(parts: list[bytes]) -> None:
    for refusal in (refused(parts), refused([gzip.compress(b"".join(parts))], **GZIP)):
        assert (refusal.status, refusal.detail, refusal.headers) == (413, TOO_LARGE, None)


def test_nobody_reads_on_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.body.MOST_DISCARDED_BYTES", 3_000)
    assert refused([b"x" * 1_000] * 3).headers is None
    assert refused([b"x" * 1_000] * 9).headers == {"Connection": "close"}
    for declared, headers in ((3_000, None), (3_001, {"Connection": "close"})):
        refusal = refused([b"x"], **{"content-length": str(declared)})
        assert (refusal.status, refusal.headers) == (413, headers)


@pytest.mark.parametrize("way", ["in parts", "gzip"])
def test_a_body_that_there_is_no_memory_for_is_503(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr("shared.body.MOST_HELD_BYTES", 1_000)

    async def play() -> None:
        receiver = Receiver(2_000)
        # What one request holds is free when it is answered, and no more than that.
        for size, fits in ((1_000, True), (1_001, False), (1_000, True), (1_400, False)):
            content = b"x" * size
            in_parts = way == "in parts"
            parts = [content[:500], content[500:]] if in_parts else [gzip.compress(content)]
            receiving = receive(receiver, parts, **({} if in_parts else GZIP))
            if fits:
                assert await receiving == content
            else:
                with pytest.raises(Problem, match=FULL) as refusal:
                    await receiving
                assert (refusal.value.status, refusal.value.reason) == (503, "bodies_full")
            await asyncio.sleep(0)

    asyncio.run(play())


@pytest.mark.parametrize("seconds", [100, -1])
def test_a_body_makes_room_for_others_once_it_is_slow(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr("shared.body.MOST_HELD_BYTES", 1_000)
    monkeypatch.setattr("shared.body.SLOW_SECONDS", seconds)

    async def play() -> None:
        receiver = Receiver(2_000)
        # One alone is never in its own way.
        with pytest.raises(Problem, match=FULL):
            await receive(receiver, [b"x" * 600, b"x" * 600])
        sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        sent.put_nowait({"type": "http.request", "body": b"x" * 600, "more_body": True})
        first = asyncio.create_task(receiver.receive(Request({"type": "http"}, sent.get), {}))
        await asyncio.sleep(0)
        second = receive(receiver, [b"y" * 600, b"y"])
        if seconds > 0:
            with pytest.raises(Problem, match=FULL):
                await second
        else:
            assert len(await second) == 601
        sent.put_nowait({"type": "http.request", "body": b"x"})
        if seconds > 0:
            assert len(await first) == 601
        else:
            with pytest.raises(Problem, match="The body arrives too slowly"):
                await first

    asyncio.run(play())


def test_others_are_served_while_a_body_is_inflated() -> None:
    inflating = receive(Receiver(8 * SLICE_BYTES), [gzip.compress(bytes(8 * SLICE_BYTES))], **GZIP)
    assert asyncio.run(turns_beside(inflating)) >= 8


def test_what_is_refused_leaves_its_memory_to_others_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.body.MOST_HELD_BYTES", 1_000)

    async def play() -> None:
        receiver = Receiver(700)
        sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for part in (b"x" * 600, b"x" * 200):
            sent.put_nowait({"type": "http.request", "body": part, "more_body": True})
        refused = asyncio.create_task(receiver.receive(Request({"type": "http"}, sent.get), {}))
        await asyncio.sleep(0)
        # Its client still sends, and is not answered yet.
        assert not refused.done()
        assert await receive(receiver, [b"y" * 500, b"y"]) == b"y" * 500 + b"y"
        sent.put_nowait({"type": "http.request", "body": b"x"})
        with pytest.raises(Problem, match="A body holds at most 700 bytes"):
            await refused

    asyncio.run(play())


@pytest.mark.parametrize("parts", [[b""], [b"x", b""]])
def test_who_goes_away_before_the_end_of_a_body_is_400(parts: list[bytes]) -> None:
    refusal = refused(parts)
    assert (refusal.status, refusal.detail) == (400, "The client went away before the end of the body")
