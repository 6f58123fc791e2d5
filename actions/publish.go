package actions

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/org/sandbox-actions/pkg/image"
)

// publish writes the outputs and the summary of a build. Everything that they name is ready.
func (b *build) publish() error {
	if err := b.describe(); err != nil {
		return err
	}
	return b.write(b.result, b.summary())
}

// describe fills the result of a build.
func (b *build) describe() error {
	config, err := b.loaded().Image.ConfigName()
	if err != nil {
		return fmt.Errorf("read the image's config: %w", err)
	}
	r := &b.result
	r.ImageID = config.String()
	r.Platforms = strings.Join(b.plan.platforms, ",")
	r.GitSHA, r.GitRef = b.tree.SHA, b.tree.Ref
	r.BuildID, r.BuildURL, r.ProjectID = b.work.ID, b.work.URL, b.work.ProjectID
	r.CachedSteps, r.TotalSteps = b.stats.Cached, b.stats.Total
	if b.in.Load {
		r.ImageName = b.in.ImageName
		r.ImageRef = b.in.ImageName
	}
	if remote := append(slices.Clone(b.plan.push), b.savedTags()...); len(remote) > 0 {
		r.ImageRef = remote[0] + "@" + r.Digest
	}
	r.Metadata, err = metadata(b.solved)
	return err
}

// write publishes a result struct and a summary.
func (p *Program) write(result any, summary string) error {
	if err := p.outputs(reflect.ValueOf(result)); err != nil {
		return fmt.Errorf("write the outputs (GITHUB_OUTPUT): %w", err)
	}
	if err := p.Runner.Summary(summary); err != nil {
		return fmt.Errorf("write the job's summary (GITHUB_STEP_SUMMARY): %w", err)
	}
	return nil
}

// outputs publishes every field of a result struct under its tag.
func (p *Program) outputs(result reflect.Value) error {
	for i := range result.NumField() {
		field := result.Type().Field(i)
		if field.Anonymous {
			if err := p.outputs(result.Field(i)); err != nil {
				return err
			}
			continue
		}
		if err := p.Runner.Output(field.Tag.Get("output"), fmt.Sprint(result.Field(i).Interface())); err != nil {
			return err
		}
	}
	return nil
}

// metadata is what BuildKit answered, as docker's metadata file has it: the descriptor is decoded.
func metadata(results []*image.Result) (string, error) {
	byPlatform := map[string]map[string]any{}
	for _, r := range results {
		fields := map[string]any{}
		for name, value := range r.Metadata {
			fields[name] = value
			if data, err := base64.StdEncoding.DecodeString(value); name == exptypes.ExporterImageDescriptorKey && err == nil && json.Valid(data) {
				fields[name] = json.RawMessage(data)
			}
		}
		byPlatform[r.Platform] = fields
	}
	var value any = byPlatform
	if len(results) == 1 {
		value = byPlatform[results[0].Platform]
	}
	data, err := json.Marshal(value)
	return string(data), err
}

// slowest bounds how many steps the summary shows.
const slowest = 8

func (b *build) summary() string {
	r := b.result
	s := table("Image built")
	s.row("Digest", code(r.Digest))
	s.row("Use it as", code(r.ImageRef))
	s.row("Platforms", code(r.Platforms))
	commit := r.GitSHA
	if b.tree.Dirty {
		commit += "-dirty"
	}
	s.row("Commit", code(strings.TrimSpace(commit+" "+r.GitRef)))
	if r.TotalSteps > 0 {
		s.row("Cached", fmt.Sprintf("%d of %d steps", r.CachedSteps, r.TotalSteps))
	}
	s.row("Size", b.sizes())
	s.row("Time", time.Since(b.began).Round(100*time.Millisecond).String())
	if strings.HasPrefix(r.BuildURL, "https://") || strings.HasPrefix(r.BuildURL, "http://") {
		s.row("Depot build", fmt.Sprintf("[%s](%s)", r.BuildID, strings.NewReplacer("(", "%28", ")", "%29", "|", "%7C", " ", "%20").Replace(r.BuildURL)))
	}
	s.WriteString(b.chart())
	return s.String()
}

// rows is a Markdown table of names and values.
type rows struct{ strings.Builder }

func table(title string) *rows {
	r := &rows{}
	fmt.Fprintf(r, "### %s\n\n| | |\n| --- | --- |\n", title)
	return r
}

// row leaves out what has no value.
func (r *rows) row(name, value string) {
	if value != "" {
		fmt.Fprintf(r, "| %s | %s |\n", name, value)
	}
}

// code keeps text from meaning anything to Markdown.
func code(value string) string {
	if value == "" {
		return ""
	}
	return "`" + strings.NewReplacer("`", "'", "|", "\\|", "\n", " ").Replace(value) + "`"
}

// sizes is what a registry stores of each image.
func (b *build) sizes() string {
	var sizes []string
	for _, r := range b.solved {
		manifest, err := r.Image.Manifest()
		if err != nil {
			return ""
		}
		total := manifest.Config.Size
		for _, layer := range manifest.Layers {
			total += layer.Size
		}
		text := units.HumanSize(float64(total)) + " compressed"
		if len(b.solved) > 1 {
			text = r.Platform + ": " + text
		}
		sizes = append(sizes, text)
	}
	return strings.Join(sizes, ", ")
}

// chart is a picture of the slowest steps: when each began, and how long it took.
func (b *build) chart() string {
	steps := slices.DeleteFunc(slices.Clone(b.stats.Steps), func(s image.Step) bool { return s.Cached || s.Duration < 100*time.Millisecond })
	slices.SortStableFunc(steps, func(a, c image.Step) int { return int(c.Duration - a.Duration) })
	steps = steps[:min(slowest, len(steps))]
	if len(steps) == 0 {
		return ""
	}
	slices.SortStableFunc(steps, func(a, c image.Step) int { return a.Started.Compare(c.Started) })
	first := steps[0].Started
	var s strings.Builder
	s.WriteString("\n```mermaid\ngantt\n  title The slowest steps\n  dateFormat x\n  axisFormat %M:%S\n")
	for _, step := range steps {
		begin := step.Started.Sub(first).Milliseconds()
		fmt.Fprintf(&s, "  %s (%s) :%d, %d\n", plainName(step.Name), step.Duration.Round(100*time.Millisecond), begin, begin+step.Duration.Milliseconds())
	}
	s.WriteString("```\n")
	return s.String()
}

// plainName keeps of a step's name what means nothing to a chart or to Markdown.
func plainName(name string) string {
	name = strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.ContainsRune(" ./_-=", c):
			return c
		}
		return ' '
	}, name)
	name = strings.Join(strings.Fields(name), " ")
	if len(name) > 60 {
		name = name[:57] + "..."
	}
	return name
}
