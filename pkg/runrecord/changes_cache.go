package runrecord

import (
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/patternmatcher"
)

// Maximum numbers of entries in a [CacheBreak].
const (
	maxBreakFiles   = 20
	maxBreakEarlier = 20
)

// cacheComparison compares the builds of two runs.
type cacheComparison struct {
	previous, current *Record
	before, after     *dockerfile
	platform          string // of the step
}

// findCacheBreak returns the first step of the Dockerfile that was not cached, with the inputs that changed. It returns
// nil if no input that both records show explains it.
func findCacheBreak(previous, current *Record) *CacheBreak {
	if previous.Source == nil || current.Source == nil || len(previous.Steps) == 0 ||
		previous.Source.Dockerfile != current.Source.Dockerfile || previous.Source.Context != current.Source.Context ||
		skipsCache(current) {
		return nil
	}
	c := cacheComparison{
		previous: previous, current: current,
		before: parseDockerfile(previous.Source.Definition), after: parseDockerfile(current.Source.Definition),
	}
	if c.before == nil || c.after == nil {
		return nil
	}
	step, at := c.firstUncached()
	if step == nil {
		return nil
	}
	c.platform = step.Platform
	found := c.explain(*step, at)
	if !found.Instruction && !found.BaseImage && len(found.Files)+len(found.BuildArgs)+len(found.Earlier) == 0 {
		return nil
	}
	found.Step, found.Line = step.Name, c.after.stages[at.stage].instructions[at.instruction].line
	return &found
}

// skipsCache reports whether the inputs of a run exclude steps from the cache.
func skipsCache(r *Record) bool {
	return slices.ContainsFunc(r.Inputs, func(in Input) bool {
		return in.Name == "no_cache" && in.Value != "false" || in.Name == "no_cache_filters"
	})
}

// firstUncached returns the step that the builder ran and that comes first in the Dockerfile.
func (c cacheComparison) firstUncached() (first *Step, at position) {
	for i, s := range c.current.Steps {
		found, ok := c.after.locate(s.Name)
		if !ok || s.Cached || !hasStarted(s) {
			continue
		}
		if first == nil || found.stage < at.stage || found.stage == at.stage && found.instruction < at.instruction {
			first, at = &c.current.Steps[i], found
		}
	}
	return first, at
}

func hasStarted(s Step) bool { return s.Offset > 0 || s.Seconds > 0 }

// explain returns the inputs of a step that changed. Each of them alone makes the builder run the step.
func (c cacheComparison) explain(step Step, at position) (found CacheBreak) {
	in := c.after.stages[at.stage].instructions[at.instruction]
	partner := c.after.partner(at.stage, c.before)
	if partner < 0 {
		return CacheBreak{Instruction: true}
	}
	oldChain, chain := c.before.chain(partner, -1), c.after.chain(at.stage, at.instruction)
	found.BaseImage = c.hasOtherBase(partner, at.stage, in) || c.copiesOtherImage(in)
	old := findOccurrence(oldChain, in.text, chain)
	if old < 0 {
		found.Instruction = true
		return found
	}
	if !c.hasRun(oldChain[old]) {
		return CacheBreak{}
	}
	oldChain = oldChain[:old]
	used := union(usedBy(in, oldChain), usedBy(in, chain))
	found.Earlier = c.changedEarlier(in, oldChain, chain, used)
	found.Earlier = found.Earlier[:min(len(found.Earlier), maxBreakEarlier)]
	if found.BaseImage {
		from, _ := c.after.root(at.stage)
		for _, name := range references(from) {
			used["ARG "+name] = true
		}
	}
	for _, name := range changedKeys(c.previous.Source.BuildArgs, c.current.Source.BuildArgs) {
		if used["ARG "+name] {
			found.BuildArgs = append(found.BuildArgs, name)
		}
	}
	files := c.changedSources(step, in)
	found.Files, found.MoreFiles = files[:min(len(files), maxBreakFiles)], max(0, len(files)-maxBreakFiles)
	return found
}

// findOccurrence returns the index of an instruction in the previous chain, or -1. If the text occurs several times, it
// is the occurrence with as many before it as the chain of the instruction has.
func findOccurrence(oldChain []dockerInstruction, text string, chain []dockerInstruction) int {
	found, count := -1, 0
	for _, in := range chain {
		if in.text == text {
			count++
		}
	}
	for i, in := range oldChain {
		if in.text == text && count >= 0 {
			found = i
			count--
		}
	}
	return found
}

// hasRun reports whether the previous build ran an instruction, or had it in the cache.
func (c cacheComparison) hasRun(in dockerInstruction) bool {
	return slices.ContainsFunc(c.previous.Steps, func(s Step) bool {
		at, ok := c.before.locate(s.Name)
		return ok && c.before.stages[at.stage].instructions[at.instruction].line == in.line &&
			s.Platform == c.platform && s.Error == "" && (s.Cached || hasStarted(s))
	})
}

// hasOtherBase reports whether a stage is based on another image than its partner. A linked copy does not depend on it.
func (c cacheComparison) hasOtherBase(partner, index int, in dockerInstruction) bool {
	oldFrom, oldRoot := c.before.root(partner)
	from, root := c.after.root(index)
	return !isLinked(in) && differ(
		imageDigest(c.previous.Steps, c.platform, oldFrom, oldRoot), imageDigest(c.current.Steps, c.platform, from, root))
}

// copiesOtherImage reports whether an instruction reads another version of an image than in the previous build.
func (c cacheComparison) copiesOtherImage(in dockerInstruction) bool {
	var images []string
	switch command := in.Command.(type) {
	case *instructions.CopyCommand:
		images = []string{command.From}
	case *instructions.RunCommand:
		for _, mount := range mountsOf(command) {
			images = append(images, mount.From)
		}
	}
	return slices.ContainsFunc(images, func(image string) bool {
		return image != "" && !c.after.hasStage(image) && differ(
			imageDigest(c.previous.Steps, c.platform, image, ""), imageDigest(c.current.Steps, c.platform, image, ""))
	})
}

// mountsOf returns the mounts of a RUN instruction, with their variables. The parser leaves most fields to Expand. It
// returns nil if a variable is where a mount needs a value.
func mountsOf(run *instructions.RunCommand) []*instructions.Mount {
	if err := run.Expand(func(word string) (string, error) { return word, nil }); err != nil {
		return nil
	}
	return instructions.GetMounts(run)
}

// differ reports whether two values are known and differ.
func differ(before, after string) bool { return before != "" && after != "" && before != after }

// changedEarlier returns the earlier instructions on which a step depends and that only one of the chains has.
func (c cacheComparison) changedEarlier(
	in dockerInstruction, oldChain, chain []dockerInstruction, used map[string]bool,
) (changed []string) {
	for _, op := range opCodes(texts(oldChain), texts(chain)) {
		if op.Tag == 'e' {
			continue
		}
		for _, other := range slices.Concat(oldChain[op.I1:op.I2], chain[op.J1:op.J2]) {
			if c.dependsOn(in, other, used) && !slices.Contains(changed, other.text) {
				changed = append(changed, other.text)
			}
		}
	}
	return changed
}

// dependsOn reports whether an earlier instruction is part of the cache key of a step. used is what [usedBy] returns.
func (c cacheComparison) dependsOn(in, earlier dockerInstruction, used map[string]bool) bool {
	run, isRun := in.Command.(*instructions.RunCommand)
	switch e := earlier.Command.(type) {
	case *instructions.EnvCommand:
		return slices.ContainsFunc(e.Env, func(pair instructions.KeyValuePair) bool { return used["ENV "+pair.Key] })
	case *instructions.ArgCommand:
		return slices.ContainsFunc(e.Args, func(arg instructions.KeyValuePairOptional) bool {
			_, wasGiven := c.previous.Source.BuildArgs[arg.Key]
			_, isGiven := c.current.Source.BuildArgs[arg.Key]
			return used[scopeOf(earlier)+arg.Key] && !(wasGiven && isGiven) // which overrides the default
		})
	case *instructions.ShellCommand:
		return isRun && run.PrependShell
	case *instructions.UserCommand:
		return isRun || in.Name() == "workdir"
	case *instructions.RunCommand, *instructions.CopyCommand, *instructions.AddCommand, *instructions.WorkdirCommand:
		return !isLinked(in)
	}
	return false
}

func isLinked(in dockerInstruction) bool {
	switch c := in.Command.(type) {
	case *instructions.CopyCommand:
		return c.Link
	case *instructions.AddCommand:
		return c.Link
	}
	return false
}

func texts(list []dockerInstruction) (texts []string) {
	for _, in := range list {
		texts = append(texts, in.text)
	}
	return texts
}

// usedBy returns the variables on which a step depends: "ENV name", "ARG name", and "GLOBAL name" for an argument
// before the first stage. A RUN instruction gets all variables in its environment; others depend on those they name.
func usedBy(in dockerInstruction, chain []dockerInstruction) map[string]bool {
	values := map[string]map[string]bool{} // what the value of each variable in scope depends on
	global := map[string]map[string]bool{}
	isEnv := map[string]bool{}
	dependencies := func(of string, from map[string]map[string]bool, own string) map[string]bool {
		all := map[string]bool{own: true}
		for _, name := range references(of) {
			all = union(all, from[name])
		}
		return all
	}
	for _, earlier := range chain {
		switch c := earlier.Command.(type) {
		case *instructions.EnvCommand:
			added := map[string]map[string]bool{}
			for _, pair := range c.Env { // which do not see each other
				added[pair.Key], isEnv[pair.Key] = dependencies(pair.Value, values, "ENV "+pair.Key), true
			}
			for name, value := range added {
				values[name] = value
			}
		case *instructions.ArgCommand:
			for _, arg := range c.Args {
				switch {
				case earlier.isGlobal:
					global[arg.Key] = union(dependencies(arg.ValueString(), global, "GLOBAL "+arg.Key),
						map[string]bool{"ARG " + arg.Key: true})
				case isEnv[arg.Key]: // takes precedence
				case arg.Value == nil:
					values[arg.Key] = union(global[arg.Key], map[string]bool{"ARG " + arg.Key: true})
				default:
					values[arg.Key] = dependencies(*arg.Value, values, "ARG "+arg.Key)
				}
			}
		}
	}
	used := map[string]bool{}
	names := references(in.text)
	if _, isRun := in.Command.(*instructions.RunCommand); isRun {
		names = slices.Collect(maps.Keys(values))
	}
	for _, name := range names {
		used = union(used, values[name])
	}
	return used
}

func scopeOf(arg dockerInstruction) string {
	if arg.isGlobal {
		return "GLOBAL "
	}
	return "ARG "
}

func union(a, b map[string]bool) map[string]bool {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]bool{}
	}
	maps.Copy(all, b)
	return all
}

var variablePattern = regexp.MustCompile(`\$\{?([A-Za-z_][A-Za-z0-9_]*)`)

// references returns the names of the variables in a text.
func references(text string) (names []string) {
	for _, match := range variablePattern.FindAllStringSubmatch(text, -1) {
		names = append(names, match[1])
	}
	return names
}

// changedSources returns the changed files of the context that an instruction reads.
func (c cacheComparison) changedSources(step Step, in dockerInstruction) (files []string) {
	sources, excluded := contextSources(in.Command)
	if slices.ContainsFunc(sources, func(s contextSource) bool { return strings.Contains(s.pattern, "$") }) {
		_, shown, _ := strings.Cut(step.Name, "] ") // with the values of the variables
		expanded := parseDockerfile("FROM scratch\n" + shown)
		if expanded == nil || len(expanded.stages[0].instructions) != 1 || strings.Contains(shown, redacted) {
			return nil
		}
		sources, excluded = contextSources(expanded.stages[0].instructions[0].Command)
	}
	exclusions, err := patternmatcher.New(excluded)
	if err != nil {
		return nil
	}
	for _, file := range changedFiles(c.previous.Source.Files, c.current.Source.Files) {
		if slices.ContainsFunc(sources, func(s contextSource) bool { return s.contains(file) }) &&
			!isExcluded(exclusions, file) {
			files = append(files, file)
		}
	}
	return files
}

// redacted replaces secrets in the names of steps.
const redacted = "***"

// contextSource is a source of an instruction in the context.
type contextSource struct {
	pattern string
	parents bool // whether it is a source of COPY --parents, in which ** matches several directories
}

// contextSources returns the sources of an instruction in the context, and the patterns of the files that it excludes.
func contextSources(command instructions.Command) (sources []contextSource, excluded []string) {
	switch c := command.(type) {
	case *instructions.CopyCommand:
		if c.From != "" {
			return nil, nil
		}
		for _, source := range c.SourcePaths {
			sources = append(sources, contextSource{source, c.Parents})
		}
		return sources, c.ExcludePatterns
	case *instructions.AddCommand:
		for _, source := range c.SourcePaths {
			if ref, isGit, _ := dfgitutil.ParseGitRef(source); !strings.Contains(source, "://") &&
				(!isGit || ref.IndistinguishableFromLocal) {
				sources = append(sources, contextSource{pattern: source})
			}
		}
		return sources, c.ExcludePatterns
	case *instructions.RunCommand:
		for _, mount := range mountsOf(c) {
			if mount.Type == instructions.MountTypeBind && mount.From == "" {
				sources = append(sources, contextSource{pattern: mount.Source})
			}
		}
	}
	return sources, nil
}

// contains reports whether a file, or all files of a folded directory, are below a source.
func (s contextSource) contains(file string) bool {
	pattern := strings.TrimPrefix(path.Clean("/"+s.pattern), "/")
	file = strings.TrimSuffix(file, "/")
	if pattern == "" {
		return true
	}
	if s.parents {
		ok, err := patternmatcher.MatchesOrParentMatches(file, []string{pattern})
		return ok && err == nil
	}
	parts, names := strings.Split(pattern, "/"), strings.Split(file, "/")
	if len(parts) > len(names) {
		return false
	}
	ok, err := path.Match(pattern, strings.Join(names[:len(parts)], "/"))
	return ok && err == nil
}

// isExcluded reports whether --exclude excludes a file. Its patterns are relative to the directory that a source
// matches, so isExcluded tries all directories of the path. A folded directory may contain excluded files.
func isExcluded(exclusions *patternmatcher.PatternMatcher, file string) bool {
	if len(exclusions.Patterns()) == 0 {
		return false
	}
	if isFolded(file) {
		return true
	}
	for rest, more := file, true; more; _, rest, more = strings.Cut(rest, "/") {
		if ok, err := exclusions.MatchesOrParentMatches(rest); ok || err != nil {
			return true
		}
	}
	return false
}
