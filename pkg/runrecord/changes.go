package runrecord

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Compare returns how the image of a run differs from that of a previous run, and which inputs broke the builder's
// cache. It returns nil if either is nil, or the previous run has no image. It claims only what both records show: what
// a record leaves out is neither new nor removed.
func Compare(previous, current *Record) *Changes {
	if previous == nil || current == nil || previous.Image == nil {
		return nil
	}
	c := &Changes{
		Since: previous.Started, Digest: previous.Image.Digest, Seconds: previous.Seconds,
		CacheBreak: findCacheBreak(previous, current),
	}
	if previous.Source != nil {
		c.SHA = previous.Source.SHA
	}
	if a, b := previous.Run, current.Run; a != nil && b != nil && a.Repository == b.Repository {
		if _, err := strconv.ParseUint(a.ID, 10, 63); err == nil { // it becomes part of a URL
			c.Run, c.Branch = a.ID, a.Branch
		}
	}
	if current.Image == nil {
		return c
	}
	for _, after := range current.Image.Platforms {
		for _, before := range previous.Image.Platforms {
			if before.Platform == after.Platform {
				c.Platforms = append(c.Platforms, comparePlatform(before, after))
			}
		}
	}
	return c
}

func comparePlatform(before, after PlatformImage) PlatformChange {
	c := PlatformChange{
		Platform: after.Platform, Size: after.Size - before.Size, Layers: compareLayers(before.Layers, after.Layers),
	}
	read := ReadLayers(before, after)
	oldLayers, newLayers := fromRead(before.Layers, read), fromRead(after.Layers, read)
	for _, layer := range slices.Concat(oldLayers, newLayers) {
		if !layer.Read {
			c.Unread++
		}
	}
	c.Files, c.Omitted = compareFiles(oldLayers, newLayers)
	if c.Unread == 0 {
		c.Packages = comparePackages(InstalledPackages(oldLayers), InstalledPackages(newLayers))
	}
	return c
}

// ReadLayers returns the layers of images that were read, by diff ID.
func ReadLayers(images ...PlatformImage) map[string]Layer {
	read := map[string]Layer{}
	for _, image := range images {
		for _, layer := range image.Layers {
			if _, exists := read[layer.DiffID]; layer.Read && layer.DiffID != "" && !exists {
				read[layer.DiffID] = layer
			}
		}
	}
	return read
}

// fromRead replaces layers by those that were read, so that the same layer has the same files in both images.
func fromRead(layers []Layer, read map[string]Layer) []Layer {
	layers = slices.Clone(layers)
	for i, layer := range layers {
		if found, exists := read[layer.DiffID]; exists {
			layers[i] = found
		}
	}
	return layers
}

// comparePackages returns the packages with other versions. A package with several versions is one change.
func comparePackages(before, after []Package) (changes []PackageChange) {
	byName := map[[2]string]*PackageChange{}
	add := func(packages []Package, versions func(*PackageChange) *string) {
		for _, p := range packages { // sorted by version
			key := [2]string{p.Manager, p.Name}
			if byName[key] == nil {
				byName[key] = &PackageChange{Manager: p.Manager, Name: p.Name}
			}
			list := versions(byName[key])
			if *list != "" {
				*list += ", "
			}
			*list += p.Version
		}
	}
	add(before, func(c *PackageChange) *string { return &c.Before })
	add(after, func(c *PackageChange) *string { return &c.After })
	for _, c := range byName {
		if c.Before != c.After {
			changes = append(changes, *c)
		}
	}
	slices.SortFunc(changes, func(a, b PackageChange) int {
		return cmp.Or(strings.Compare(a.Manager, b.Manager), strings.Compare(a.Name, b.Name))
	})
	return changes
}
