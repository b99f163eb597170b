from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fraud_pipeline.adapters.log_gate import LogGate
from fraud_pipeline.errors import DependencyError


def open_gate() -> LogGate:
    gate = LogGate("starting")
    gate.reopen()
    return gate


async def turns(count: int = 20) -> None:
    """Let everyone else go on for a while."""
    for _ in range(count):
        await asyncio.sleep(0)


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(work(), 10)

    asyncio.run(bounded())


def test_a_gate_is_shut_with_its_first_problem_until_it_is_opened():
    async def work() -> None:
        gate = LogGate("starting")
        with pytest.raises(DependencyError, match="starting Try again in a moment"):
            await gate.admitted()
        with pytest.raises(DependencyError, match="starting"):
            async with gate.alone():
                raise AssertionError("nobody comes in")
        gate.reopen()
        await gate.admitted()

    run(work)


def test_who_is_alone_waits_for_those_inside_and_holds_the_others_back():
    async def work() -> None:
        gate, order = open_gate(), list[str]()
        gate.entered(2)

        async def alone() -> None:
            async with gate.alone():
                order.append("alone")
                await turns()
                order.append("done")

        async def enter(name: str) -> None:
            await gate.admitted()
            order.append(name)

        tasks = [asyncio.create_task(alone())]
        await turns()
        tasks += [asyncio.create_task(enter(name)) for name in "ab"]
        await turns()
        gate.left(1)
        await turns()
        assert (order, gate.inside) == ([], 1)
        gate.left(1)
        await asyncio.gather(*tasks)
        assert order == ["alone", "done", "a", "b"]

    run(work)


def test_two_that_want_to_be_alone_are_so_one_after_the_other():
    async def work() -> None:
        gate, inside, seen = open_gate(), 0, list[int]()

        async def alone() -> None:
            nonlocal inside
            async with gate.alone():
                inside += 1
                await turns()
                seen.append(inside)
                inside -= 1

        await asyncio.gather(*(alone() for _ in range(5)))
        assert seen == [1] * 5
        await gate.admitted()

    run(work)


def test_an_error_or_a_cancellation_within_opens_it_again():
    async def work() -> None:
        gate = open_gate()
        with pytest.raises(ZeroDivisionError):
            async with gate.alone():
                raise ZeroDivisionError
        await gate.admitted()
        gate.entered(1)

        async def alone() -> None:
            async with gate.alone():
                raise AssertionError("somebody is inside")

        task = asyncio.create_task(alone())
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gate.admitted()
        gate.left(1)
        async with gate.alone():
            pass

    run(work)


def test_who_waits_is_refused_when_it_is_shut():
    async def work() -> None:
        gate = open_gate()
        gate.entered(1)

        async def alone() -> None:
            async with gate.alone():
                raise AssertionError("it was shut meanwhile")

        waiting = [asyncio.create_task(alone()) for _ in range(2)]
        await turns()
        waiting.append(asyncio.create_task(gate.admitted()))
        await turns()
        gate.shut("the ledger is away")
        gate.left(1)
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, DependencyError)
            assert outcome.message == "the ledger is away"

    run(work)


def test_opened_while_someone_is_alone_it_lets_the_others_in_afterwards():
    async def work() -> None:
        gate, order = open_gate(), list[str]()

        async def enter() -> None:
            await gate.admitted()
            order.append("entered")

        async with gate.alone():
            gate.shut("being built anew")
            gate.reopen()
            waiting = asyncio.create_task(enter())
            await turns()
            order.append("alone")
        await waiting
        assert order == ["alone", "entered"]

    run(work)


def test_drained_waits_for_those_inside_and_for_who_is_alone():
    async def work() -> None:
        gate, order = open_gate(), list[str]()

        async def drain() -> None:
            await gate.drained()
            order.append("drained")

        gate.entered(1)
        first = asyncio.create_task(drain())
        await turns()
        order.append("left")
        gate.left(1)
        await first
        async with gate.alone():
            gate.shut("stopping")
            second = asyncio.create_task(drain())
            await turns()
            order.append("alone")
        await second
        assert order == ["left", "drained", "alone", "drained"]

    run(work)
