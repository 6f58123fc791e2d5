package inputs

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
)

// maxHelpWidth is the maximum width of help texts, in columns. On a narrower terminal they are as wide as the terminal.
const maxHelpWidth = 100

// Subcommand is a command of a program in its help text and in errors.
type Subcommand struct {
	Name string // without the program
	Help string
}

// globalFlags are the flags of every command that are no inputs. --help is kong's own.
type globalFlags struct {
	HelpAll helpAllFlag `help:"Show all flags."`
	Version versionFlag `short:"v" help:"Show the version."`
}

type helpAllFlag bool

// BeforeReset is called by kong when the flag is set.
func (helpAllFlag) BeforeReset(ctx *kong.Context, s *Source) error {
	if err := s.printHelp(ctx, true); err != nil {
		return err
	}
	ctx.Exit(0)
	return nil
}

type versionFlag bool

// BeforeReset is called by kong when the flag is set.
func (versionFlag) BeforeReset(ctx *kong.Context, s *Source) error {
	if _, err := fmt.Fprintln(ctx.Stdout, s.Version); err != nil {
		return err
	}
	ctx.Exit(0)
	return nil
}

// isInput reports whether a flag is an input, which can also be set with an INPUT_* variable.
func isInput(flag *kong.Flag) bool {
	return !slices.Contains([]string{"help", "help-all", "version"}, flag.Name)
}

// helpGroups holds the inputs in the order and under the titles of --help-all. In --help, groups with the same short
// title are one. Flags that are in none of the groups are listed last.
var helpGroups = []struct {
	title, short string
	inputs       []string
}{
	{"Source", "Source and image", []string{
		"ref", "context", "dockerfile", "target", "build_contexts", "git_context", "lfs", "submodules", "allow_untrusted_ref",
		"allow_untrusted_secrets",
	}},
	{"Image", "Source and image", []string{
		"image", "expect_image_id", "platform", "image_name", "build_args", "secrets", "secret_envs", "secret_files", "ssh",
		"labels", "default_labels", "annotations", "provenance", "sbom", "attests", "pull", "no_cache", "no_cache_filters",
		"network", "add_hosts", "allow", "shm_size", "ulimit", "cgroup_parent", "mount",
	}},
	{"Destinations", "Destinations", []string{"load", "push", "save", "save_tags", "outputs"}},
	{"Tests", "Tests", []string{"suite", "command", "run", "tags", "seed", "parallel", "allow_privileged"}},
	{"Snapshot", "Snapshot", []string{
		"name", "name_prefix", "cpu", "memory", "disk", "gpu", "sandbox_class", "entrypoint", "region", "variants",
		"if_exists", "attempts", "verify", "keep_failed", "keep", "make_room", "dry_run", "force",
	}},
	{"Name in Doppler", "Snapshot", []string{
		"to", "to_token", "require_verified", "update_doppler", "doppler_secret", "doppler_mirror", "doppler_configs",
		"doppler_history", "environment",
	}},
	{"Builder and credentials", "Builder and credentials", []string{
		"builder", "allow_plaintext_builder", "depot_project", "depot_token", "doppler_config", "doppler_project",
		"doppler_token", "doppler_identity", "daytona_api_key", "daytona_organization_id", "daytona_api_url", "github_token",
	}},
	{"Results", "Tests", []string{
		"output", "report", "report_dir", "previous_record", "previous_artifact", "comment", "doctor",
	}},
	{"Other", "Other", []string{"timeout", "verbose", "help", "help_all", "version"}},
}

// commonInputs returns the inputs that --help lists, or nil for all. The other flags are in --help-all.
func commonInputs(target any) []string {
	switch target.(type) {
	case *Build:
		return []string{
			"ref", "context", "dockerfile", "target", "platform", "image_name", "build_args", "secrets", "load", "push", "save",
			"builder", "depot_project", "doppler_config",
		}
	case *Test:
		return []string{
			"ref", "image", "suite", "command", "run", "tags", "parallel", "builder", "depot_project",
			"doppler_config", "report_dir", "output",
		}
	case *Snapshot:
		return []string{
			"ref", "image", "name", "cpu", "memory", "disk", "verify", "update_doppler", "builder", "depot_project",
			"doppler_config", "daytona_api_key",
		}
	case *Promote:
		return []string{"to", "name", "require_verified", "environment", "doppler_config", "daytona_api_key"}
	case *Rollback:
		return []string{"environment", "doppler_config", "doppler_secret", "daytona_api_key"}
	case *History:
		return []string{"doppler_config", "doppler_secret", "daytona_api_key"}
	case *ListSnapshots:
		return []string{"name_prefix", "doppler_config", "daytona_api_key"}
	case *DeleteSnapshot:
		return []string{"force", "doppler_config", "daytona_api_key"}
	}
	return nil
}

// shortHelp describes inputs in --help, in a few words.
var shortHelp = map[string]string{
	"ref":             "Branch, tag, commit or #PULL, not the workspace.",
	"context":         "Directory or URL of the build context.",
	"dockerfile":      "Path of the Dockerfile.",
	"target":          "Stage to build.",
	"platform":        "Platforms to build.",
	"image_name":      "Names in the local engine.",
	"build_args":      "Build arguments, NAME=VALUE.",
	"secrets":         "Build secrets, ID=VALUE.",
	"load":            "Load the image into the local Docker Engine.",
	"push":            "Image references to push.",
	"builder":         "depot or the address of a BuildKit.",
	"depot_project":   "Depot project, if depot.json does not name it.",
	"doppler_config":  "Doppler config with credentials and secrets.",
	"image":           "Existing image. --image= builds one.",
	"suite":           "Path of the test suite.",
	"command":         "Test command to run on this machine.",
	"run":             "Run only tests with matching names.",
	"tags":            "Run only tests with one of these tags.",
	"parallel":        "Containers to run in parallel.",
	"report_dir":      "Directory for reports.",
	"output":          "Format of the results on standard output.",
	"name":            "Name. Default: PREFIX-DATE-TIME-SHA-USER.",
	"cpu":             "CPU cores.",
	"memory":          "Memory in GB.",
	"disk":            "Disk in GB.",
	"verify":          "boot, suite, off, or the path of a suite.",
	"update_doppler":  "Set the name of the snapshot in Doppler.",
	"environment":     "GitHub environment of the deployment.",
	"doppler_secret":  "Doppler secret with the name of the snapshot.",
	"daytona_api_key": "Daytona API key. Default: DAYTONA_API_KEY.",
}

// printHelp prints the help text of the selected command, with all flags or the common ones.
func (s *Source) printHelp(ctx *kong.Context, all bool) error {
	common := commonInputs(s.target)
	total := 0
	for _, flag := range ctx.Model.Flags {
		if flag.Hidden {
			continue
		}
		total++
		name := inputName(Variable(flag.Name))
		if !all {
			flag.Hidden = common != nil && !slices.Contains(common, name)
			if flag.Help == help[name] { // not if the command has a text of its own
				flag.Help = cmp.Or(shortHelp[name], flag.Help)
			}
			flag.Group = &kong.Group{Key: shortTitle(flag.Group.Title), Title: shortTitle(flag.Group.Title)}
		}
		flag.Help += s.describeDefault(ctx, flag)
	}
	options := kong.HelpOptions{
		Compact: true, WrapUpperBound: maxHelpWidth, ValueFormatter: func(v *kong.Value) string { return v.Help },
	}
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
		return err
	}
	return s.printCommands(ctx, all || common == nil, total)
}

// printCommands prints the examples, the commands, and how to see more.
func (s *Source) printCommands(ctx *kong.Context, isAll bool, total int) error {
	var text strings.Builder
	if s.Examples != "" {
		text.WriteString("\nExamples:\n  " + strings.ReplaceAll(s.Examples, "\n", "\n  ") + "\n")
	}
	if len(s.Commands) > 0 {
		text.WriteString("\nCommands:\n")
		for _, command := range s.Commands {
			fmt.Fprintf(&text, "  %-12s%s\n", command.Name, command.Help)
		}
	}
	var more []string
	if !isAll {
		more = append(more, fmt.Sprintf("--help-all lists all %d flags.", total))
	}
	if len(s.Commands) > 0 {
		more = append(more, "COMMAND --help describes a command.")
	}
	if len(more) > 0 {
		text.WriteString("\n" + strings.Join(more, " ") + "\n")
	}
	_, err := fmt.Fprint(ctx.Stdout, text.String())
	return err
}

func shortTitle(title string) string {
	for _, group := range helpGroups {
		if group.title == title {
			return group.short
		}
	}
	return title
}

// describeDefault returns a sentence with the value that applies without the flag, and the variable that sets it.
func (s *Source) describeDefault(ctx *kong.Context, flag *kong.Flag) string {
	if !isInput(flag) {
		return ""
	}
	value, variable := s.lookup(flag, ctx.Model.Vars())
	switch value = cmp.Or(value, flag.Default); {
	case flag.Tag.Has("secret") && variable != "":
		return " Set by " + variable + "."
	case value == "" || flag.Tag.Has("secret") || value == "false" && variable == "" && !isNegatable(flag):
		return ""
	}
	value, _, isCut := strings.Cut(value, "\n")
	switch {
	case isCut:
		value += " …"
	case strings.HasSuffix(value, "."):
		value = strconv.Quote(value)
	}
	if variable != "" {
		return " Default: " + value + ", from " + variable + "."
	}
	return " Default: " + value + "."
}

func isNegatable(flag *kong.Flag) bool { return flag.Tag.Negatable != "" }

// arrangeFlags sorts the flags by their groups in the help text, and names their values.
func arrangeFlags(flags []*kong.Flag) {
	groupOf := func(flag *kong.Flag) (group, position int) {
		for i, g := range helpGroups {
			if n := slices.Index(g.inputs, inputName(Variable(flag.Name))); n >= 0 {
				return i, n
			}
		}
		return len(helpGroups) - 1, 0
	}
	for _, flag := range flags {
		group, _ := groupOf(flag)
		flag.Group = &kong.Group{Key: helpGroups[group].title, Title: helpGroups[group].title}
		if flag.PlaceHolder == "" {
			flag.PlaceHolder = strings.ToUpper(flag.Name[strings.LastIndex(flag.Name, "-")+1:])
		}
		if flag.Value.Target.Kind() == reflect.Slice {
			flag.Tag.Sep = -1 // no ",..." after the placeholder
		}
	}
	slices.SortStableFunc(flags, func(a, b *kong.Flag) int {
		groupA, positionA := groupOf(a)
		groupB, positionB := groupOf(b)
		return cmp.Or(cmp.Compare(groupA, groupB), cmp.Compare(positionA, positionB))
	})
}
