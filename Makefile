# Two commands on a machine that has only Python 3.11+ and make: `make demo` and `make test`.
# A loop, since dash's `command -v` looks at its first argument only, and pyenv's shims exist without their Python.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
BIN := .venv/bin
READY := .venv/.ready
ARGS ?=

.PHONY: demo test check bench simulate torture docs migrate clean install

install: $(READY)

$(READY): pyproject.toml .ci/constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name one with: make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c .ci/constraints.txt -e '.[postgres,service,test]'
	touch $(READY)

demo: $(READY)
	$(BIN)/routilux demo $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m tests.benchmarks.run $(ARGS)

simulate: $(READY)
	$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),10000) $(ARGS)

torture: $(READY)
	$(BIN)/python -m tests.torture --minutes $(or $(MINUTES),10) $(ARGS)

docs: $(READY)
	$(BIN)/python -m tests.support.settled

migrate: $(READY)
	$(BIN)/routilux db upgrade $(ARGS)

clean:
	rm -rf .venv .venv-peers build dist *.egg-info
