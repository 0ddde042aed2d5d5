"""Every error that Redline raises on purpose.

RedlineError
├── InputError (ValueError)             the user's argument, file or data is not usable
│   ├── SignatureError                  tensors do not match a signature
│   ├── ArtifactError                   a model or engine file is broken, truncated or not what it says
│   └── DataError                       images, labels or arrays that cannot be used
├── ExportError                         a PyTorch model could not become ONNX
├── PassError                           a graph pass crashed, hung or changed the answers
├── QuantizeError                       a model could not be quantized
├── BuildError                          a backend could not compile a model
│   └── UnsupportedError                ... because this backend or machine cannot do that at all
├── EngineMismatchError                 an engine belongs to another platform, model or version
├── DeviceError                         a call to the GPU failed, or there is no GPU
├── WorkerError                         a worker process died or answered with an error
├── BusyError                           another process holds the output folder
├── RequestError                        a server's answer to a request that it cannot fulfil
└── MissingDependencyError (ImportError)  an optional package is not installed

Catch :class:`RedlineError` for all of them. The command line prints one as a single line and maps it to
an exit code: ``MissingDependencyError`` and ``DeviceError`` are 3, every other one 2.
"""

from __future__ import annotations


class RedlineError(Exception):
    """Base of every error that Redline raises on purpose."""


class InputError(RedlineError, ValueError):
    """The user's argument, file or data is not usable; says what was got and what was expected."""


class SignatureError(InputError):
    """Tensors do not match a signature."""


class ArtifactError(InputError):
    """A model or engine file is broken, truncated or not what it says."""


class DataError(InputError):
    """Images, labels or arrays that cannot be used."""


class ExportError(RedlineError):
    """A PyTorch model could not become ONNX; names the operator where one is to blame."""


class PassError(RedlineError):
    """A graph pass crashed, hung or changed the answers; names the pass."""


class QuantizeError(RedlineError):
    """A model could not be quantized."""


class BuildError(RedlineError):
    """A backend could not compile a model."""


class UnsupportedError(BuildError):
    """This backend, or this machine, cannot run that model or precision at all."""


class EngineMismatchError(RedlineError):
    """An engine belongs to another platform, model or version."""


class DeviceError(RedlineError):
    """A call to the GPU failed, or there is no GPU."""


class WorkerError(RedlineError):
    """A worker process died or answered with an error.

    Attributes:
        missing: Set where the worker lacked an optional package.
    """

    def __init__(self, message: str, *, missing: MissingDependencyError | None = None) -> None:
        super().__init__(message)
        self.missing = missing


class BusyError(RedlineError):
    """Another process holds the output folder."""


class RequestError(RedlineError):
    """A server's answer to a request that it cannot fulfil; its text is for whoever sent the request.

    Attributes:
        status: Of HTTP: 4xx where the request is at fault, 503 where it should come again later, 504 where its time ran
            out.
        retry_after_s: When to try again, for 503.
    """

    def __init__(self, message: str, *, status: int = 400, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class MissingDependencyError(RedlineError, ImportError):
    """An optional package is not installed; the message says what to type."""

    def __init__(self, package: str, *, extra: str) -> None:
        super().__init__(f"{package} is not installed; type: pip install 'redline[{extra}]'")
        self.package = package
        self.extra = extra
