"""The Open Inference Protocol, bytes in and bytes out, with no HTTP in it.

https://github.com/kserve/open-inference-protocol and, of Triton's extensions, binary tensors, classification and
model configuration. What a client does wrong is a :class:`redline.core.errors.RequestError`, in the words that Triton
uses for it where it has any.
"""

from __future__ import annotations

from redline.serving.bodies import header_length_of, inflate
from redline.serving.datatypes import DATATYPES, datatype_of
from redline.serving.messages import Encoded, InferRequest, Wanted
from redline.serving.protocol_describe import model_config, model_metadata, server_metadata
from redline.serving.protocol_encode import encode_infer
from redline.serving.protocol_parse import parse_infer, parse_tensors

__all__ = [
    "DATATYPES",
    "Encoded",
    "InferRequest",
    "Wanted",
    "datatype_of",
    "encode_infer",
    "header_length_of",
    "inflate",
    "model_config",
    "model_metadata",
    "parse_infer",
    "parse_tensors",
    "server_metadata",
]
