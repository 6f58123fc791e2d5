package inputs

// help describes each input, for --help, action.yml, the workflows and docs/reference.md.
var help = map[string]string{
	"ref": "Branch, tag, commit SHA (full or short), refs/pull/N/merge, refs/pull/N/head or #N. Default: the " +
		"checkout, including uncommitted changes, or the event's commit if there is no checkout.",
	"allow_untrusted_ref": "Build code that may be from a fork although this run has secrets. Such code has access to " +
		"what the job has, except the secrets of doppler_config. Set it only after a review.",
	"allow_untrusted_secrets": "With allow_untrusted_ref, also give the build the secrets of doppler_config.",
	"submodules": "Submodules to fetch with the commit: true, or recursive for those of submodules, too. Default: " +
		"false. Other servers than the GitHub server need HTTPS URLs. Private submodules need a github_token that can " +
		"read them.",
	"lfs": "Download the content of the commit's Git LFS files. With false, the files contain pointers.",
	"platform": "linux/amd64, linux/arm64, another platform, local for this machine's, or several. Depot builds " +
		"linux/386 on its amd64 machines and linux/arm/v6, v7 and v8 on its arm64 machines; your own BuildKit builds what " +
		"it supports.",
	"context": "Build context: a directory, a URL that the builder fetches, {{defaultContext}} for the event's commit, " +
		"or {{defaultContext}}:DIRECTORY for a directory of it, to which dockerfile is then relative.",
	"dockerfile": "Path of the Dockerfile, relative to the repository root or, for a context that is a URL, to that " +
		"context; or - for the standard input. Default: the Dockerfile in the context, or sandbox/Dockerfile if the " +
		"context has none.",
	"target":     "Stage to build. Default: the last stage.",
	"image_name": "Image names in the local engine, comma-separated or one per line.",
	"build_args": "Build arguments, NAME=VALUE, or NAME for the value of that environment variable. One per line.",
	"build_contexts": "Named contexts, NAME=DIRECTORY, docker-image://, oci-layout://, {{defaultContext}} or a URL. " +
		"NAME is a stage or an image: x also replaces docker.io/library/x:latest. One per line.",
	"labels": "Labels, NAME=VALUE. One per line. They replace default labels and those of the Dockerfile.",
	"default_labels": "Label the image with its commit: org.opencontainers.image.revision, source, created (the " +
		"commit's time) and version (the branch or tag), unless the Dockerfile or labels sets them. With false, a commit " +
		"that changes no file of the image does not change the image.",
	"annotations": "OCI annotations, [LEVEL[PLATFORM],…:]NAME=VALUE. LEVEL is manifest, index, manifest-descriptor or " +
		"index-descriptor. One per line.",
	"secrets":      "Build secrets, ID=VALUE. One per line. Empty secrets are left out with a warning.",
	"secret_envs":  "Build secrets from environment variables, ID=VARIABLE. Unset variables are left out with a warning.",
	"secret_files": "Build secrets from files, ID=PATH. One per line. Missing files are left out with a warning.",
	"ssh":          "SSH agent sockets or keys for build steps, ID, ID=SOCKET or ID=KEY,KEY. One per line.",
	"allow":        "Entitlements: network.host, security.insecure. network: host implies network.host.",
	"add_hosts": "Entries of /etc/hosts for build steps, NAME=ADDRESS[,ADDRESS] or NAME:ADDRESS. With your own " +
		"BuildKit, ADDRESS can be host-gateway.",
	"no_cache_filters": "Stages to build without the cache.",
	"outputs": "Additional outputs in BuildKit's syntax, for example type=local,dest=out. One per line. type=docker " +
		"without dest loads the image.",
	"attests":  "Attestations, type=sbom or type=provenance with attributes. One per line.",
	"no_cache": "Build every step without the cache.",
	"pull":     "Check for newer base images.",
	"provenance": "Provenance attestation: true, false, or attributes, for example mode=max. Default: mode=min for an " +
		"image that is pushed or saved, otherwise none.",
	"sbom":          "SBOM attestation: true, false, or attributes, for example generator=IMAGE.",
	"network":       "Network of RUN steps: default, none or host.",
	"shm_size":      "Size of /dev/shm for RUN steps, for example 2g.",
	"ulimit":        "Limits of RUN steps, NAME=SOFT[:HARD]. One per line.",
	"cgroup_parent": "Parent cgroup of RUN steps.",
	"git_context": "Name of an additional build context that contains the commit's .git directory, byte for byte the " +
		"same on every machine. auto: git, if the source is a commit and build_contexts does not have that name. " +
		"none: no additional context. The default on the command line is auto.",
	"load":          "Load the image into the local Docker Engine.",
	"push":          "Image references to push, comma-separated or one per line. Empty pushes nothing.",
	"save":          "Save the image in Depot's registry.",
	"save_tags":     "Tags for the saved image, in addition to the build ID, comma-separated or one per line.",
	"depot_project": "Depot project ID. Default: DEPOT_PROJECT_ID, then the nearest depot.json.",
	"depot_token": "Depot token. Default: DEPOT_TOKEN, then OIDC, which needs no stored token. On the command line, " +
		"depot login.",
	"builder": "depot, or the address of a BuildKit daemon (unix://, tcp://).",
	"allow_plaintext_builder": "Connect to a builder on another machine without TLS. The network can then read and " +
		"change the source code, the secrets and the image.",
	"github_token": "GitHub token to resolve and fetch ref, its submodules and Git LFS files, and git contexts on the " +
		"GitHub server.",
	"timeout": "Time limit for the whole action.",
	"doctor": "If the run fails, check git, the Docker Engine, the builder, Doppler, Daytona, registry logins, the " +
		"clock and the proxy for at most 20 seconds, and add a line for each to the log, in the group Diagnosis.",
	"doppler_config": "Doppler config that supplies credentials and build secrets. Default for a snapshot: " +
		"DOPPLER_CONFIG, the config of the service token or, on the command line, of doppler setup, then dev.",
	"doppler_project": "Doppler project. A service token implies its project. Default: DOPPLER_PROJECT or, on the " +
		"command line, the project of doppler setup.",
	"doppler_token": "Doppler service token. Default: a token for doppler_identity if set, otherwise DOPPLER_TOKEN.",
	"doppler_identity": "Identity of a Doppler service account to authenticate with GitHub OIDC, which needs no stored " +
		"token.",
	"image": "Existing image to use instead of building: a name in the local engine, a registry reference, or " +
		"the directory of an OCI layout (./DIRECTORY).",
	"expect_image_id": "ID that the image must have, for example the output image_id of the test action. With another " +
		"ID, the action fails before it pushes.",
	"name": "Name of the snapshot. Default: PREFIX-DATE-TIME-SHA-USER.",
	"name_prefix": "First part of the generated name. Reuse and keep apply to the snapshots with this prefix. " +
		"Default: the repository's name with -sandbox, unless it contains that word.",
	"cpu":    "CPU cores of a sandbox.",
	"memory": "Memory of a sandbox, in GB.",
	"disk":   "Disk of a sandbox, in GB.",
	"gpu":    "GPUs of a sandbox.",
	"sandbox_class": "Daytona's class of sandbox, for example container, linux-vm or android. Default: the server's, " +
		"usually container.",
	"entrypoint": "Command that replaces the image's ENTRYPOINT and CMD, in shell syntax.",
	"region":     "Daytona region, by ID or name. Default: the organization's default region.",
	"variants": "Snapshots to create from the one image, NAME: SETTING=VALUE,…, one per line. The settings are cpu, " +
		"memory, disk, gpu, sandbox_class, region and doppler_secret. Those that a line omits are the inputs. NAME ends " +
		"the name_prefix, the name and, in upper case, doppler_secret. Doppler is updated after all are active and verified.",
	"attempts": "How often to create a snapshot at most, if Daytona fails for a reason of its own.",
	"make_room": "If the organization has its maximum number of snapshots, delete as many of the least recently used " +
		"as needed, by the rules of keep.",
	"if_exists": "What to do if the snapshot exists: reuse (only if its image has the same digest), replace or fail.",
	"verify": "How a snapshot is verified before Doppler names it: boot (a sandbox of it starts, runs a command, and " +
		"its entry point keeps running), suite (boot, then the test suite runs in the sandbox), the path of another suite, " +
		"or off. Default: boot if the key has the permissions write:sandboxes and delete:sandboxes, except for a reused " +
		"snapshot that the Doppler configs name already. Otherwise, a warning says that the snapshot is not verified.",
	"keep_failed": "Keep a snapshot that fails the verification, to examine it. Doppler never names it.",
	"keep": "After success, keep the newest N snapshots with generated names of this prefix and delete older ones. 0 " +
		"keeps all. Snapshots that sandboxes use or a Doppler config names are kept, and all of them if the Doppler token " +
		"cannot read every config of the project.",
	"update_doppler": "Set doppler_secret to the name of the snapshot. true fails without a Doppler token. Default: " +
		"true if there is a Doppler token or an input selects a config.",
	"doppler_secret": "Doppler secret that contains the name of the snapshot. keep and delete protect the snapshots " +
		"that it names.",
	"doppler_mirror": "Doppler secret to set to a reference to doppler_secret, for example VITE_DAYTONA_SNAPSHOT_NAME. " +
		"Default: VITE_ and doppler_secret, in configs that have that secret.",
	"doppler_configs": "Doppler configs to write, CONFIG or PROJECT.CONFIG. Default: the config that is read.",
	"doppler_history": "Keep the last names in doppler_secret with the suffix _HISTORY, for rollback and history.",
	"environment": "GitHub environment for which to record a deployment of the snapshot's commit. Needs the " +
		"permission deployments: write.",
	"to": "Doppler configs that name the snapshot, CONFIG or PROJECT.CONFIG. Default project: that of doppler_config.",
	"to_token": "Doppler token that writes to, for example a service token of that config. Default: the token that " +
		"reads doppler_config.",
	"require_verified":        "Fail if the history of doppler_config does not show that the snapshot was verified.",
	"force":                   "Delete the snapshot although a Doppler config names it or sandboxes use it.",
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
		"TEST_REPORT_DIR and its subdirectories are counted.",
	"parallel": "Containers to run in parallel: a number, or cores.",
	"report_dir": "Directory for the report, the JUnit XML report of a suite, and the container logs of failed tests. " +
		"Default: test-results in RUNNER_TEMP, outside the workspace, so that later builds do not contain it. On the " +
		"command line, test-results in the current directory. Each step of a job needs its own for report.",
	"run":  "Run only tests with names that match this regular expression.",
	"tags": "Run only tests that have one of these tags.",
	"seed": "Seed from the log of an earlier run, to repeat its order.",
	"report": "Write the report of the run to report_dir: report.html for a browser, and record.json, with which the " +
		"next run is compared.",
	"previous_record": "Path of the record.json of an earlier run to compare the image with. Default: record.json in " +
		"report_dir, if it exists.",
	"previous_artifact": "Name of the artifact to which the workflow uploads the report, to compare the image with that " +
		"of the last run on this branch or, without one, on the base or default branch. NAME also selects NAME-N, with the " +
		"attempt N of the run. Needs the permission actions: read.",
	"comment": "Show the result in a comment on the pull request, which later runs update. Needs the permission " +
		"pull-requests: write. true, false, or a name. The jobs of a matrix need different names, because each has a " +
		"comment of its own.",
	"output": "What to write to standard output: text for people, env for the outputs as NAME=VALUE, or json for the " +
		"record of the run, also if it fails. Default: text at a terminal and in GitHub Actions, otherwise env.",
	"mount": "Mount the current directory read-only at the image's working directory.",
}

// Help of the inputs of promote that differ from those of snapshot.
const (
	promotedImageHelp = "Registry reference of the snapshot's image. It is read only if a config of to belongs to " +
		"another Daytona organization. Default: the one in the history of doppler_config."
	promotedRegionHelp = "Daytona region that the snapshot must be in, by ID or name. Default: DAYTONA_TARGET of the " +
		"config in to, if it is set."
)
