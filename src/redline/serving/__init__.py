"""Answer requests over HTTP: parse, validate, schedule, run, encode; Flask is one thin layer around it."""
