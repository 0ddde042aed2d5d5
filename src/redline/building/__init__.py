"""TensorRT engines of a model: which to build, from what file, and what each one really is."""
