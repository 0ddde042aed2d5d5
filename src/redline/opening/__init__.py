"""Anything that can be opened as a session, with what is tried where it cannot be."""
