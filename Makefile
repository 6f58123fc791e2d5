# Each target installs and builds what it needs into .cache, once.
.PHONY: demo test race fuzz lint generate release clean

demo: ## The sandbox image from source to a Daytona snapshot, on this machine: up to 7 minutes, then about one.
	@scripts/demo.sh

test: ## All tests, against real daemons on loopback.
	@scripts/setup.sh test
	@scripts/test.sh

race: ## The tests of the packages that run concurrently, with the race detector.
	@scripts/setup.sh test
	@scripts/test.sh -race ./pkg/... ./actions/...

fuzz: ## Every fuzz test for 20 s; `scripts/fuzz.sh 10m FuzzParse` runs one for longer.
	@scripts/fuzz.sh

generate: ## action.yml, the workflows and docs/reference.md from pkg/inputs.
	@go generate ./...

lint: ## Formatting, go vet, staticcheck, actionlint, shellcheck, known vulnerabilities.
	@scripts/setup.sh lint
	@scripts/lint.sh

release: ## The programs, sums, SBOM, licences and the tagged commit of a release, into dist/VERSION: make release VERSION=v1.2.3
	@scripts/release.sh "$$VERSION"

clean: ## Removes what the other targets created.
	@rm -rf .cache dist test-results
