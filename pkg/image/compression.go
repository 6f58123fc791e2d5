package image

// Compression selects how the builder compresses new layers, which accounts for much of the time of a cold build.
//
// Layers of base images and earlier builds keep their compression, except with [Gzip], which recompresses them.
type Compression string

const (
	// DefaultCompression is BuildKit's default, gzip.
	DefaultCompression Compression = ""
	// Gzip is for published images. Every registry and engine supports it, and the digest does not depend on earlier
	// builds.
	Gzip Compression = "gzip"
	// ZstdFast is zstd at its fastest level, for a Docker Engine and for Daytona.
	ZstdFast Compression = "zstd-fast"
	// Uncompressed is for a Docker Engine on the builder's machine.
	Uncompressed Compression = "uncompressed"
)

// exporterAttrs returns the attributes of BuildKit's image exporter.
func (c Compression) exporterAttrs() map[string]string {
	switch c {
	case Gzip:
		return map[string]string{"compression": "gzip", "force-compression": "true"}
	case ZstdFast:
		return map[string]string{"compression": "zstd", "compression-level": "1"}
	case Uncompressed:
		return map[string]string{"compression": "uncompressed"}
	}
	return map[string]string{}
}
