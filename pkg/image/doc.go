// Package image builds a Dockerfile with BuildKit, and opens and pushes images. It transfers only the bytes that are
// read.
//
// [Solve] builds for one platform and leaves the image in the builder. The [Result] is a go-containerregistry image
// whose manifest, config and layers are read on demand from the builder's content store, over the open connection.
// [Open] returns the same type for an image in a registry or in an OCI layout. [Progress] displays a running build and
// collects its [Stats].
//
// # Which compression does a layer get?
//
// The one in [Request].Compression; see [Compression]. Callers choose [Gzip] when others may refer to the image by its
// digest, and otherwise what the local Docker Engine loads fastest.
//
// # Who pushes?
//
// BuildKit's exporter pushes the image of one platform, straight from the builder: during the build ([Request].Push)
// or later ([PushFromBuilder]). This process pushes the index of several platforms ([JoinPlatforms], [PushIndex]),
// after each builder has pushed its own platform by digest, so only the index itself is sent. [PushImage] copies an
// image that was opened elsewhere.
//
// The attributes of the Dockerfile frontend and of the image exporter are documented in
// https://github.com/moby/buildkit/tree/master/docs.
package image
