"""From slides and models to finished detections: plan, read, batch, infer, keep, merge, write."""
