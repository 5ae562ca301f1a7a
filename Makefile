# Two commands for a fresh machine: `make demo` installs and runs the main job, `make test` installs and passes the tests.
VENV := .venv
PYTHON ?= python3

.PHONY: demo test check docs campaigns bench profile trackers

demo: $(VENV)/.demo
	$(VENV)/bin/earnest train higgs-tiny

test: $(VENV)/.test
	$(VENV)/bin/python -m pytest -n logical --dist loadfile

check: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python
	PATH="$(abspath $(VENV))/bin:$$PATH" python .ci/strict.py

# the documentation as a site, in site/
docs: $(VENV)/.test $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(VENV)/bin/mkdocs build --quiet

# the four trackers, installed and followed: their tests are skipped where they are not there
trackers: $(VENV)/.test $(VENV)/.trackers
	$(VENV)/bin/python -m pytest tests/test_trackers.py

# Minutes of kills, full disks, damage, races, bombs and fuzzing each: docs/reliability.md
campaigns: $(VENV)/.test
	$(VENV)/bin/python -m benchmarks.campaigns all $(SECONDS_EACH)

# Ratios to peers, with ceilings: docs/performance.md; where the time of a group goes: make profile NAME=train-higgs
bench: $(VENV)/.test
	$(VENV)/bin/python -m benchmarks.bench

profile: $(VENV)/.test
	$(VENV)/bin/python -m benchmarks.bench --profile $(NAME)

$(VENV)/.%: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet torch -c constraints.txt
	$(VENV)/bin/python -m pip install --quiet --editable ".[$*]" -c constraints.txt
	touch $@
