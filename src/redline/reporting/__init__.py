"""Reads result files and draws them; never runs a model."""
