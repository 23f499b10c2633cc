"""The files of the page and its buttons: what is served, done and refused."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from tests.integration.page_edge import SENDS, page


async def test_the_files_of_the_page_are_served_with_their_types() -> None:
    async with page(None) as shown:
        for path, kind in (("/", "text/html"), ("/static/app.js", "text/javascript")):
            async with shown.session.get(shown.url + path) as response:
                assert (response.status, response.content_type) == (200, kind)
                assert response.headers["Cache-Control"] == "no-cache"
                etag = response.headers["ETag"]
            async with shown.session.get(shown.url + path, headers={"If-None-Match": etag}) as response:
                assert response.status == 304


@pytest.mark.parametrize(
    "path",
    [
        "/static/none.js",
        "/static/lib",
        "/static/../page.py",
        "/static/%2e%2e/page.py",
        "/static/..%2fpage.py",
        "/static/%2e%2e%5cpage.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/app.js%00.css",
        "/static/" + "a" * 300,
        "/static/" + "a/" * 3000 + "a",
    ],
)
async def test_nothing_but_the_files_of_the_page_is_served(path: str) -> None:
    async with page(None) as shown:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(shown.url.rpartition(":")[2]))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()

    assert answer.split(b" ")[1] in (b"404", b"400")
    assert b"root:" not in answer
    assert b"import" not in answer


async def test_a_number_that_no_fault_can_have_is_refused() -> None:
    async with page(None) as shown:
        for number in (b"-1", b"9" * 40, b"9" * 5000, b"1.5"):
            status, answer = await shown.post("/page/clear", b'{"number":%b}' % number)

            assert (status, "number" in answer["error"]) == (400, True)


async def test_buttons_do_what_they_are_asked_and_say_why_not() -> None:
    async with page(None) as shown:
        injected = await shown.post("/page/inject", b'{"kind":"link.down","target":"a~b","seconds":5}')
        halted = await shown.post("/page/halt", b'{"reason":"tea"}')
        cleared = await shown.post("/page/clear", b'{"number":3}')
        resumed = await shown.post("/page/resume", b"{}")

        assert (injected, halted) == ((200, {"number": 7}), (200, {}))
        assert cleared == (404, {"error": "no fault has the number 3"})
        assert resumed == (409, {"error": "the loops are not halted"})
        assert shown.nowhere.asked == [("inject", "link.down", "a~b", 5.0), ("halt", "tea")]


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (b'{"kind":"a","target":"b"}', {}, 403, "X-Mapek"),
        (b"{", SENDS, 400, "kind, target, seconds"),
        (b"", SENDS, 400, "missing required field"),
        (b"[]", SENDS, 400, "object"),
        (b'{"kind":"a","target":"b","force":true}', SENDS, 400, "unknown field"),
        (b'{"kind":"a","target":1}', SENDS, 400, "target"),
        (b'{"kind":"a","target":"b","seconds":-1}', SENDS, 400, "more than 0"),
        (b'{"kind":"a","target":"\xff"}', SENDS, 400, ""),
        (b'{"kind":"' + b"a" * 20_000, SENDS, 413, "longer than"),
    ],
    ids=["header", "cut", "empty", "list", "more", "type", "negative", "not utf-8", "long"],
)
async def test_a_button_that_is_asked_wrongly_says_so_and_does_nothing(
    body: bytes, headers: Mapping[str, str], status: int, words: str
) -> None:
    async with page(None) as shown:
        answer = await shown.post("/page/inject", body, headers)

        assert answer[0] == status
        assert words in answer[1]["error"]
        assert shown.nowhere.asked == []
