"""The command line: one file per command, errors in one line, exit codes that scripts can trust."""

from __future__ import annotations

import errno
import importlib
import sys
import traceback
import warnings

import typer

from redline.core.errors import MissingDependencyError, RedlineError

EXIT_GATE, EXIT_INPUT, EXIT_MISSING, EXIT_INTERRUPTED = 1, 2, 3, 130
COMMANDS: tuple[str, ...] = (
    "doctor",
    "models",
    "tune",
    "export",
    "optimize",
    "quantize",
    "run",
    "verify",
    "report",
)


def build_app() -> typer.Typer:
    """The typer application; each command is the function ``<verb>_command`` of ``redline.cli.<verb>``."""
    app = typer.Typer(
        name="redline",
        help="From a trained PyTorch vision model to a verified, measured, recommended deployment.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for verb in COMMANDS:
        module = importlib.import_module(f"redline.cli.{verb}")
        app.command(verb)(getattr(module, f"{verb}_command"))
    return app


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code (0 done, 1 gate failed, 2 input, 3 missing, 130 interrupted)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not debug:
        warnings.simplefilter("ignore")
    try:
        code = build_app()(words, standalone_mode=False)
    except KeyboardInterrupt:
        return _fail("interrupted; what was finished is kept", EXIT_INTERRUPTED, debug=debug)
    except typer.Abort:
        return _fail("interrupted; what was finished is kept", EXIT_INTERRUPTED, debug=debug)
    except MissingDependencyError as error:
        return _fail(str(error), EXIT_MISSING, debug=debug)
    except RedlineError as error:
        return _fail(str(error), EXIT_INPUT, debug=debug)
    except OSError as error:
        return _fail(_os_error(error), EXIT_INPUT, debug=debug)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return _fail(f"{error.format_message()}; see --help", EXIT_INPUT, debug=debug)
    return code if isinstance(code, int) else 0


def entry_point() -> None:
    """What the installed ``redline`` script calls."""
    sys.exit(main())


def _fail(message: str, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    line = " ".join(message.split())
    print(f"redline: error: {line}", file=sys.stderr)
    return code


def _os_error(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"the disk is full ({error.filename or 'while writing'}); nothing half-written was kept, free some space"
    return f"{error.filename or 'file'}: {error.strerror or error}"
