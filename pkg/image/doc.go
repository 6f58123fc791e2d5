// Package image builds a Dockerfile with BuildKit, and opens and pushes images. It transfers only the bytes that a
// caller reads.
//
// [Solve] builds for one platform and leaves the image in the builder. The [Result] is a go-containerregistry image
// that reads its manifest, config and layers on demand from the builder's content store, over the open connection.
// [Open] returns the same type for an image in a registry or in an OCI layout. [Progress] displays a running build and
// collects its [Stats].
//
// # Which compression does a layer get?
//
// [Request].Compression selects it; see [Compression]. Callers choose [Gzip] for an image that is published, and
// [ZstdFast] for one that only a Docker Engine or Daytona reads.
//
// # How many solves does a build need?
//
// One if the builder runs several exporters in a solve, otherwise one for each export, from the builder's cache. The
// capabilities of the builder decide. BuildKit before v0.13 and Depot's public fork of v0.11 run only the first
// exporter and ignore the others.
//
// # Who pushes?
//
// BuildKit's exporter pushes the image of one platform directly from the builder: during the build ([Request].Push) or
// later ([PushFromBuilder]). This process pushes the index of several platforms ([JoinPlatforms], [PushIndex]). It
// sends only the index, because each builder has pushed the image of its platform by digest. [PushImage] copies an
// image from another source. Each push must be confirmed by the exporter's response, and [CheckPushed] checks that the
// registry has the digest.
//
// The attributes of the Dockerfile frontend and of the image exporter are documented in
// https://github.com/moby/buildkit/tree/master/docs.
package image
