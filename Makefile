# Everything here starts from a fresh clone: scripts/setup makes .venv first, and does nothing when it is there.
SHELL := bash
.PHONY: help setup demo demo-scale test check format clean

help:  ## these lines
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile

setup:  ## make .venv with the locked versions
	@scripts/setup

demo: setup  ## tune digits (labelled) and ResNet-18 (photographs) into demo/
	@scripts/demo

demo-scale: setup  ## find nuclei on a real slide into demo-scale/, for QuPath and the browser
	@scripts/demo-scale

test: setup  ## static checks and the whole test suite
	@scripts/check

check: test  ## the same

format: setup  ## put the code into the shape that the checks want
	@.venv/bin/ruff format -q . && .venv/bin/ruff check -q --fix .

clean:  ## remove what the demo and the tools left behind; .venv stays
	rm -rf demo demo-scale out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
