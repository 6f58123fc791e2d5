package htmlreport

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/org/sandbox-actions/pkg/runrecord"
)

// treeImage is the content of an image for the treemap.
type treeImage struct {
	Platform string `json:"platform"`
	Root     node   `json:"root"`
}

// node is a layer, a directory or a file. Its area is proportional to Area: the compressed bytes of a layer, shared
// among its files by their size.
type node struct {
	Name     string  `json:"name"`
	Bytes    int64   `json:"bytes"` // compressed for the image and its layers, otherwise unpacked
	Area     float64 `json:"area"`
	Rest     int     `json:"rest,omitempty"` // number of smaller entries that this node stands for
	Children []*node `json:"children,omitempty"`

	depth    int
	kept     bool
	children map[string]*node
}

// tree returns the layers of an image with their largest directories and files.
func tree(image runrecord.PlatformImage) treeImage {
	root := &node{Name: "Image", Bytes: image.Size}
	for i, l := range image.Layers {
		name := l.CreatedBy
		if name == "" {
			name = fmt.Sprintf("Layer %d", i+1)
		}
		layer := &node{Name: name, Bytes: l.Size, Area: float64(l.Size)}
		root.Area += layer.Area
		root.Children = append(root.Children, layer)
		addFiles(layer, l.Files)
	}
	keepLargest(root, maxNodes)
	return treeImage{image.Platform, *root}
}

// addFiles adds the files of a layer as a tree of directories.
func addFiles(layer *node, files []runrecord.File) {
	total := 0.0
	for _, f := range files {
		total += float64(f.Size)
	}
	if total == 0 {
		return
	}
	for _, f := range files {
		at, area := layer, layer.Area*float64(f.Size)/total
		for part := range strings.SplitSeq(f.Path, "/") {
			if part == "" {
				continue
			}
			child := at.children[part]
			if child == nil {
				child = &node{Name: part, depth: at.depth + 1}
				if at.children == nil {
					at.children = map[string]*node{}
				}
				at.children[part] = child
				at.Children = append(at.Children, child)
			}
			child.Bytes += f.Size
			child.Area += area
			at = child
		}
	}
}

// keepLargest keeps the layers and the limit largest nodes below them. A directory is at least as large as what it
// contains, so the result is a tree. In each directory, one node stands for the others.
func keepLargest(root *node, limit int) {
	var all []*node
	var collect func(n *node)
	collect = func(n *node) {
		for _, child := range n.Children {
			all = append(all, child)
			collect(child)
		}
	}
	for _, layer := range root.Children {
		collect(layer)
	}
	slices.SortStableFunc(all, func(a, b *node) int {
		return cmp.Or(cmp.Compare(b.Area, a.Area), cmp.Compare(a.depth, b.depth))
	})
	for _, n := range all[:min(len(all), limit)] {
		n.kept = true
	}
	for _, layer := range root.Children {
		finish(layer)
	}
}

// finish merges the nodes that are not kept, sorts the others by size, and joins directories with a single entry.
func finish(n *node) {
	var rest node
	n.Children = slices.DeleteFunc(n.Children, func(child *node) bool {
		if child.kept {
			return false
		}
		rest.Rest++
		rest.Bytes += child.Bytes
		rest.Area += child.Area
		return true
	})
	for _, child := range n.Children {
		finish(child)
	}
	slices.SortStableFunc(n.Children, func(a, b *node) int {
		return cmp.Or(cmp.Compare(b.Area, a.Area), cmp.Compare(a.Name, b.Name))
	})
	if rest.Rest > 0 {
		rest.Name = count(rest.Rest, "smaller entry")
		if rest.Rest > 1 {
			rest.Name = fmt.Sprintf("%d smaller entries", rest.Rest)
		}
		n.Children = append(n.Children, &rest)
	}
	if n.depth > 0 && len(n.Children) == 1 && n.Children[0].Rest == 0 {
		only := n.Children[0]
		n.Name += "/" + only.Name
		n.Children = only.Children
	}
}
