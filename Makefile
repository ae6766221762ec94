# The two commands of the README, demo and test. Each makes a virtual
# environment in .venv, installs what it needs, and runs.
PYTHON ?= python3
VENV := .venv
LOCKED := requirements/ci.txt
PIP = $(VENV)/bin/python -m pip install --quiet
# A process a core, of one thread: files of tests keep what they share.
PYTEST = OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --dist loadfile

.PHONY: demo test coverage minimum pytest lock clean

demo: $(VENV)/demo
	$(VENV)/bin/python recipes/OwnCorpus/run.py --output_folder=results/demo

test: $(VENV)/test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(PYTEST)

coverage: $(VENV)/test
	$(PYTEST) --cov

# The lowest versions that setup.py admits, in an environment of their own.
# What mypy finds depends on the versions, and is of the highest.
minimum:
	$(MAKE) pytest VENV=.venv-minimum LOCKED=requirements/minimum.txt

pytest: $(VENV)/test
	$(PYTEST)

# A file with the name of the extra stands for its installation.
$(VENV)/demo: setup.py
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[demo]'
	touch $@

# The list is whole. With dependencies, pip would look at newer releases of what
# is asked for with an extra (coverage[toml]), whose hashes the list has not.
$(VENV)/test: setup.py $(LOCKED)
	$(PYTHON) -m venv $(VENV)
	$(PIP) --no-deps --require-hashes --requirement $(LOCKED)
	$(PIP) --no-deps --no-build-isolation --editable .
	$(VENV)/bin/python -m pip check
	touch $@

# What is locked stays so where setup.py admits it: delete a line to renew it.
lock:
	$(PYTHON) -m venv $(VENV)
	$(PIP) uv
	$(VENV)/bin/uv $(LOCK) --output-file requirements/ci.txt
	$(VENV)/bin/uv $(LOCK) --resolution lowest-direct \
		--output-file requirements/minimum.txt
LOCK = pip compile --quiet --universal --python-version 3.10 \
	--no-python-downloads --no-annotate --generate-hashes --extra test setup.py

clean:
	rm -rf $(VENV) .venv-minimum results
