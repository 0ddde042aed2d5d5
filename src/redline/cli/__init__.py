"""The command line: one file per command, errors in one line, exit codes that scripts can trust."""

from __future__ import annotations

import errno
import importlib
import sys
import traceback
import warnings

import typer

from redline.core.errors import DeviceError, MissingDependencyError, RedlineError

#: Packages that a command may import, with the extra that brings each.
_EXTRAS = {
    "torch": "torch",
    "onnxscript": "torch",
    "onnxoptimizer": "optimize",
    "onnxslim": "optimize",
    "openvino": "openvino",
    "nncf": "openvino",
    "vl_convert": "report",
    "sklearn": "train",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
    "cuda": "tensorrt",
    "ray": "cluster",
    "flask": "serve",
    "werkzeug": "serve",
    "granian": "serve",
    "waitress": "serve",
    "orjson": "serve",
    "simdjson": "serve",
    "prometheus_client": "serve",
    "locust": "loadtest",
}
EXIT_GATE, EXIT_INPUT, EXIT_MISSING, EXIT_INTERRUPTED = 1, 2, 3, 130
COMMANDS: tuple[str, ...] = (
    "doctor",
    "models",
    "tune",
    "export",
    "optimize",
    "quantize",
    "build",
    "run",
    "verify",
    "bench",
    "report",
    "compare",
    "serve",
    "loadtest",
    "export-triton",
)


def build_app() -> typer.Typer:
    """The typer application; each command is ``<verb>_command`` of ``redline.cli.<verb>``, its hyphens underscores."""
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
        word = verb.replace("-", "_")
        module = importlib.import_module(f"redline.cli.{word}")
        app.command(verb)(getattr(module, f"{word}_command"))
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
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    except (MissingDependencyError, DeviceError) as error:
        return _fail(str(error), EXIT_MISSING, debug=debug)
    except RedlineError as error:
        return _fail(str(error), EXIT_INPUT, debug=debug)
    except OSError as error:
        return _fail(_os_error(error), EXIT_INPUT, debug=debug)
    except Exception as error:  # noqa: BLE001 (the edge of the program: whatever it is becomes one line)
        code, message = _unforeseen(error)
        return _fail(message, code, debug=debug)
    if code == EXIT_INTERRUPTED:  # typer makes this code of Ctrl-C
        more = "; go on with --resume" if words[:1] in (["tune"], ["bench"]) else ""
        return _fail(f"interrupted; what was finished is kept{more}", EXIT_INTERRUPTED, debug=debug)
    return code if isinstance(code, int) else 0


def entry_point() -> None:
    """What the installed ``redline`` script calls."""
    sys.exit(main())


def _unforeseen(error: Exception) -> tuple[int, str]:
    if hasattr(error, "format_message"):
        return EXIT_INPUT, f"{error.format_message()}; see --help"
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package in _EXTRAS:
        return EXIT_MISSING, str(MissingDependencyError(package, extra=_EXTRAS[package]))
    if isinstance(error, MemoryError):
        return EXIT_INPUT, "there is not enough memory; give smaller images, fewer samples or a smaller batch"
    told = f"internal error, {type(error).__name__}: {error}"
    return EXIT_INPUT, f"{told}; this is a mistake in Redline, please report it with the output of --debug"


def _fail(message: str, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    line = " ".join(message.split())
    print(f"redline: error: {line}", file=sys.stderr)
    return code


def _os_error(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({error.filename or 'while writing'}); nothing half-written was kept, free some space"
    return f"{error.filename or 'while reading or writing'}: {error.strerror or error}"
