"""One engine for tune, bench and build: plan, files, launch, measure, journal, rows."""
