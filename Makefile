# Each target installs and builds its dependencies into .cache on first use.
.PHONY: demo pictures test race soak fuzz bench growth lint generate release clean

demo: ## Build, test and snapshot the sandbox image on this machine: up to 8 minutes, later runs about two.
	@scripts/demo.sh

pictures: ## Create docs/images from the summaries and the report of the demo: a minute after make demo.
	@scripts/setup.sh test
	@scripts/pictures.sh docs

test: ## Run all tests, with real daemons on loopback.
	@scripts/setup.sh test
	@scripts/test.sh

race: ## Run the tests of pkg and actions with the race detector.
	@scripts/setup.sh test
	@scripts/test.sh -race ./pkg/... ./actions/...

soak: ## Run the programs under faults and write docs/reliability.md: 30 minutes.
	@scripts/setup.sh test
	@scripts/test.sh ./internal/soak -timeout 60m -full

fuzz: ## Run each fuzz test for 20 s. `scripts/fuzz.sh 10m FuzzParse` runs one for 10 minutes.
	@scripts/fuzz.sh

bench: ## Compare with the Depot CLI, docker and buildctl: 25 minutes. ARGS='-run Peers/cached' selects rows.
	@scripts/setup.sh test
	@scripts/bench.sh -run Peers $(ARGS)

growth: ## Measure how runs grow with their input: 10 minutes. ARGS=-large adds 4 GB of context and an image of 5 GB.
	@scripts/setup.sh test
	@scripts/bench.sh -run Growth $(ARGS)

generate: ## Generate action.yml, the workflows and docs/reference.md from pkg/inputs.
	@go generate ./...

lint: ## Check formatting, Go, workflows, shell scripts, modules and known vulnerabilities.
	@scripts/setup.sh lint
	@scripts/lint.sh

release: ## Create a release in dist/VERSION and its tagged commit: make release VERSION=v1.2.3
	@scripts/release.sh "$$VERSION"

clean: ## Remove what the other targets created.
	@rm -rf .cache demo-results dist test-results
