"""Slides as pixels: any rectangle of any level of any file, by whichever reader suits the file."""
