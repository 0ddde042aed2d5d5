"""The vocabulary: tensors, artifacts, sessions and errors; NumPy and the standard library only."""
