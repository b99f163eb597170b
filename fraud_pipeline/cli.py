"""The `fraud` command: its commands by area, and the one place where an error becomes a line and an exit code.

Exit codes: 0 done, 1 the answer is no (parity differs, a gate failed), 2 bad input or a bad state, 3 a system we need does not answer.
Importing this module loads Typer and nothing else of weight: `fraud --help` must answer at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fraud_pipeline import telemetry
from fraud_pipeline.commands import (
    backup,
    data,
    dead_letters,
    keys,
    live,
    loadtest,
    machine,
    migrate,
    models,
    monitoring,
    notices,
    pipeline,
    produce,
    replay,
    retention,
    services,
    sink,
    stack,
    stream,
    topics,
)
from fraud_pipeline.errors import DependencyError, FraudError

INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""

app = typer.Typer(
    name="fraud",
    help="Payment-fraud detection: from a history of payments to a promoted champion, and every step beside it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for area in (
    data,
    pipeline,
    retention,
    models,
    live,
    monitoring,
    notices,
    keys,
    machine,
    loadtest,
    services,
    stack,
    migrate,
    backup,
    topics,
    produce,
    stream,
    sink,
    dead_letters,
    replay,
):
    area.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"fraud {version('fraud-pipeline')}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (anywhere on the line).")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """`--debug` is taken off the line by `main`, so that it may stand after the command too."""


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; every error ends here as one line on stderr."""
    telemetry.disable()
    debug = "--debug" in arguments
    try:
        code = app(
            args=[argument for argument in arguments if argument != "--debug"], prog_name="fraud", standalone_mode=False
        )
    except typer.TyperException as err:
        return _say(err.format_message(), code=2)
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted", code=INTERRUPTED)
    except BrokenPipeError:
        return 0
    except Exception as err:  # the boundary: it is shown, and the exit code says so
        if debug:
            raise
        return _explain(err)
    if code == INTERRUPTED:
        return _say("interrupted", code=code)
    return code if isinstance(code, int) else 0


def _explain(err: Exception) -> int:
    if isinstance(err, FraudError):
        return _say(f"{err.message} {err.remedy}", code=3 if isinstance(err, DependencyError) else 2)
    if isinstance(err, ModuleNotFoundError) and err.name and not err.name.startswith("fraud_pipeline"):
        return _say(
            f"this command needs {err.name}, which is not installed. Install the extra that has it: pip install 'fraud-pipeline[pipeline]'",
            code=2,
        )
    if isinstance(err, OSError):
        return _say(
            f"{err.strerror or err}: {err.filename or 'no file named'}. `fraud doctor` checks disk and permissions.",
            code=2,
        )
    return _say(f"unexpected {type(err).__name__}: {err}. Run it again with --debug for the traceback.", code=2)


def _say(message: str, *, code: int) -> int:
    """One line; nothing where the help was shown instead."""
    if message:
        sys.stderr.write(f"fraud: {' '.join(message.split())}\n")
    return code


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
