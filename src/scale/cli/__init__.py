"""The command line ``scale``: one file per command, errors in one line, exit codes that scripts can trust."""

from __future__ import annotations

import errno
import importlib
import logging
import sys
import traceback
import warnings

import typer

from redline.core.errors import DeviceError, MissingDependencyError, RedlineError

#: Packages that a command may import, with the extra that brings each.
_EXTRAS = {
    **dict.fromkeys(("tifffile", "imagecodecs", "openslide", "shapely", "numba", "pyarrow", "orjson"), "scale"),
    **dict.fromkeys(("sklearn", "flask", "werkzeug", "waitress"), "scale"),
    "cv2": "detect",
    "ultralytics": "yolo",
    "torch": "torch",
    "tensorrt": "tensorrt",
    "ray": "cluster",
}
EXIT_GATE, EXIT_INPUT, EXIT_MISSING, EXIT_INTERRUPTED = 1, 2, 3, 130
COMMANDS: tuple[str, ...] = ("detect", "info", "view", "convert")


def build_app() -> typer.Typer:
    """The typer application; each command is ``<verb>_command`` of ``scale.cli.<verb>``."""
    app = typer.Typer(
        name="scale",
        help="YOLO detection on whole-slide images: to GeoJSON, Parquet and the browser.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for verb in COMMANDS:
        module = importlib.import_module(f"scale.cli.{verb}")
        app.command(verb)(getattr(module, f"{verb}_command"))
    return app


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done; 1 some slides or models failed; 2 bad input or usage; 3 a package or device is missing; 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not debug:
        warnings.simplefilter("ignore")
        logging.getLogger("scale").addHandler(logging.NullHandler())
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
        more = "; go on with --resume" if words[:1] == ["detect"] else ""
        return _fail(f"interrupted; what was finished is kept{more}", EXIT_INTERRUPTED, debug=debug)
    return code if isinstance(code, int) else 0


def entry_point() -> None:
    """What the installed ``scale`` script calls."""
    sys.exit(main())


def _unforeseen(error: Exception) -> tuple[int, str]:
    if hasattr(error, "format_message"):
        return EXIT_INPUT, f"{error.format_message()}; see --help"
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package in _EXTRAS:
        return EXIT_MISSING, str(MissingDependencyError(package, extra=_EXTRAS[package]))
    if isinstance(error, MemoryError):
        return EXIT_INPUT, "there is not enough memory; take a smaller batch, fewer models or fewer --readers"
    told = f"internal error, {type(error).__name__}: {error}"
    return EXIT_INPUT, f"{told}; this is a mistake in scale, please report it with the output of --debug"


def _fail(message: str, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"scale: error: {' '.join(message.split())}\n")
    return code


def _os_error(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({error.filename or 'while writing'}); free some space and go on with --resume"
    return f"{error.filename or 'while reading or writing'}: {error.strerror or error}"
