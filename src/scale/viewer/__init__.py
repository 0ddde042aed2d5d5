"""Look at detections on their slide, in a browser on this machine."""
