package runrecord

import (
	"reflect"
	"testing"
)

func TestShort(t *testing.T) {
	record, original := full("x"), full("x")
	short := record.Short()
	if short.Source.Files != nil || short.Source.Definition != "" ||
		short.Image.Platforms[0].Packages != nil || short.Steps[0].Log != "" ||
		short.Image.Platforms[0].Layers[0].Files != nil || short.Image.Platforms[0].Layers[0].Digest != "x" {
		t.Errorf("got %+v", short)
	}
	if !reflect.DeepEqual(record, original) {
		t.Error("the record itself has changed")
	}
	if empty := (Record{}).Short(); !reflect.DeepEqual(empty, &Record{}) {
		t.Errorf("of an empty record: %+v", empty)
	}
}
