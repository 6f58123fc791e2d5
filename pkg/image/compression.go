package image

// Compression is how the builder compresses the layers that it makes. A cold build spends much of its time there.
//
// Layers that the builder already holds, of a base image or of an earlier build, keep the compression they have, except
// with [Gzip] and [GzipFast], which recompress them.
type Compression string

const (
	// DefaultCompression is BuildKit's own: gzip.
	DefaultCompression Compression = ""
	// Gzip is for registries: each registry and engine reads it, and the digest does not depend on earlier builds.
	Gzip Compression = "gzip"
	// GzipFast is gzip at its fastest level, for a Docker Engine before version 23.
	GzipFast Compression = "gzip-fast"
	// ZstdFast is zstd at its fastest level, for a Docker Engine of version 23 or later.
	ZstdFast Compression = "zstd-fast"
	// Uncompressed is for a Docker Engine on the builder's machine.
	Uncompressed Compression = "uncompressed"
)

// exporterAttrs returns the attributes of BuildKit's image exporter.
func (c Compression) exporterAttrs() map[string]string {
	switch c {
	case Gzip:
		return map[string]string{"compression": "gzip", "force-compression": "true"}
	case GzipFast:
		return map[string]string{"compression": "gzip", "compression-level": "1", "force-compression": "true"}
	case ZstdFast:
		return map[string]string{"compression": "zstd", "compression-level": "1"}
	case Uncompressed:
		return map[string]string{"compression": "uncompressed"}
	}
	return map[string]string{}
}
