package runrecord

import (
	"cmp"
	"slices"
	"strings"
)

// maxFileChanges is the maximum number of files in a [PlatformChange].
const maxFileChanges = 200

// visibleFile is a file of an image, and the index of its layer.
type visibleFile struct {
	File
	layer int
}

// visibleFiles returns the files of an image by path, without those that a higher layer replaces or removes. Removals
// are those of the OCI image specification
// (https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md#whiteouts): they do not affect their own layer.
func visibleFiles(layers []Layer) map[string]visibleFile {
	files := map[string]visibleFile{}
	hidden := map[string]bool{} // paths that higher layers have or remove, with all below them
	opaque := map[string]bool{} // directories that hide all below them in lower layers
	for i, layer := range slices.Backward(layers) {
		for _, f := range layer.Files {
			if !f.Removed && !hidden[f.Path] && !opaque["."] && !isBelow(f.Path, hidden, opaque) {
				files[f.Path] = visibleFile{f, i}
			}
		}
		for _, f := range layer.Files {
			if f.Opaque {
				opaque[f.Path] = true
			} else {
				hidden[f.Path] = true
			}
		}
	}
	return files
}

// isBelow reports whether a directory of a path is in one of the sets.
func isBelow(path string, sets ...map[string]bool) bool {
	for end := strings.LastIndexByte(path, '/'); end > 0; end = strings.LastIndexByte(path[:end], '/') {
		for _, set := range sets {
			if set[path[:end]] {
				return true
			}
		}
	}
	return false
}

// InstalledPackages returns the packages in the databases of an image, sorted by manager, name and version, without
// duplicates. All layers must have been read.
func InstalledPackages(layers []Layer) (packages []Package) {
	visible := visibleFiles(layers)
	for i, layer := range layers {
		for _, database := range layer.Databases {
			if f, exists := visible[database.Path]; exists && f.layer == i {
				packages = append(packages, database.Packages...)
			}
		}
	}
	compare := func(a, b Package) int {
		return cmp.Or(strings.Compare(a.Manager, b.Manager), strings.Compare(a.Name, b.Name),
			strings.Compare(a.Version, b.Version))
	}
	slices.SortFunc(packages, func(a, b Package) int { return cmp.Or(compare(a, b), cmp.Compare(a.Size, b.Size)) })
	return slices.CompactFunc(packages, func(a, b Package) bool { return compare(a, b) == 0 })
}

// compareFiles returns the files that differ, the largest differences first, and how many it leaves out. A file that
// one of the records may have omitted does not count as a difference.
func compareFiles(before, after []Layer) (changes []FileChange, omitted int) {
	oldFiles, newFiles := visibleFiles(before), visibleFiles(after)
	for path, o := range oldFiles {
		n, exists := newFiles[path]
		switch {
		case !exists && !mayHaveOmitted(after, o.Size):
			changes = append(changes, FileChange{path, o.Size, -1})
		case exists && !isSame(o.File, n.File) && !mayBeReplaced(before, o) && !mayBeReplaced(after, n):
			changes = append(changes, FileChange{path, o.Size, n.Size})
		}
	}
	for path, n := range newFiles {
		if _, exists := oldFiles[path]; !exists && !mayHaveOmitted(before, n.Size) {
			changes = append(changes, FileChange{path, -1, n.Size})
		}
	}
	difference := func(c FileChange) int64 {
		d := max(c.After, 0) - max(c.Before, 0)
		return max(d, -d)
	}
	slices.SortFunc(changes, func(a, b FileChange) int {
		return cmp.Or(cmp.Compare(difference(b), difference(a)), strings.Compare(a.Path, b.Path))
	})
	shown := min(len(changes), maxFileChanges)
	return changes[:shown:shown], len(changes) - shown
}

// isSame reports whether two files have the same content, or may have it. The size of a hard link is 0.
func isSame(a, b File) bool {
	return a.Hash == b.Hash && (a.Hash != "" || a.Size == b.Size)
}

// mayHaveOmitted reports whether the record of an image may have omitted a file of the given size.
func mayHaveOmitted(layers []Layer, size int64) bool {
	return slices.ContainsFunc(layers, func(l Layer) bool { return !l.Read || l.Omitted > 0 && size <= l.OmittedSize })
}

// mayBeReplaced reports whether a higher layer may have a file with the same path, which the record omits.
func mayBeReplaced(layers []Layer, f visibleFile) bool {
	return slices.ContainsFunc(layers[f.layer+1:], func(l Layer) bool { return !l.Read || l.Omitted > 0 })
}
