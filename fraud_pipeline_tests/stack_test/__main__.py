"""`python -m fraud_pipeline_tests.stack_test` (`make stack-test`): the compose file on a real Docker engine, from images to a restart."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from fraud_pipeline_tests.stack_test.commands import StackTestFailed
from fraud_pipeline_tests.stack_test.engine import Engine
from fraud_pipeline_tests.stack_test.images import TARGETS, build, check, have_bases
from fraud_pipeline_tests.stack_test.stack import PROJECT, Stack
from fraud_pipeline_tests.stack_test.walk import SETTINGS, Walk


def main() -> int:
    """Exit code 1 where a step failed; what it started is ended in any case."""
    asked = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything that was started is ended
    started = time.monotonic()
    folder = Path(asked.folder or tempfile.mkdtemp(prefix="fraud-stack-"))
    engine = Engine(folder / "engine")
    try:
        _step("engine", engine.start)
        _step(
            "base images", lambda: have_bases(engine, stand_ins=asked.stand_ins or (engine.is_own and not asked.pull))
        )
        for target in () if asked.no_build else TARGETS:
            _step(f"build {target}", partial(build, engine, target))
        for target in TARGETS:
            _step(f"check {target}", partial(check, engine, target))
        _walk(engine, folder / "project", keep=asked.keep)
    except StackTestFailed as err:
        _say(f"FAILED: {err}")
        return 1
    finally:
        _step("engine ends", engine.stop)
        if not asked.folder:
            shutil.rmtree(folder, ignore_errors=True)
    _say(f"passed in {(time.monotonic() - started) / 60:.1f} min")
    return 0


def _walk(engine: Engine, folder: Path, *, keep: bool) -> None:
    stack = Stack(engine, folder, SETTINGS)
    stack.prepare()
    walk = Walk(stack)
    failed = True
    try:
        _step("up", stack.up)
        _step("first champion", walk.first_champion)
        _step("score over REST", walk.score_over_rest)
        _step("stream", walk.stream)
        _step("drift report", walk.drift_report)
        _step("second champion", walk.second_champion)
        _step("nothing ended", stack.nothing_ended)
        _step("restart", walk.restart)
        _step("nothing ended", stack.nothing_ended)
        failed = False
    except StackTestFailed as err:
        _show_logs(stack, err)
        raise
    finally:
        if failed and keep and not engine.is_own:
            _say(f"The stack is left as it is: docker-compose --project-name {PROJECT}, in {folder}")
        else:
            _step("down", lambda: stack.down(volumes=True))
        if not keep:
            _step("images removed", stack.remove_images)


def _show_logs(stack: Stack, err: StackTestFailed) -> None:
    """Of the services that the failure names, and of all that are not well."""
    with contextlib.suppress(StackTestFailed):
        states = stack.states()
        _say(f"containers: {states}")
        for service in dict.fromkeys((*err.logs_of, *stack.unhealthy())):
            if service in states:
                _say(f"---- {service}\n{stack.logs(service)}")


def _step(name: str, work: Callable[[], str | None]) -> None:
    """Do it, and say how long it took and what it saw."""
    with _timed(name) as say:
        say.append(work() or "")


@contextlib.contextmanager
def _timed(name: str) -> Iterator[list[str]]:
    started, said = time.monotonic(), list[str]()
    try:
        yield said
    except BaseException:
        said.append("FAILED")
        raise
    finally:
        _say(f"{time.monotonic() - started:7.1f} s  {name:18} {' '.join(said)}".rstrip())


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fraud_pipeline_tests.stack_test", description=__doc__)
    bases = parser.add_mutually_exclusive_group()
    bases.add_argument(
        "--stand-ins", action="store_true", help="make stand-in base images (an engine that it starts gets them anyway)"
    )
    bases.add_argument(
        "--pull", action="store_true", help="pull the base images (an engine that runs already gets them anyway)"
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep our images, and the stack where a step failed, in an engine that was running",
    )
    parser.add_argument("--no-build", action="store_true", help="take the images that an earlier run has kept")
    parser.add_argument("--folder", help="where the engine that it starts and the project lie [a temporary folder]")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
