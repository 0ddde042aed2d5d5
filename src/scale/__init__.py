"""Detection on whole-slide images: from a slide and YOLO models to boxes and polygons in its level-0 pixels."""
