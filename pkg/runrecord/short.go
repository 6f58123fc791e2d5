package runrecord

import "slices"

// Short returns the record without what only the report and the next comparison need: the logs of steps, the files and
// packages of images, and the content of the source.
func (r Record) Short() *Record {
	r.Steps = slices.Clone(r.Steps)
	for i := range r.Steps {
		r.Steps[i].Log = ""
	}
	if r.Source != nil {
		source := *r.Source
		source.Definition, source.Files, source.BuildArgs = "", nil, nil
		r.Source = &source
	}
	if r.Image == nil {
		return &r
	}
	image := *r.Image
	image.Platforms = slices.Clone(image.Platforms)
	for i := range image.Platforms {
		p := &image.Platforms[i]
		p.Packages, p.Layers = nil, slices.Clone(p.Layers)
		for j, layer := range p.Layers {
			p.Layers[j] = Layer{
				Digest: layer.Digest, DiffID: layer.DiffID, Size: layer.Size, Unpacked: layer.Unpacked, CreatedBy: layer.CreatedBy,
			}
		}
	}
	r.Image = &image
	return &r
}
