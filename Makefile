# What each installs or builds is kept in .cache, and done once.
.PHONY: demo test lint release clean

demo: ## The sandbox image from source to a Daytona snapshot, on this machine: up to 7 minutes, then about one.
	@scripts/demo.sh

test: ## Every test, with the race detector, against real daemons on loopback.
	@scripts/setup.sh test
	@scripts/test.sh

lint: ## gofmt, vet, staticcheck, actionlint, shellcheck.
	@scripts/setup.sh lint
	@scripts/lint.sh

release: ## The programs, sums, SBOM, licences and the tagged commit of a release, into dist/VERSION: make release VERSION=v1.2.3
	@scripts/release.sh "$$VERSION"

clean: ## Removes what the other targets created.
	@rm -rf .cache dist test-results
