package actions

import (
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/org/sandbox-actions/pkg/daytona"
)

// defaultRegionMark ends the tag of an image whose snapshot is created without a region.
const defaultRegionMark = "-default"

// imageTag returns the tag of an image in Daytona's registry. Daytona keeps the reference of a snapshot's image, so the
// tag tells other runs the digest before Daytona has inspected the image, and whether the snapshot was created without
// a region, that is, in the organization's default region.
func imageTag(digest v1.Hash, inDefaultRegion bool) string {
	tag := digest.Algorithm + "-" + digest.Hex
	if inDefaultRegion {
		tag += defaultRegionMark
	}
	return tag
}

// parseImageTag returns what [imageTag] wrote to the tag of a reference. The digest is zero for another tag.
func parseImageTag(reference string) (digest v1.Hash, inDefaultRegion bool) {
	tag := reference[strings.LastIndex(reference, ":")+1:]
	tag, inDefaultRegion = strings.CutSuffix(tag, defaultRegionMark)
	algorithm, hex, _ := strings.Cut(tag, "-")
	digest, err := v1.NewHash(algorithm + ":" + hex)
	return digest, inDefaultRegion && err == nil
}

// defaultRegion returns the organization's default region if a snapshot in the list was created without a
// region. An API key cannot read it otherwise, and it never changes (daytonaio/daytona v0.190.0,
// apps/api/src/organization/services/organization.service.ts, setDefaultRegion).
func defaultRegion(list []daytona.Snapshot) string {
	for _, s := range list {
		if _, inDefaultRegion := parseImageTag(s.Image); inDefaultRegion && len(s.Regions) == 1 {
			return s.Regions[0]
		}
	}
	return ""
}
