"""Moved: import redline.formats.onnx_file instead (this alias goes away before release)."""

from redline.formats.onnx_file import describe, load_proto, read_onnx, save_proto, versions

__all__ = ["describe", "load_proto", "read_onnx", "save_proto", "versions"]
