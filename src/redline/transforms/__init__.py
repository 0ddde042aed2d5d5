"""A model file in, a model file out."""
