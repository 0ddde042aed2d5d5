"""From a trained PyTorch vision model to a verified, measured, recommended deployment."""

__version__ = "0.1.0"
