"""Questions that wait are answered together, each by its own answer, and none is forgotten."""

import asyncio
import threading

import pytest

from mmdata.serve.batches import Batches, Busy

SOON = 10  # seconds after which a question counts as forgotten


def asked(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, SOON))


def test_a_question_right_behind_an_answer_is_answered():
    async def one_behind_the_other():
        batches = Batches(lambda kind, items: [item + 1 for item in items], most=8, waiting=8)
        answers = [await batches.ask("kind", number) for number in range(50)]
        batches.close()
        return answers

    assert asked(one_behind_the_other()) == list(range(1, 51))


def test_what_waits_is_answered_together_and_kind_by_kind():
    seen, go = [], threading.Event()

    def answer(kind, items):
        go.wait(SOON)
        seen.append((kind, tuple(items)))
        return items

    async def many():
        batches = Batches(answer, most=3, waiting=100)
        first = asyncio.create_task(batches.ask("a", 0))
        await asyncio.sleep(0.05)
        rest = [asyncio.create_task(batches.ask(kind, n)) for n in range(1, 5) for kind in ("a", "b")]
        await asyncio.sleep(0.05)
        go.set()
        found = await asyncio.gather(first, *rest)
        batches.close()
        return found

    assert asked(many()) == [0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert seen == [("a", (0,)), ("a", (1, 2, 3)), ("b", (1, 2, 3)), ("a", (4,)), ("b", (4,))]


def test_an_error_of_one_is_that_of_one():
    async def two():
        batches = Batches(lambda kind, items: [ValueError(n) if n else n for n in items], most=8, waiting=8)
        found = await asyncio.gather(batches.ask("k", 0), batches.ask("k", 1), return_exceptions=True)
        batches.close()
        return found

    good, bad = asked(two())
    assert good == 0
    assert isinstance(bad, ValueError)


def test_too_many_that_wait_are_refused_at_once():
    go = threading.Event()

    async def three():
        batches = Batches(lambda kind, items: go.wait(SOON) and items, most=1, waiting=1)
        first = asyncio.create_task(batches.ask("k", 0))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(batches.ask("k", 1))
        await asyncio.sleep(0.05)
        with pytest.raises(Busy):
            await batches.ask("k", 2)
        go.set()
        found = await asyncio.gather(first, second)
        batches.close()
        return found

    assert asked(three()) == [0, 1]
