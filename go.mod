module github.com/org/sandbox-actions

go 1.26.8

require (
	connectrpc.com/connect v1.21.1 // indirect
	github.com/alecthomas/kong v1.17.0 // indirect
	github.com/coreos/go-oidc/v3 v3.21.0 // indirect
	github.com/depot/depot-go v0.5.1 // indirect
	github.com/distribution/distribution/v3 v3.1.2 // indirect
	github.com/distribution/reference v0.6.0 // indirect
	github.com/google/go-containerregistry v0.22.1 // indirect
	github.com/google/go-github/v62 v62.0.0 // indirect
	github.com/moby/buildkit v0.34.2 // indirect
	github.com/opencontainers/go-digest v1.0.0 // indirect
	github.com/opencontainers/image-spec v1.1.1 // indirect
	github.com/sethvargo/go-githubactions v1.3.1 // indirect
	golang.org/x/sync v0.24.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)
