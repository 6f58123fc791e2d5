package inputs

// help describes each input, for --help, action.yml, the workflows and docs/reference.md.
var help = map[string]string{
	"ref": "Branch, tag, commit SHA (full or short), refs/pull/N/merge, refs/pull/N/head or #N. Default: the " +
		"checkout, including uncommitted changes, or the event's commit if there is no checkout.",
	"allow_untrusted_ref": "Build code that may be from a fork although this run has secrets. Such code has access to " +
		"what the job has, except the secrets of doppler_config. Set it only after a review.",
	"allow_untrusted_secrets": "With allow_untrusted_ref, also give the build the secrets of doppler_config.",
	"platform": "linux/amd64, linux/arm64 or both. Each platform is built natively on its own machine, in " +
		"parallel.",
	"context": "Build context: a directory, or a URL that the builder fetches.",
	"dockerfile": "Path of the Dockerfile, relative to the repository root. The default is the Dockerfile in the " +
		"context, or sandbox/Dockerfile if the context has none.",
	"target":         "Stage to build. Default: the last stage.",
	"image_name":     "Image name in the local engine.",
	"build_args":     "Build arguments, NAME=VALUE, or NAME for the value of that environment variable. One per line.",
	"build_contexts": "Named contexts, NAME=DIRECTORY, docker-image://, oci-layout:// or a URL. One per line.",
	"labels":         "Labels, NAME=VALUE. One per line.",
	"annotations": "OCI annotations, [LEVEL[PLATFORM]:]NAME=VALUE. LEVEL is manifest, index, manifest-descriptor or " +
		"index-descriptor. One per line.",
	"secrets":          "Build secrets, ID=VALUE. One per line.",
	"secret_envs":      "Build secrets from environment variables, ID=VARIABLE.",
	"secret_files":     "Build secrets from files, ID=PATH. One per line.",
	"ssh":              "SSH agent sockets or keys for build steps, ID, ID=SOCKET or ID=KEY,KEY.",
	"allow":            "Entitlements: network.host, security.insecure.",
	"add_hosts":        "Entries of /etc/hosts for build steps, NAME=ADDRESS or NAME:ADDRESS.",
	"no_cache_filters": "Stages to build without the cache.",
	"outputs":          "Additional outputs in BuildKit's syntax, for example type=local,dest=out. One per line.",
	"attests":          "Attestations, type=sbom or type=provenance with attributes. One per line.",
	"no_cache":         "Build every step without the cache.",
	"pull":             "Check for newer base images.",
	"provenance": "Provenance attestation: true, false, or attributes, for example mode=max. Default: mode=min for an " +
		"image that is pushed or saved, otherwise none.",
	"sbom":          "SBOM attestation: true, false, or attributes, for example generator=IMAGE.",
	"network":       "Network of RUN steps: default, none or host.",
	"shm_size":      "Size of /dev/shm for RUN steps, for example 2g.",
	"ulimit":        "Limits of RUN steps, NAME=SOFT[:HARD]. One per line.",
	"cgroup_parent": "Parent cgroup of RUN steps.",
	"git_context": "Name of an additional build context that contains the commit's .git directory, byte for byte the " +
		"same on every machine. auto: git, unless there is no commit or build_contexts has that name. none: no such " +
		"context. The default on the command line is auto.",
	"load":          "Load the image into the local Docker Engine.",
	"push":          "Image references to push. One per line.",
	"save":          "Save the image in Depot's registry.",
	"save_tags":     "Tags for the saved image, in addition to the build ID. One per line.",
	"depot_project": "Depot project ID. Default: DEPOT_PROJECT_ID, then depot.json.",
	"depot_token":   "Depot token. Default: DEPOT_TOKEN, then GitHub OIDC, which needs no stored token.",
	"builder":       "depot, or the address of a BuildKit daemon (unix://, tcp://).",
	"allow_plaintext_builder": "Connect to a builder on another machine without TLS. The network can then read and " +
		"change the source code, the secrets and the image.",
	"github_token":    "GitHub token to resolve and fetch ref.",
	"timeout":         "Time limit for the whole action.",
	"doppler_config":  "Doppler config that supplies credentials and build secrets.",
	"doppler_project": "Doppler project. A service token implies its project.",
	"doppler_token":   "Doppler service token. Default: a token for doppler_identity if set, otherwise DOPPLER_TOKEN.",
	"doppler_identity": "Identity of a Doppler service account to authenticate with GitHub OIDC, which needs no stored " +
		"token.",
	"image": "Existing image to use instead of building: a name in the local engine, a registry reference, or " +
		"the directory of an OCI layout (./DIRECTORY).",
	"name":        "Name of the snapshot. Default: PREFIX-DATE-TIME-SHA-USER.",
	"name_prefix": "First part of the generated name. Reuse and keep apply to the snapshots with this prefix.",
	"cpu":         "CPU cores of a sandbox.",
	"memory":      "Memory of a sandbox, in GB.",
	"disk":        "Disk of a sandbox, in GB.",
	"entrypoint":  "Entry point that replaces the image's, in shell syntax.",
	"region":      "Daytona region, by ID or name. Default: the organization's default region.",
	"if_exists":   "What to do if the snapshot exists: reuse (only if its image has the same digest), replace or fail.",
	"keep": "After success, keep the newest N snapshots with this prefix and delete older ones. 0 keeps all. " +
		"Snapshots that a Doppler config names are kept, as far as the Doppler token can read the configs.",
	"update_doppler":          "Set DAYTONA_SNAPSHOT_NAME, and VITE_DAYTONA_SNAPSHOT_NAME as a reference to it.",
	"dry_run":                 "With --keep: only print which snapshots would be deleted.",
	"daytona_api_key":         "Daytona API key. Default: DAYTONA_API_KEY from Doppler, then from the environment.",
	"daytona_organization_id": "Daytona organization. Default: DAYTONA_ORG_ID from Doppler, then from the environment.",
	"daytona_api_url": "URL of Daytona's API. Default: DAYTONA_API_URL from Doppler, then from the environment, then " +
		"Daytona's public API.",
	"suite": "Path of the test suite. If command is set, the default suite may be missing, and none skips it.",
	"allow_privileged": "Let tests of the suite run privileged containers (privileges: all). Code in such a container " +
		"controls the machine.",
	"command": "Test command to run on the host, in the tested commit's files. It gets RUN_LOCAL_DOCKER_TESTS=true, " +
		"LOCAL_DOCKER_IMAGE_NAME, DOCKER_HOST and TEST_REPORT_DIR. Tests in the JUnit XML files that it writes to " +
		"TEST_REPORT_DIR are counted.",
	"parallel": "Containers to run in parallel: a number, or cores.",
	"report_dir": "Directory for the JUnit XML report and the container logs of failed tests. Default: test-results in " +
		"RUNNER_TEMP, outside the workspace, so that later builds do not contain it. On the command line, test-results in " +
		"the current directory.",
	"run":    "Run only tests with names that match this regular expression.",
	"tags":   "Run only tests that have one of these tags.",
	"seed":   "Seed from the log of an earlier run, to repeat its order.",
	"output": "json writes the report to standard output as JSON, instead of the outputs.",
	"mount":  "Mount the current directory read-only at the image's working directory.",
}
