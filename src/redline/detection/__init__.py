"""Detectors of the YOLO family over any session: images in, boxes and polygons in the images' own pixels out."""
