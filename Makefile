# make run: set up .venv and run the campaign of config/config.yaml. make test: set up .venv and run all tests;
# make test-cluster: tests on a real Slurm that they start on this machine; as root on Debian, elsewhere they are skipped.
# Needs Python 3.11 and make; no root. PYTHON=/path/to/python3.11 where python3 is another version.
PYTHON ?= python3
CORES ?= $(shell nproc)
.PHONY: setup sqs profiles run test test-fast test-cluster
.DEFAULT_GOAL := setup

setup: .venv/.setup-done

# A stamp is written last: a set-up that was killed half-way starts again from nothing.
.venv/.packages: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "$(PYTHON) is not Python 3.11; name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	rm -rf .venv
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --disable-pip-version-check --no-deps -r requirements.lock
	touch $@

.venv/.setup-done: .venv/.packages pyproject.toml
	.venv/bin/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

# For the config key `sqs`; needs a C++ compiler
sqs: setup
	.venv/bin/python -m pip install --disable-pip-version-check --no-deps -r requirements-sqs.lock

# snakemake --profile slurm, from any folder
profiles: setup
	@.venv/bin/python -m mlip_auto.profiles

run: setup
	.venv/bin/mlip-auto run --cores $(CORES)

test: setup
	.venv/bin/python -m pytest --ignore tests/cluster

test-fast: setup
	.venv/bin/python -m pytest -m "not slow"

test-cluster: export OMP_NUM_THREADS = 1
test-cluster: setup
	.ci/install slurmctld slurmctld slurmd slurm-client munge
	.venv/bin/python -m pytest tests/cluster
