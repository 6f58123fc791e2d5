package runrecord

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	distribution "github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// dockerfile is a parsed Dockerfile.
type dockerfile struct {
	global []dockerInstruction // arguments before the first stage
	stages []stage
}

type stage struct {
	name         string // as BuildKit shows it: builder, or stage-1
	from         string // the image, the stage, or scratch
	parent       int    // index of the stage that it is based on; -1 for an image
	steps        int    // number of steps, with that of an image
	instructions []dockerInstruction
}

type dockerInstruction struct {
	instructions.Command
	text     string // without comments and insignificant space, with the content of here-documents
	line     int
	step     int  // number in the stage; 0 for an instruction that is not a step
	isGlobal bool // whether it is before the first stage
}

// Limits of a Dockerfile in a previous record, which may come from anybody.
const (
	maxDefinition = 1 << 20
	maxStages     = 500
)

// parseDockerfile returns nil for a Dockerfile that is invalid or over a limit.
func parseDockerfile(text string) *dockerfile {
	if len(text) > maxDefinition {
		return nil
	}
	parsed, err := parser.Parse(strings.NewReader(text))
	if err != nil {
		return nil
	}
	stages, arguments, err := instructions.Parse(parsed.AST, nil)
	if err != nil || len(stages) == 0 || len(stages) > maxStages {
		return nil
	}
	d := &dockerfile{}
	for i := range arguments {
		d.global = append(d.global, dockerInstruction{
			Command: &arguments[i], text: textOf(&arguments[i]), isGlobal: true,
		})
	}
	for i, s := range stages {
		d.stages = append(d.stages, d.newStage(i, s))
	}
	return d
}

// newStage numbers the steps as BuildKit does (moby/buildkit v0.34.2, frontend/dockerfile/dockerfile2llb/convert.go):
// FROM with an image, ADD, COPY, RUN and WORKDIR.
func (d *dockerfile) newStage(index int, parsed instructions.Stage) stage {
	s := stage{name: cmp.Or(parsed.Name, fmt.Sprintf("stage-%d", index)), from: parsed.BaseName}
	s.parent = slices.IndexFunc(d.stages, func(earlier stage) bool { return earlier.name == strings.ToLower(s.from) })
	step := 0
	if s.parent < 0 && s.from != "scratch" {
		step = 1
	}
	s.steps = step
	for _, command := range parsed.Commands {
		in := dockerInstruction{Command: command, text: textOf(command)}
		if location := command.Location(); len(location) > 0 {
			in.line = location[0].Start.Line
		}
		switch c := command.(type) {
		case *instructions.WorkdirCommand:
			s.steps++
			if c.Path != "/" { // exists in every image
				step++
				in.step = step
			}
		case *instructions.AddCommand, *instructions.CopyCommand, *instructions.RunCommand:
			s.steps++
			step++
			in.step = step
		}
		s.instructions = append(s.instructions, in)
	}
	return s
}

// textOf returns the text of an instruction by which a change is found.
func textOf(command instructions.Command) string {
	text := fmt.Sprint(command)
	keyword, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	var documents []string
	switch c := command.(type) {
	case *instructions.RunCommand:
		rest = strings.TrimSpace(rest)
		for _, file := range c.Files {
			documents = append(documents, file.Data)
		}
	case *instructions.CopyCommand:
		documents = append(documents, documentsOf(c.SourcesAndDest)...)
	case *instructions.AddCommand:
		documents = append(documents, documentsOf(c.SourcesAndDest)...)
	}
	if _, isRun := command.(*instructions.RunCommand); !isRun {
		rest = strings.Join(strings.Fields(rest), " ")
	}
	return strings.Join(append([]string{strings.ToUpper(keyword) + " " + rest}, documents...), "\n")
}

func documentsOf(sources instructions.SourcesAndDest) (documents []string) {
	for _, source := range sources.SourceContents {
		documents = append(documents, source.Data)
	}
	return documents
}

// stepPattern matches a step of a Dockerfile as BuildKit shows it, such as [linux/amd64 builder 2/5] RUN make. It
// captures the platform, the stage, the number, the number of steps, and the instruction.
var stepPattern = regexp.MustCompile(
	`^\[(?:([^ \]]+/[^ \]]+) )?(?:([^ /\]]+) )? *(\d+)/(\d+)\] (\S+)`)

// position is the place of a step in a Dockerfile.
type position struct {
	stage, instruction int
}

// locate returns the place of a step, unless the step is internal, or the Dockerfile does not have it: the triggers of
// a base image change the numbers.
func (d *dockerfile) locate(name string) (position, bool) {
	match := stepPattern.FindStringSubmatch(name)
	if match == nil {
		return position{}, false
	}
	for i, s := range d.stages {
		isStage := match[2] == s.name || match[2] == "" && len(d.stages) == 1
		if !isStage || match[4] != strconv.Itoa(s.steps) {
			continue
		}
		for j, in := range s.instructions {
			if in.step > 0 && match[3] == strconv.Itoa(in.step) && strings.EqualFold(match[5], in.Name()) {
				return position{i, j}, true
			}
		}
	}
	return position{}, false
}

// LocateSteps sets the stage and the line of the steps that are instructions of a Dockerfile.
func LocateSteps(steps []Step, definition string) {
	d := parseDockerfile(definition)
	if d == nil {
		return
	}
	for i := range steps {
		at, ok := d.locate(steps[i].Name)
		if !ok {
			continue
		}
		steps[i].Line = d.stages[at.stage].instructions[at.instruction].line
		if len(d.stages) > 1 {
			steps[i].Stage = d.stages[at.stage].name
		}
	}
}

// chain returns the first instructions of a stage, or all if count is -1, after those of the stages that it is based
// on, and after the global arguments.
func (d *dockerfile) chain(index, count int) []dockerInstruction {
	s := d.stages[index]
	own := s.instructions
	if count >= 0 {
		own = own[:count]
	}
	if s.parent < 0 {
		return slices.Concat(d.global, own)
	}
	return slices.Concat(d.chain(s.parent, -1), own)
}

// root returns the image, or scratch, on which a stage is based, and the name of the stage that names it.
func (d *dockerfile) root(index int) (from, name string) {
	for d.stages[index].parent >= 0 {
		index = d.stages[index].parent
	}
	return d.stages[index].from, d.stages[index].name
}

// hasStage reports whether a name, or a number, refers to a stage.
func (d *dockerfile) hasStage(name string) bool {
	_, err := strconv.Atoi(name)
	return err == nil || slices.ContainsFunc(d.stages, func(s stage) bool { return strings.EqualFold(s.name, name) })
}

// partner returns the index of the stage of another version of the Dockerfile that corresponds to a stage: the one with
// the same name, or with the same place among the stages without such a partner. It returns -1 without one.
func (d *dockerfile) partner(index int, other *dockerfile) int {
	find := func(stages []stage, name string) int {
		return slices.IndexFunc(stages, func(s stage) bool { return s.name == name })
	}
	if found := find(other.stages, d.stages[index].name); found >= 0 {
		return found
	}
	place := 0
	for _, s := range d.stages[:index] {
		if find(other.stages, s.name) < 0 {
			place++
		}
	}
	for i, s := range other.stages {
		if find(d.stages, s.name) >= 0 {
			continue
		}
		if place == 0 {
			return i
		}
		place--
	}
	return -1
}

// imageDigest returns the digest of an image that the steps of a build name, "" if it is unknown, or scratch. If stage
// is not "", it is the name of the stage that is based on the image.
func imageDigest(steps []Step, platform, image, stage string) string {
	if image == "scratch" {
		return image
	}
	reference := ""
	if named, err := distribution.ParseNormalizedNamed(image); err == nil {
		reference = distribution.TagNameOnly(named).String()
	}
	for _, s := range steps {
		before, shown, found := strings.Cut(s.Name, "FROM ")
		name, digest, isPinned := strings.Cut(shown, "@")
		if !found || !isPinned {
			continue
		}
		match := stepPattern.FindStringSubmatch(s.Name)
		isStep := match != nil && s.Platform == platform
		isStage := isStep && stage != "" && (match[2] == stage || match[2] == "") // "" for the only stage
		isCopied := match == nil && strings.TrimSpace(before) == platform         // an image that COPY --from names
		if isStage || (isStep || isCopied) && (name == reference || shown == reference) {
			return digest
		}
	}
	return ""
}
