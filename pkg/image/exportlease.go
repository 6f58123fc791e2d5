package image

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Depot's builders collect garbage between a solve and the reads that follow it. Their image exporter can protect the
// image with a lease, and can return its manifest and config in the response (depot/buildkit ce9540e,
// exporter/containerimage/export.go, Resolve and Export; depot/lease.go). Depot's CLI uses both (depot/cli b57f518,
// pkg/load/cli.go). Other builders ignore the attributes.
var (
	// imageVersionAttrs select where Depot's exporters return manifest and config: in the response, instead of in
	// annotations of the image's descriptor, which are part of an index and change its digest.
	imageVersionAttrs = map[string]string{"depot.export.image.version": "2"}
	// exportLeaseAttrs request a lease, which expires after an hour.
	exportLeaseAttrs = map[string]string{"depot.export.lease": "true"}
)

const (
	exportLeaseKey    = "depot/session.id"      // in the response: the ID of the lease
	exportedImagesKey = "depot/images.exported" // in the response: base64 of a JSON list of exportedImage
)

// exportedImage is an image in the response of Depot's image exporter.
type exportedImage struct {
	Manifest []byte `json:"manifest"`
	Config   []byte `json:"config"`
}

// takeExportLease removes what Depot's exporter adds from the exporter's response, and returns the ID of the lease
// and the manifests and configs.
func takeExportLease(response map[string]string) (lease string, blobs map[v1.Hash][]byte, err error) {
	lease = response[exportLeaseKey]
	encoded := response[exportedImagesKey]
	delete(response, exportLeaseKey)
	delete(response, exportedImagesKey)
	data, err := base64.StdEncoding.DecodeString(encoded)
	var images []exportedImage
	if err == nil && len(data) > 0 {
		err = json.Unmarshal(data, &images)
	}
	if err != nil {
		return lease, nil, fmt.Errorf("decode %s: %w", exportedImagesKey, err)
	}
	blobs = map[v1.Hash][]byte{}
	for _, image := range images {
		for _, blob := range [][]byte{image.Manifest, image.Config} {
			hash, _, err := v1.SHA256(bytes.NewReader(blob))
			if err != nil {
				return lease, nil, err
			}
			blobs[hash] = blob
		}
	}
	return lease, blobs, nil
}
