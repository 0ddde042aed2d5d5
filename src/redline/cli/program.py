"""A command line as a whole: its commands found by name, every error one line, exit codes that scripts can trust."""

from __future__ import annotations

import errno
import importlib
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import typer

from redline.core.errors import DeviceError, MissingDependencyError, RedlineError

EXIT_GATE, EXIT_INPUT, EXIT_MISSING, EXIT_INTERRUPTED = 1, 2, 3, 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What tells one command line from another.

    Attributes:
        name: What is typed.
        title: What it is called in a sentence.
        about: One line for its help.
        package: Holds one module for each command.
        commands: Each is ``<verb>_command`` of the package's module ``<verb>``, its hyphens underscores.
        extras: Packages that a command may import, with the extra that brings each.
        resumable: Commands that take ``--resume``.
        too_little_memory: What to do then.
        disk_full: What has become of the work, and what to do.
    """

    name: str
    title: str
    about: str
    package: str
    commands: Sequence[str]
    extras: Mapping[str, str]
    resumable: frozenset[str]
    too_little_memory: str
    disk_full: str

    def build_app(self) -> typer.Typer:
        """The typer application."""
        app = typer.Typer(
            name=self.name,
            help=self.about,
            no_args_is_help=True,
            add_completion=False,
            pretty_exceptions_enable=False,
            rich_markup_mode="markdown",
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        for verb in self.commands:
            word = verb.replace("-", "_")
            module = importlib.import_module(f"{self.package}.{word}")
            app.command(verb)(getattr(module, f"{word}_command"))
        return app

    def main(self, arguments: list[str] | None = None) -> int:
        """Run the command line and return its exit code.

        0 done, 1 a gate or a part of the work failed, 2 input, 3 missing, 130 interrupted.
        """
        words = list(sys.argv[1:] if arguments is None else arguments)
        debug = "--debug" in words
        words = [word for word in words if word != "--debug"]
        if not debug:
            warnings.simplefilter("ignore")
        try:
            code = self.build_app()(words, standalone_mode=False)
        except (KeyboardInterrupt, typer.Abort):
            code = EXIT_INTERRUPTED
        except (MissingDependencyError, DeviceError) as error:
            return self._fail(str(error), EXIT_MISSING, debug=debug)
        except RedlineError as error:
            return self._fail(str(error), EXIT_INPUT, debug=debug)
        except OSError as error:
            return self._fail(self._os_error(error), EXIT_INPUT, debug=debug)
        except Exception as error:  # noqa: BLE001 (the edge of the program: whatever it is becomes one line)
            code, message = self._unforeseen(error)
            return self._fail(message, code, debug=debug)
        if code == EXIT_INTERRUPTED:  # typer makes this code of Ctrl-C
            more = "; go on with --resume" if words and words[0] in self.resumable else ""
            return self._fail(f"interrupted; what was finished is kept{more}", EXIT_INTERRUPTED, debug=debug)
        return code if isinstance(code, int) else 0

    def _unforeseen(self, error: Exception) -> tuple[int, str]:
        if hasattr(error, "format_message"):
            return EXIT_INPUT, f"{error.format_message().rstrip('.')}; see --help"
        package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if package in self.extras:
            return EXIT_MISSING, str(MissingDependencyError(package, extra=self.extras[package]))
        if isinstance(error, MemoryError):
            return EXIT_INPUT, f"there is not enough memory; {self.too_little_memory}"
        told = f"internal error, {type(error).__name__}: {error}"
        return EXIT_INPUT, f"{told}; this is a mistake in {self.title}, please report it with the output of --debug"

    def _fail(self, message: str, code: int, *, debug: bool) -> int:
        if debug:
            traceback.print_exc()
        print(f"{self.name}: error: {' '.join(message.split())}", file=sys.stderr)
        return code

    def _os_error(self, error: OSError) -> str:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"the disk is full ({error.filename or 'while writing'}); {self.disk_full}"
        return f"{error.filename or 'while reading or writing'}: {error.strerror or error}"
