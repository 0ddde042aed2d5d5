"""Make TensorRT engines of a folder of models, as ``scale convert`` does: ``python convert_to_tensorrt.py --help``."""

from __future__ import annotations

import sys

from scale.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
