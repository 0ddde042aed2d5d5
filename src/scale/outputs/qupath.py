"""What things are called in GeoJSON files that QuPath reads and writes."""

from __future__ import annotations

#: The measurement under which QuPath lists the score.
CONFIDENCE = "Confidence"
#: The member of a collection that says where it comes from; GeoJSON lets others be, and so does QuPath.
PROVENANCE = "slide"
#: What QuPath calls an object without a class.
UNCLASSIFIED = "Unclassified"
#: Between the names of a class that is derived from another.
DERIVED = ": "
