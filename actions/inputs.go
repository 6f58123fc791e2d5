// Package actions holds the story of each action, top to bottom: Build, Snapshot.
package actions

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/agext/levenshtein"
	"github.com/alecthomas/kong"
)

// BuildInputs are the inputs of the build action: flags of the program (--depot-project), variables of a composite step
// (INPUT_DEPOT_PROJECT), rows of action.yml and of the README. An empty variable counts as not given.
type BuildInputs struct {
	Ref               string `help:"Branch, tag, SHA (full or short), refs/pull/N/merge, refs/pull/N/head or #N. Empty: the checkout as it is, or the event's commit where there is none."`
	AllowUntrustedRef bool   `help:"Build what a pull request of a fork, or anybody, may have written, although this run has secrets (pull_request_target, workflow_run, issue_comment). Such code can take all that the run may do: only after somebody has read it."`
	Platform          List   `help:"linux/amd64, linux/arm64 or both: each is built natively on its own machine, at the same time." default:"linux/amd64"`
	DopplerInputs
	Context        string        `help:"Build context: a folder, or a URL that the builder fetches." default:"."`
	Dockerfile     string        `help:"The Dockerfile, from the repository's root. Dockerfile is the one in the context, or sandbox/Dockerfile where there is none." default:"Dockerfile"`
	Target         string        `help:"Stage to build. Empty: the last."`
	ImageName      string        `help:"Name in the local engine." default:"iterate-sandbox:ci"`
	BuildArgs      Lines         `help:"Build arguments, NAME=VALUE, or NAME to take the environment's value. One a line."`
	BuildContexts  Lines         `help:"Named contexts, NAME=FOLDER, docker-image://, oci-layout:// or a URL. One a line."`
	Labels         Lines         `help:"Labels, NAME=VALUE. One a line."`
	Annotations    Lines         `help:"OCI annotations, [LEVEL[PLATFORM]:]NAME=VALUE. LEVEL is manifest, index, manifest-descriptor or index-descriptor. One a line."`
	Secrets        Lines         `help:"Build secrets, ID=VALUE. One a line." secret:""`
	SecretEnvs     List          `help:"Build secrets from the environment, ID=VARIABLE."`
	SecretFiles    Lines         `help:"Build secrets from files, ID=PATH. One a line."`
	SSH            List          `name:"ssh" help:"SSH agents or keys for steps, ID or ID=SOCKET or ID=KEY,KEY."`
	Allow          List          `help:"Entitlements: network.host, security.insecure."`
	AddHosts       List          `help:"Lines of /etc/hosts for steps, NAME=ADDRESS or NAME:ADDRESS."`
	NoCacheFilters List          `help:"Stages that are built anew."`
	Outputs        Lines         `help:"More outputs in BuildKit's syntax, such as type=local,dest=out. One a line."`
	Attests        Lines         `help:"Attestations, type=sbom or type=provenance with attributes. One a line."`
	NoCache        bool          `help:"Build every step anew."`
	Pull           bool          `help:"Look for newer base images."`
	Provenance     string        `help:"Provenance attestation: true, false, or attributes such as mode=max. Empty: mode=min for an image that is pushed or saved, else none."`
	SBOM           string        `name:"sbom" help:"SBOM attestation: true, false, or attributes such as generator=IMAGE."`
	Network        string        `help:"Network of RUN steps: default, none or host."`
	ShmSize        string        `help:"Size of /dev/shm for RUN steps, such as 2g."`
	Ulimit         Lines         `help:"Limits of RUN steps, NAME=SOFT[:HARD]. One a line."`
	CgroupParent   string        `help:"Parent cgroup of RUN steps."`
	GitContext     string        `help:"Name of an extra build context that holds the commit's .git, byte for byte the same on every machine."`
	Load           bool          `help:"Load the image into the local Docker Engine." default:"${load}" negatable:""`
	Push           Lines         `help:"Image references to push to. One a line."`
	Save           bool          `help:"Keep the image in Depot's registry."`
	SaveTags       Lines         `help:"Tags under which Depot's registry keeps it, besides the build's id. One a line."`
	DepotProject   string        `help:"Depot project. Else DEPOT_PROJECT_ID or depot.json."`
	DepotToken     string        `help:"Depot token. Else DEPOT_TOKEN, or GitHub OIDC: no stored token." secret:""`
	Builder        string        `help:"depot, or the address of a BuildKit (unix://, tcp://)." default:"depot"`
	GithubToken    string        `help:"Resolves and fetches ref." secret:""`
	Timeout        time.Duration `help:"For the whole action." default:"30m"`
}

// DopplerInputs say which Doppler config is read, and how it is entered.
type DopplerInputs struct {
	DopplerConfig   string `help:"Doppler config that supplies credentials and build secrets." default:"${doppler_config}"`
	DopplerProject  string `help:"Doppler project. A service token has its own."`
	DopplerToken    string `help:"Doppler service token. Else DOPPLER_TOKEN, or doppler_identity." secret:""`
	DopplerIdentity string `help:"Identity of a Doppler service account that is entered with GitHub OIDC: no stored token."`
}

// inputs is a struct of inputs: an action has those of build, and says where they differ.
type inputs interface {
	vars() kong.Vars             // defaults that differ from one action to the next
	atPrompt() map[string]string // defaults, by flag, where no workflow runs
}

func (*BuildInputs) vars() kong.Vars { return kong.Vars{"doppler_config": "", "load": "true"} }

func (*BuildInputs) atPrompt() map[string]string {
	return map[string]string{"platform": "linux/" + runtime.GOARCH, "image-name": "iterate-sandbox:local"}
}

// aliases are variables that a developer may have set; they yield to flags and INPUT_*.
var aliases = map[string]string{
	"platform":   "SANDBOX_BUILD_PLATFORM",
	"image-name": "LOCAL_DOCKER_IMAGE_NAME",
	"cpu":        "DAYTONA_DEFAULT_SNAPSHOT_CPU",
	"memory":     "DAYTONA_DEFAULT_SNAPSHOT_MEMORY",
	"disk":       "DAYTONA_DEFAULT_SNAPSHOT_DISK",
}

// Inputs says where inputs come from.
type Inputs struct {
	Program string // name of the program, for --help
	About   string
	Args    []string
	Environ []string // NAME=VALUE, as os.Environ
	Stdout  io.Writer
}

// ErrHelp says that --help was asked for and given.
var ErrHelp = errors.New("help was asked for")

// Parse fills target, a pointer to a struct of inputs. It returns warnings about variables that nobody reads.
//
// An error names the input, its value and what would be right.
func (in Inputs) Parse(target inputs) (warnings []string, err error) {
	env := map[string]string{}
	for _, line := range in.Environ {
		name, value, _ := strings.Cut(line, "=")
		env[name] = value
	}
	inActions := env["GITHUB_ACTIONS"] == "true"
	var known []string
	resolve := kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		if flag.Name == "help" {
			return nil, nil
		}
		for _, name := range []string{Variable(flag.Name), aliases[flag.Name]} {
			if value := env[name]; strings.TrimSpace(value) != "" {
				return value, nil
			}
		}
		if value, ok := target.atPrompt()[flag.Name]; ok && !inActions {
			return value, nil
		}
		return nil, nil
	})
	parser, err := kong.New(target,
		kong.Name(in.Program), kong.Description(in.About), kong.Resolvers(resolve), target.vars(),
		kong.Writers(in.Stdout, in.Stdout), kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if err != nil {
		return nil, err
	}
	for _, flag := range parser.Model.Flags {
		known = append(known, Variable(flag.Name))
	}
	if err := fill(parser, in.Args); errors.Is(err, ErrHelp) {
		return nil, err
	} else if err != nil {
		return nil, inputError(err, inActions)
	}
	for _, line := range in.Environ {
		name, _, _ := strings.Cut(line, "=")
		if strings.HasPrefix(name, "INPUT_") && !slices.Contains(known, name) {
			near := slices.MaxFunc(known, func(a, b string) int { return levenshtein.Distance(name, b, nil) - levenshtein.Distance(name, a, nil) })
			warnings = append(warnings, fmt.Sprintf("there is no input %s: did you mean %s?", inputName(name), inputName(near)))
		}
	}
	return warnings, nil
}

// fill takes the steps of parser.Parse, without its hooks and checks, of which we use none: they look methods up by name, for which the
// linker has to keep every exported method of every library, a quarter of the program.
func fill(parser *kong.Kong, args []string) error {
	given, err := kong.Trace(parser, args)
	if err != nil {
		return err
	}
	if given.Error != nil {
		return given.Error
	}
	if slices.ContainsFunc(given.Path, func(p *kong.Path) bool { return p.Flag == parser.Model.HelpFlag }) {
		return cmp.Or(given.PrintUsage(false), ErrHelp)
	}
	if err := given.Reset(); err != nil {
		return err
	}
	if err := given.Resolve(); err != nil {
		return err
	}
	if _, err := given.Apply(); err != nil {
		return err
	}
	for _, argument := range parser.Model.Positional {
		if argument.Required && !argument.Set {
			return fmt.Errorf("the argument <%s> is missing: %s", argument.Name, argument.Help)
		}
	}
	return nil
}

// Variable is the environment variable of a flag.
func Variable(flag string) string {
	return "INPUT_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func inputName(variable string) string {
	return strings.ToLower(strings.TrimPrefix(variable, "INPUT_"))
}

// inputError names an input as its reader wrote it: input load in a workflow, --load at a prompt.
func inputError(err error, inActions bool) error {
	message := err.Error()
	flag, rest, ok := strings.Cut(message, ": ")
	if ok && inActions && strings.HasPrefix(flag, "--") && !strings.Contains(flag, " ") {
		flag, _, _ = strings.Cut(strings.TrimPrefix(flag, "--"), "=")
		flag = strings.TrimPrefix(flag, "[no-]")
		return fmt.Errorf("input %s: %s", strings.ReplaceAll(flag, "-", "_"), rest)
	}
	return errors.New(message)
}

// secretsOf returns the values of the fields that are marked secret.
func secretsOf(inputs any) []string {
	var values []string
	v := reflect.ValueOf(inputs)
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if field.Anonymous {
			values = append(values, secretsOf(v.Field(i).Interface())...)
		}
		if _, ok := field.Tag.Lookup("secret"); !ok {
			continue
		}
		switch value := v.Field(i).Interface().(type) {
		case string:
			values = append(values, value)
		case Lines:
			for _, line := range value {
				_, secret, _ := strings.Cut(line.Text, "=")
				values = append(values, secret)
			}
		}
	}
	return values
}
