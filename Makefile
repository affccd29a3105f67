# Both `make demo` and `make test` take a bare machine to the end: see README.md.

VENV := .venv
# What is run after the set-up is found in the environment first; the set-up itself must not take that for the machine's.
RUN := exec env PATH="$(CURDIR)/$(VENV)/bin:$(PATH)"
# Labs of their own, beside one that somebody plays in (/run/mutauth-lab, 127.0.0.10).
DEMO_LAB := --dir /run/mutauth-demo --address auto
TEST_LAB := --dir /run/mutauth-test --address auto
SECOND_LAB := --dir /run/mutauth-test-2 --address auto
INTEROP_LAB := --dir /run/mutauth-interop --address auto

.PHONY: demo docs pictures screenshots test interop ldap3 constraints reference lint fuzz clean

demo:
	@tools/bootstrap
	@$(RUN) mutauth lab run $(DEMO_LAB) -- python demo/main_job.py

test:
	@tools/bootstrap test
	@$(RUN) python tests/run.py --no-skips --lab "$(TEST_LAB)" --lab "$(SECOND_LAB)"

interop:
	@tools/bootstrap interop
	@$(RUN) mutauth lab run $(INTEROP_LAB) -- python tests/run.py --no-skips interop

# `make test` takes the stable ldap3. What is to come is tried with what depends on it most.
NEXT_LDAP3 := 2.10.2rc4
DIRECTORY_TESTS := $(addprefix tests.integration.test_,directory groups installation failover rogue_controller spn_commands rnr)

ldap3:
	@tools/bootstrap test
	@$(RUN) tools/with-ldap3 $(NEXT_LDAP3) mutauth lab run $(TEST_LAB) -- python tests/run.py --no-skips $(DIRECTORY_TESTS)

# Seconds for each of the targets, two of which run at a time.
FUZZ_SECONDS := 4

fuzz:
	@tools/bootstrap fuzz
	@$(RUN) python -m fuzz --seconds $(FUZZ_SECONDS)

# Warnings are errors; the pages can be read in the repository, too.
docs:
	@tools/bootstrap docs
	@$(RUN) python -m sphinx -b html -E -a -q -n -W --keep-going -d build/docs/doctrees docs build/docs/html
	@echo "docs: build/docs/html/index.html"

constraints:
	@tools/bootstrap test
	@tools/constraints

reference:
	@tools/bootstrap test
	@$(RUN) python -m mutauth_twisted.cli.reference > docs/reference/options.md
	@$(RUN) python -m mutauth_twisted.cli.configreference > docs/reference/mutauth.toml

# docs/machines.md's, drawn from the code.
pictures:
	@tools/bootstrap docs
	@$(RUN) python -m docs.machines
	@$(RUN) python -m docs.floors

# docs/monitoring.md's, by Chromium.
screenshots:
	@tools/bootstrap interop
	@$(RUN) python -m interop.screenshots

lint:
	@tools/bootstrap test
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy

clean:
	rm -rf $(VENV) $(VENV)-bench build dist *.egg-info _trial_temp* .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
