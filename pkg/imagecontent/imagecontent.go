// Package imagecontent describes what is in images and build contexts, for the record of a run: the files of each
// layer, the installed packages, and hashes of the files of a context.
//
// Images come from builds that anybody may have written. Everything that is read has a limit, and all text is safe to
// print.
package imagecontent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/pkg/runrecord"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// Limits bound what [Read] reads and returns. Zero values are the defaults.
type Limits struct {
	Compressed int64 // compressed bytes to read of an image, from the highest layer down; default 2 GiB
	Unpacked   int64 // bytes of the files of a layer; default 8 GiB
	LayerFiles int   // files to return of a layer, the largest ones; default 20,000
	ImageFiles int   // files to return of an image, the largest ones; default 60,000
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Compressed: cmp.Or(l.Compressed, 2<<30), Unpacked: cmp.Or(l.Unpacked, 8<<30),
		LayerFiles: cmp.Or(l.LayerFiles, 20_000), ImageFiles: cmp.Or(l.ImageFiles, 60_000),
	}
}

// maxLayers is the maximum number of layers that are read. Docker's limit is 127.
const maxLayers = 256

// maxInstruction is the maximum length of an instruction, in characters.
const maxInstruction = 500

// Describe returns the sizes and the instructions of an image's layers, without reading the layers. clean redacts
// secrets; it may be nil.
func Describe(img v1.Image, platform string, clean func(string) string) (runrecord.PlatformImage, error) {
	p := runrecord.PlatformImage{Platform: platform}
	manifest, err := img.Manifest()
	if err != nil {
		return p, fmt.Errorf("read the image's manifest: %w", err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return p, fmt.Errorf("read the image's config: %w", err)
	}
	p.Size = manifest.Config.Size
	instructions := layerInstructions(config, len(manifest.Layers))
	for i, descriptor := range manifest.Layers {
		layer := runrecord.Layer{Digest: descriptor.Digest.String(), Size: descriptor.Size}
		if len(config.RootFS.DiffIDs) == len(manifest.Layers) {
			layer.DiffID = config.RootFS.DiffIDs[i].String()
		}
		layer.CreatedBy = safetext.Line(redact(clean, instructions[i]), maxInstruction)
		p.Size += descriptor.Size
		p.Layers = append(p.Layers, layer)
	}
	return p, nil
}

func redact(clean func(string) string, text string) string {
	if clean == nil {
		return text
	}
	return clean(text)
}

// layerInstructions returns the instruction of each layer, or "" if the config has another number of them.
func layerInstructions(config *v1.ConfigFile, layers int) []string {
	var instructions []string
	for _, entry := range config.History {
		if !entry.EmptyLayer {
			instructions = append(instructions, dockerInstruction(entry.CreatedBy))
		}
	}
	if len(instructions) != layers {
		return make([]string, layers)
	}
	return instructions
}

// dockerInstruction returns the instruction that a history entry of BuildKit or of Docker's older builder describes:
//
//	RUN |1 VERSION=2 /bin/sh -c make # buildkit
//	|1 VERSION=2 /bin/sh -c make
//	/bin/sh -c #(nop) COPY file:… in /
//
// It leaves out the values of build arguments, which change more often than instructions.
func dockerInstruction(createdBy string) string {
	const shell = "/bin/sh -c "
	text := strings.TrimSuffix(strings.TrimSpace(createdBy), " # buildkit")
	if instruction, ok := strings.CutPrefix(text, shell+"#(nop)"); ok {
		return strings.TrimSpace(instruction)
	}
	run, isBuildKit := strings.CutPrefix(text, "RUN ")
	if strings.HasPrefix(run, "|") {
		if _, command, found := strings.Cut(run, shell); found {
			return "RUN " + command
		}
	}
	if command, ok := strings.CutPrefix(run, shell); ok {
		return "RUN " + command
	}
	if isBuildKit {
		return "RUN " + run
	}
	return text
}

// Options are the options of [Read].
type Options struct {
	// Known are images of an earlier record. Layers that it has read are not read again.
	Known []runrecord.PlatformImage

	// Order lists the layers in the order in which they are read. Without it, several are read at the same time.
	Order []v1.Layer

	Clean  func(string) string // redacts secrets; may be nil
	Limits Limits
}

// maxReaders is the number of layers that are read at the same time.
const maxReaders = 3

// Read adds the files and the packages to what [Describe] returned. It returns the cause of ctx if ctx ends. With
// another error, it describes the layers that it could read. A layer over a limit remains unread without an error.
func Read(ctx context.Context, img v1.Image, p *runrecord.PlatformImage, o Options) error {
	layers, err := img.Layers()
	if err != nil {
		return fmt.Errorf("read the image's layers: %w", err)
	}
	if len(layers) != len(p.Layers) {
		return fmt.Errorf("read the image's layers: got %d, want %d", len(layers), len(p.Layers))
	}
	r := &reader{limits: o.Limits.withDefaults(), clean: o.Clean,
		read: runrecord.ReadLayers(o.Known...), directories: map[string][]string{}}
	var readers errgroup.Group
	readers.SetLimit(maxReaders)
	if o.Order != nil {
		readers.SetLimit(1)
	}
	for _, i := range r.plan(p.Layers, layers, o.Order) {
		readers.Go(func() error {
			if err := r.readLayer(ctx, layers[i], p.Layers[i]); err != nil {
				return fmt.Errorf("read layer %s: %w", p.Layers[i].Digest, err)
			}
			return nil
		})
	}
	err = readers.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.addFiles(p.Layers)
	if !slices.ContainsFunc(p.Layers, func(l runrecord.Layer) bool { return !l.Read }) {
		p.Packages = runrecord.InstalledPackages(p.Layers)
	}
	return err
}

// reader is one call of [Read].
type reader struct {
	limits Limits
	clean  func(string) string

	mutex       sync.Mutex
	read        map[string]runrecord.Layer // by diff ID
	directories map[string][]string        // of the layers, by diff ID
	files       int                        // in the layers that were read
}

// plan returns the indexes of the layers to read, in their order. The limit favors higher layers, because they change.
func (r *reader) plan(layers []runrecord.Layer, images, order []v1.Layer) (plan []int) {
	planned := map[string]bool{}
	left := r.limits.Compressed
	for i, layer := range slices.Backward(layers) {
		_, isKnown := r.read[layer.DiffID]
		if isKnown || layer.DiffID == "" || planned[layer.DiffID] || layer.Size > left || len(plan) == maxLayers {
			continue
		}
		planned[layer.DiffID] = true
		left -= layer.Size
		plan = append(plan, i)
	}
	position := func(i int) int {
		return slices.IndexFunc(order, func(l v1.Layer) bool {
			digest, err := l.Digest()
			return err == nil && digest.String() == layers[i].Digest
		})
	}
	slices.SortStableFunc(plan, func(a, b int) int { return cmp.Compare(position(a), position(b)) })
	return plan
}

// readLayer reads a layer. When ctx ends, it stops, even if no data arrives.
func (r *reader) readLayer(ctx context.Context, from v1.Layer, layer runrecord.Layer) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	compressed, err := from.Compressed()
	if err != nil {
		return err
	}
	closeOnce := sync.OnceValue(compressed.Close)
	defer closeOnce()
	defer context.AfterFunc(ctx, func() { _ = closeOnce() })()
	content, err := decompress(compressed)
	if err != nil {
		return err
	}
	defer content.Close()
	read, err := readArchive(ctx, content, r.limits, r.clean)
	if errors.Is(err, errLimit) {
		return nil
	}
	if err != nil {
		return err
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	const factor = 10 // of what is returned, because it is in memory until all layers are read
	if r.files += len(read.layer.Files); r.files > factor*r.limits.ImageFiles {
		return nil
	}
	r.read[layer.DiffID], r.directories[layer.DiffID] = read.layer, read.directories
	return nil
}

// addFiles copies what was read to the layers. It marks files that a directory of a higher layer replaces as removed:
// layers list directories like files, but records do not.
func (r *reader) addFiles(layers []runrecord.Layer) {
	files := map[string]bool{}
	for i := range layers {
		layer := &layers[i]
		read, isRead := r.read[layer.DiffID]
		if !isRead {
			continue
		}
		layer.Read, layer.Unpacked, layer.Databases = true, read.Unpacked, read.Databases
		layer.Files = slices.Clone(read.Files)
		layer.Omitted, layer.OmittedSize = read.Omitted, read.OmittedSize
		for _, directory := range r.directories[layer.DiffID] {
			if files[directory] {
				layer.Files = append(layer.Files, runrecord.File{Path: directory, Removed: true})
			}
		}
		sortFiles(layer.Files)
		for _, f := range layer.Files {
			files[f.Path] = !f.Removed
		}
	}
	limitFiles(layers, r.limits.ImageFiles)
}

// limitFiles removes the smallest files of an image if there are more than limit.
func limitFiles(layers []runrecord.Layer, limit int) {
	var sizes []int64
	for _, layer := range layers {
		for _, f := range layer.Files {
			if !isEssential(f, layer.Databases) {
				sizes = append(sizes, f.Size)
			}
		}
	}
	if len(sizes) <= limit {
		return
	}
	slices.Sort(sizes)
	omitted := sizes[len(sizes)-limit-1]
	for i := range layers {
		layer := &layers[i]
		layer.Files = slices.DeleteFunc(layer.Files, func(f runrecord.File) bool {
			if f.Size > omitted || isEssential(f, layer.Databases) {
				return false
			}
			layer.Omitted++
			layer.OmittedSize = max(layer.OmittedSize, f.Size)
			return true
		})
	}
}

// isEssential reports whether a record keeps a file whatever its size: it removes files, or lists packages.
func isEssential(f runrecord.File, databases []runrecord.Database) bool {
	_, isDatabase := slices.BinarySearchFunc(databases, f.Path, func(d runrecord.Database, path string) int {
		return strings.Compare(d.Path, path)
	})
	return f.Removed || isDatabase
}

func sortFiles(files []runrecord.File) {
	slices.SortStableFunc(files, func(a, b runrecord.File) int { return strings.Compare(a.Path, b.Path) })
}
