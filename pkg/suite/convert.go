package suite

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/joho/godotenv"
	"go.yaml.in/yaml/v3"
)

// Warning reports a part of a converted file that is left out or behaves differently.
type Warning struct {
	Line    int // of the file to convert
	Message string
}

// Convert converts a file of container-structure-test (schema 1.0.0 or 2.0.0; see
// https://github.com/GoogleContainerTools/container-structure-test) to a suite with the same verdicts as those of its
// Docker driver. The name of the file decides whether it is JSON (.json) or YAML. Convert warns about each test that
// can have another verdict. For a file with a test that cannot pass, it returns an [*InvalidError].
func Convert(file string, data []byte) ([]byte, []Warning, error) {
	c := &converter{parsedFile: &parsedFile{}, names: map[string]bool{}}
	var suite Document
	if source := c.parse(file, data); source != nil {
		suite = c.convert(source)
	}
	if len(c.problems) == 0 && len(suite.Tests) == 0 {
		c.addf(1, "file has no tests that can be converted")
	}
	if err := c.err(file); err != nil {
		return nil, nil, err
	}
	c.finishReferences(&suite)
	var b bytes.Buffer
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(suite); err != nil {
		return nil, nil, fmt.Errorf("write the suite: %w", err)
	}
	return b.Bytes(), c.warnings, encoder.Close()
}

type converter struct {
	*parsedFile
	names    map[string]bool // of the tests so far
	warnings []Warning

	global  map[string]string // globalEnvVars, with references (see replaceWith)
	changes []string          // of all command tests
	mounts  []string          // targets of the mounts that are left out
}

func (c *converter) warnf(line int, format string, args ...any) {
	c.warnings = append(c.warnings, Warning{max(line, 1), fmt.Sprintf(format, args...)})
}

// changef adds a difference of every command test: the end of a sentence that begins with the test.
func (c *converter) changef(format string, args ...any) {
	c.changes = append(c.changes, fmt.Sprintf(format, args...))
}

// Limits of container-structure-test's containers. It has none, but a suite always has some.
const (
	convertedTimeout = 24 * time.Hour
	convertedPIDs    = 4194304 // the kernel's maximum
	convertedOutput  = 1 << 30
)

func (c *converter) convert(source *structureTest) Document {
	c.global = c.pairs(location{"globalEnvVars"}, source.GlobalEnvVars, replaceWith(nil))
	for _, mount := range source.ContainerRunOptions.BindMounts {
		c.bindMount(c.line(location{"containerRunOptions"}), mount)
	}
	var suite Document
	if len(source.CommandTests)+len(source.LicenseTests) > 0 {
		suite.Defaults = c.defaults(source)
	}
	add := func(t *Test) {
		if t != nil {
			suite.Tests = append(suite.Tests, t)
		}
	}
	for i := range source.CommandTests {
		add(c.commandTest(location{"commandTests", strconv.Itoa(i)}, &source.CommandTests[i], source))
	}
	for i := range source.FileExistenceTests {
		add(c.existenceTest(location{"fileExistenceTests", strconv.Itoa(i)}, &source.FileExistenceTests[i], source))
	}
	for i := range source.FileContentTests {
		add(c.contentTest(location{"fileContentTests", strconv.Itoa(i)}, &source.FileContentTests[i], source))
	}
	for _, check := range c.imageChecks(&source.MetadataTest) {
		name := c.testName(check.Line, "metadata", "metadata")
		suite.Tests = append(suite.Tests, &Test{Name: name, Image: check})
	}
	for i := range source.LicenseTests {
		l := location{"licenseTests", strconv.Itoa(i)}
		suite.Tests = append(suite.Tests, c.licenseTests(l, &source.LicenseTests[i])...)
	}
	return suite
}

// defaults returns the settings of containers. As in container-structure-test, commands run as the image's user, with
// the engine's default privileges and network.
func (c *converter) defaults(source *structureTest) Settings {
	o := &source.ContainerRunOptions
	settings := Settings{
		Timeout: Duration(convertedTimeout), User: Text(o.User), AllowRoot: o.User == "", Privileges: "default",
		Network: "bridge", TTY: o.TTY, Limits: Limits{PIDs: convertedPIDs, Output: convertedOutput},
	}
	if source.SchemaVersion != version1 { // there, only setup sets them
		settings.Env = toEnv(c.global)
	}
	line := c.line(location{"containerRunOptions"})
	if o.Privileged {
		settings.Privileges = "all"
		c.warnf(line, "containerRunOptions.privileged needs the input allow_privileged: true")
	}
	if o.TTY {
		c.changef("can pass if it prints; container-structure-test cannot read the output of a terminal (allocateTty)")
	}
	if o.EnvFile != "" {
		settings.Env = c.readEnvFile(line, o.EnvFile, settings.Env)
	}
	if len(o.EnvVars) > 0 {
		c.changef("runs without the variables %s of containerRunOptions.envVars, because a suite does not read the "+
			"environment; add them to env", strings.Join(o.EnvVars, ", "))
	}
	if len(o.Capabilities) > 0 {
		c.warnf(line, "containerRunOptions.capabilities is left out; engines ignore it in the requests of "+
			"container-structure-test")
	}
	return settings
}

// readEnvFile adds the variables of a file to env. Like container-structure-test, it omits empty variables and ignores
// a missing file.
func (c *converter) readEnvFile(line int, file string, env Env) Env {
	variables, err := godotenv.Read(file)
	if err != nil {
		c.warnf(line, "containerRunOptions.envFile is left out, as in container-structure-test: %v", err)
		return env
	}
	c.warnf(line, "variables of containerRunOptions.envFile %q are copied to defaults.env; remove secrets", file)
	if env == nil {
		env = Env{}
	}
	for name, value := range variables {
		if value != "" {
			env[name] = Text(value)
		}
	}
	return env
}

// volumeName matches the names of volumes that engines accept as the source of a mount.
var volumeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

func (c *converter) bindMount(line int, mount string) {
	source, rest, hasSource := strings.Cut(mount, ":")
	target, _, _ := strings.Cut(rest, ":")
	if !hasSource {
		source, target = "anonymous-volume", mount
	}
	if !path.IsAbs(target) || path.Clean(target) == "/" || !path.IsAbs(source) && !volumeName.MatchString(source) {
		c.addf(line, "containerRunOptions.bindMounts: engines reject %q (for example /fixtures:/fixtures)", mount)
		return
	}
	c.changef("runs without the mount %q; put the files next to the suite and add mounts", mount)
	c.mounts = append(c.mounts, path.Clean(target))
}

func (c *converter) commandTest(l location, t *commandTest, source *structureTest) *Test {
	line, problems := c.line(l), len(c.problems)
	name := c.testName(line, t.Name, "command test")
	c.validateCommand(l, t)
	if c.skip(source, line, problems) {
		return nil
	}
	c.checkCommand(l, t)
	global := c.global
	if source.SchemaVersion == version1 {
		global = nil
	}
	// setup commits an image with expanded variables. The command gets the variables of the test as they are written.
	own := c.pairs(l.child("envVars"), t.EnvVars, func(value string) string { return value })
	committed, environment := c.pairs(l.child("envVars"), t.EnvVars, replaceWith(global)), global
	if len(t.Setup) > 0 {
		if source.SchemaVersion == version1 {
			committed = merged(c.global, committed)
			own = merged(c.global, own)
		}
		environment = merged(global, committed)
	}
	if source.ContainerRunOptions.isSet() {
		switch {
		case len(t.Setup) > 0:
			own = committed
		case len(own) > 0:
			c.warnf(line, "envVars of %q are left out; container-structure-test ignores them with containerRunOptions", name)
			own = nil
		}
	} else if len(t.Setup) > 0 && !maps.Equal(own, committed) {
		c.warnf(line, "setup of %q sees the envVars as they are written; container-structure-test replaces their variables "+
			"for setup, but not for the command", name)
	}
	test := &Test{Name: name, Settings: Settings{Env: toEnv(own)}, CommandCheck: CommandCheck{Exit: t.ExitCode}}
	test.Run = &Command{}
	for _, arg := range append([]string{t.Command}, t.Args...) {
		test.Run.Args = append(test.Run.Args, replaceWith(environment)(arg))
	}
	test.Stdout = c.textCheck(l, "expectedOutput", t.ExpectedOutput, "excludedOutput", t.ExcludedOutput)
	test.Stderr = c.textCheck(l, "expectedError", t.ExpectedError, "excludedError", t.ExcludedError)
	for _, setup := range t.Setup {
		test.Setup = append(test.Setup, Command{Args: setup})
	}
	if len(t.Setup) > 0 {
		test.SetupMayFail = true
		c.warnf(line, "setup of %q runs in the container of the test, so the command sees its processes, its files in "+
			"volumes and its changes of /etc/hosts; it needs /bin/sh in the image", name)
	}
	for _, change := range c.changes {
		c.warnf(line, "test %q %s", name, change)
	}
	if len(c.problems) > problems {
		return nil
	}
	return test
}

// skip reports whether container-structure-test skips a test because of the problems after the first ones. It fails
// invalid tests, but skips those of version 1.0.0.
func (c *converter) skip(source *structureTest, line, first int) bool {
	if len(c.problems) == first || source.SchemaVersion != version1 {
		return false
	}
	c.warnf(line, "left out, because container-structure-test skips this test: %s", c.problems[first].Message)
	c.problems = c.problems[:first]
	return true
}

// validateCommand adds a problem for everything that container-structure-test checks before it runs a command test.
func (c *converter) validateCommand(l location, t *commandTest) {
	if t.Command == "" {
		c.addf(c.line(l), "command test %q has no command", t.Name)
	}
	for i, setup := range t.Setup {
		if len(setup) == 0 {
			c.addf(c.line(l.child("setup", strconv.Itoa(i))), "setup command of %q is empty", t.Name)
		}
	}
	for i, teardown := range t.Teardown {
		if len(teardown) == 0 {
			c.addf(c.line(l.child("teardown", strconv.Itoa(i))), "teardown command of %q is empty", t.Name)
		}
	}
	for i, pair := range t.EnvVars {
		if pair.Key == "" || pair.Value == "" {
			c.addf(c.line(l.child("envVars", strconv.Itoa(i))), "environment variable of %q has no key or no value", t.Name)
		}
	}
}

// checkCommand adds a problem for everything else that makes a command test fail in any image.
func (c *converter) checkCommand(l location, t *commandTest) {
	if t.ExitCode < 0 || t.ExitCode > 255 {
		c.addf(c.line(l.child("exitCode")), "exitCode must be 0 to 255, not %d", t.ExitCode)
	}
	for i, setup := range t.Setup {
		if len(setup) > 0 && setup[0] == "" {
			c.addf(c.line(l.child("setup", strconv.Itoa(i))), "setup command of %q is empty", t.Name)
		}
	}
	for _, arg := range slices.Concat([]string{t.Command}, t.Args, slices.Concat(t.Setup...)) {
		if strings.ContainsRune(arg, 0) {
			c.addf(c.line(l), "command test %q has an argument with a NUL character", t.Name)
		}
	}
}

func (c *converter) pattern(l location, text string) Pattern {
	compiled, err := regexp.Compile(text)
	if err != nil {
		c.addf(
			c.line(l),
			"%s: invalid regular expression %q: %s",
			l,
			text,
			strings.TrimPrefix(err.Error(), "error parsing regexp: "),
		)
	}
	return Pattern{Regexp: compiled}
}

func (c *converter) textCheck(
	l location, includeKey string, include []string, excludeKey string, exclude []string,
) *TextCheck {
	if len(include)+len(exclude) == 0 {
		return nil
	}
	check := &TextCheck{}
	for i, text := range include {
		check.Include = append(check.Include, c.pattern(l.child(includeKey, strconv.Itoa(i)), text))
	}
	for i, text := range exclude {
		check.Exclude = append(check.Exclude, c.pattern(l.child(excludeKey, strconv.Itoa(i)), text))
	}
	return check
}

// invalidInName matches characters that are invalid in a test name: line breaks and other control characters.
var invalidInName = regexp.MustCompile(`[\pC\s]+`)

// testName returns a valid and unique name for a test. kind replaces a blank name.
func (c *converter) testName(line int, source, kind string) string {
	if source == "" {
		c.addf(line, "test has no name")
		return ""
	}
	name := strings.TrimSpace(truncate(invalidInName.ReplaceAllString(source, " "), 180))
	if name == "" {
		name = kind
	}
	unique := name
	for n := 2; c.names[unique]; n++ {
		unique = fmt.Sprintf("%s (%d)", name, n)
	}
	if unique != source && kind != source {
		c.warnf(line, "test %q is renamed to %q; names must be unique and on one line", source, unique)
	}
	c.names[unique] = true
	return unique
}

// reference marks the start and the end of the name of an image's variable, until finishReferences writes references.
const reference = "\x00"

// variableName matches the names that container-structure-test can find in the variables of an image.
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

// replaceWith returns a function that replaces variables as container-structure-test does: with those in known, then
// with those of the image.
func replaceWith(known map[string]string) func(text string) string {
	return func(text string) string {
		return os.Expand(text, func(name string) string {
			if value, ok := known[name]; ok {
				return value
			}
			if !variableName.MatchString(name) {
				return "" // for example $1 or ${A:-b}
			}
			return reference + name + reference
		})
	}
}

// finishReferences writes the references to the image's variables, if the suite has any.
func (c *converter) finishReferences(suite *Document) {
	hasReferences := false
	replaceTexts(suite, func(text string) string {
		hasReferences = hasReferences || strings.Contains(text, reference)
		return text
	})
	if !hasReferences {
		return
	}
	suite.Defaults.Expand = true
	marked := regexp.MustCompile(reference + `(.*?)` + reference)
	replaceTexts(suite, func(text string) string {
		return marked.ReplaceAllString(strings.ReplaceAll(text, "$", "$$"), "$${$1}")
	})
}

// replaceTexts replaces every text to which the setting expand applies.
func replaceTexts(suite *Document, replace func(string) string) {
	env := func(env Env) {
		for name, value := range env {
			env[name] = Text(replace(string(value)))
		}
	}
	command := func(c *Command) {
		for i, arg := range c.Args {
			c.Args[i] = replace(arg)
		}
	}
	env(suite.Defaults.Env)
	for _, t := range suite.Tests {
		env(t.Env)
		for i := range t.Setup {
			command(&t.Setup[i])
		}
		if t.Run != nil {
			command(t.Run)
		}
		for i := range t.Files {
			t.Files[i].Path = PathPattern(replace(string(t.Files[i].Path)))
		}
	}
}

// pairs returns environment variables by name. replace replaces the variables in a value.
func (c *converter) pairs(l location, list []envVar, replace func(string) string) map[string]string {
	env := map[string]string{}
	for i, pair := range list {
		// The engine splits the pair at the first equals sign.
		name, value, _ := strings.Cut(pair.Key+"="+replace(pair.Value), "=")
		if pair.Key == "" && len(l) > 1 {
			continue // validateCommand reports it
		}
		if !envNameForm.MatchString(name) || strings.ContainsRune(pair.Value, 0) {
			c.addf(c.line(l.child(strconv.Itoa(i))), "invalid environment variable %q", pair.Key)
			continue
		}
		env[name] = value
	}
	return env
}

// envNameForm matches the names of environment variables that a suite accepts.
var envNameForm = regexp.MustCompile(`^[^=\pC]+$`)

func merged(base, over map[string]string) map[string]string {
	all := maps.Clone(base)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, over)
	return all
}

func toEnv(variables map[string]string) Env {
	var env Env
	for name, value := range variables {
		if env == nil {
			env = Env{}
		}
		env[name] = Text(value)
	}
	return env
}
