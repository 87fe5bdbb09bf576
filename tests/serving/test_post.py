"""Results that threads have and loops wait for."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

import pytest

from limbeck.serving.post import Post


def test_one_delivery_brings_all_that_has_ended() -> None:
    post, futures = Post(), [Future[int]() for _ in range(4)]

    def work() -> None:
        futures[0].set_result(1)
        futures[1].set_exception(ValueError("no"))
        futures[2].set_result(3)
        post.deliver()

    async def main() -> None:
        awaited = [post.expect(future) for future in futures]
        awaited[2].cancel()
        threading.Thread(target=work).start()
        assert await asyncio.wait_for(awaited[0], 5) == 1
        with pytest.raises(ValueError, match="no"):
            await asyncio.wait_for(awaited[1], 5)
        assert awaited[2].cancelled()
        assert not awaited[3].done()

    asyncio.run(main())


def test_what_has_ended_before_is_brought_too() -> None:
    post, future = Post(), Future[int]()
    future.set_result(1)
    post.deliver()

    async def main() -> int:
        return await asyncio.wait_for(post.expect(future), 5)

    assert asyncio.run(main()) == 1


def test_a_loop_that_is_closed_harms_nobody() -> None:
    post, lost, kept = Post(), Future[int](), Future[int]()

    async def leave() -> None:
        post.expect(lost)

    asyncio.run(leave())
    lost.set_result(1)

    async def main() -> int:
        awaited = post.expect(kept)
        kept.set_result(2)
        post.deliver()
        return await asyncio.wait_for(awaited, 5)

    assert asyncio.run(main()) == 2
