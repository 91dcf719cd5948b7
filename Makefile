# Two commands: `make train` and `make test`. Each sets up what it needs in .venv.
PYTHON ?= $(shell command -v python3.11 || echo python3)
BIN := .venv/bin
JOBS ?= 2
NAME ?= index gather update unique codec echo pull push

.PHONY: help setup train train-ddp test test-slow lint bench proto clean

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ -/'

setup: .venv/.done      ## a virtual environment with everything pinned in constraints.txt

.venv/.done: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,dev]'
	$(BIN)/python -m ps.server.compiling  # the kernels, so that shards start at once
	touch $@

train: setup     ## trains a click model on a year of flights through two shards launched by Ray
	$(BIN)/python -m worker.train --data flights --local 2

train-ddp: setup ## the same with two trainers, that push and exchange only the larger gradients
	$(BIN)/python -m worker.train --data flights --local 2 --trainers 2 --sparsify 0.2 --dense-density 0.1

test: setup      ## the tests, without those marked slow, in JOBS processes
	$(BIN)/python -m pytest -q -m "not slow" -n $(JOBS) --dist loadfile $(ARGS)

test-slow: setup ## the tests marked slow
	$(BIN)/python -m pytest -q -m slow $(ARGS)

lint: setup      ## ruff, mypy --strict, the layers, the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile

bench: setup     ## make bench NAME="pull push"
	$(BIN)/python -m benchmarks $(NAME)

proto: setup     ## regenerates ps/v1 from proto/ps/v1
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=. --pyi_out=. proto/ps/v1/embedding.proto proto/ps/v1/control.proto

clean:           ## removes the environment and every cache
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
