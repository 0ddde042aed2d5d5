"""Batches of real images for calibration and checking, and synthetic ones where there are none."""
