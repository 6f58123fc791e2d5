# shellcheck shell=sh disable=SC2034 # the scripts that source this file use the variables
# Build settings of a release: the same source, toolchain and settings produce the same bytes on every machine.
# actions/run.sh and the release scripts source this file in the root of the repository.

# The Go version that builds a release, such as go1.26.10: go.mod's toolchain line, or its go line if that is missing.
go_toolchain=$(sed -n -e 's/^go /go/p' -e 's/^toolchain //p' go.mod | tail -n 1)

# link_flags VERSION prints the value of -ldflags. An empty version marks a build from source.
link_flags() {
	printf '%s' "-s -w -buildid=${1:+ -X github.com/org/sandbox-actions/actions.Version=$1}"
}

# Override settings of the caller that would change the bytes.
unset GOOS GOARCH GOROOT
# Build without gRPC's tracing pages: they are HTML templates, which call methods by name, so the linker would keep
# every exported method of every library.
export GOFLAGS='-mod=readonly -trimpath -buildvcs=false -tags=grpcnotrace'
export CGO_ENABLED=0 GOAMD64=v1 GOARM64=v8.0 GOEXPERIMENT='' GOFIPS140=off GOWORK=off
