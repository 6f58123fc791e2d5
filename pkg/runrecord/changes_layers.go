package runrecord

import (
	"cmp"
	"slices"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
)

// layerPair is a layer in both images, or in one of them.
type layerPair struct{ before, after *Layer }

// compareLayers returns the layers that only one of the images has, in the order of the images. It pairs layers of the
// same instruction, and in a place with as many layers before as after, layers of the same kind of instruction.
func compareLayers(before, after []Layer) (changes []LayerChange) {
	var pairs []layerPair
	for _, op := range opCodes(instructionsOf(before), instructionsOf(after)) {
		old, current := before[op.I1:op.I2], after[op.J1:op.J2]
		if op.Tag == 'e' || slices.EqualFunc(old, current, isSameKind) {
			for i := range old {
				pairs = append(pairs, layerPair{&old[i], &current[i]})
			}
			continue
		}
		for i := range old {
			pairs = append(pairs, layerPair{before: &old[i]})
		}
		for i := range current {
			pairs = append(pairs, layerPair{after: &current[i]})
		}
	}
	for _, p := range joinMoved(pairs) {
		switch {
		case p.after == nil:
			changes = append(changes, LayerChange{CreatedBy: p.before.CreatedBy, Before: p.before.Size})
		case p.before == nil:
			changes = append(changes, LayerChange{CreatedBy: p.after.CreatedBy, After: p.after.Size})
		case p.before.DiffID != p.after.DiffID:
			changes = append(changes, LayerChange{p.after.CreatedBy, p.before.Size, p.after.Size})
		}
	}
	return changes
}

// joinMoved joins the two halves of an instruction that has moved.
func joinMoved(pairs []layerPair) []layerPair {
	for i, p := range pairs {
		if p.before != nil {
			continue
		}
		moved := slices.IndexFunc(pairs, func(other layerPair) bool {
			return other.after == nil && other.before != nil && instruction(*other.before) == instruction(*p.after)
		})
		if moved >= 0 {
			pairs[i].before, pairs[moved].before = pairs[moved].before, nil
		}
	}
	return slices.DeleteFunc(pairs, func(p layerPair) bool { return p == layerPair{} })
}

// opCodes returns how two lists differ.
func opCodes(before, after []string) []difflib.OpCode {
	return difflib.NewMatcherWithJunk(before, after, false, nil).GetOpCodes()
}

// instruction returns what identifies a layer in its image.
func instruction(layer Layer) string { return cmp.Or(layer.CreatedBy, layer.DiffID) }

func instructionsOf(layers []Layer) (list []string) {
	for _, layer := range layers {
		list = append(list, instruction(layer))
	}
	return list
}

// isSameKind reports whether two layers have the same kind of instruction, such as RUN.
func isSameKind(a, b Layer) bool {
	kindA, _, _ := strings.Cut(a.CreatedBy, " ")
	kindB, _, _ := strings.Cut(b.CreatedBy, " ")
	return kindA == kindB
}
