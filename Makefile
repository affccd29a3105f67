# Both `make demo` and `make test` take a bare machine to the end: see README.md.

VENV := .venv
BIN := $(VENV)/bin
# Every program of the run is found in the environment first.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test lint clean

demo:
	@tools/bootstrap
	@exec mutauth lab run -- python demo/main_job.py

test:
	@tools/bootstrap test
	@exec mutauth lab run -- python tests/run.py --no-skips

lint:
	@tools/bootstrap test
	@ruff check .
	@mypy

clean:
	rm -rf $(VENV) build dist *.egg-info _trial_temp* .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
