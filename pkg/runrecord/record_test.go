package runrecord

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// fill sets every field of a value: strings to text, numbers to 1, and lists and maps to one element.
func fill(v reflect.Value, text string) {
	if v.Type() == reflect.TypeFor[time.Time]() {
		v.Set(reflect.ValueOf(time.Unix(1, 0).UTC()))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), text)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), text)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), text)
	case reflect.Map:
		key, element := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, text)
		fill(element, text)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, element)
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Float64:
		v.SetFloat(1)
	default:
		panic(v.Type().String())
	}
}

func full(text string) *Record {
	record := &Record{}
	fill(reflect.ValueOf(record).Elem(), text)
	record.Format = Version
	return record
}

func TestWriteAndRead(t *testing.T) {
	var first, second bytes.Buffer
	want := full("a & b")
	if err := want.Write(&first); err != nil {
		t.Fatal(err)
	}
	got, err := Read(bytes.NewReader(first.Bytes()))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v: %+v", err, got)
	}
	if err := got.Write(&second); err != nil || second.String() != first.String() {
		t.Errorf("%v: the second text differs from the first:\n%s", err, second.String())
	}
}

// Clean reaches every text of a record.
func TestClean(t *testing.T) {
	record := full("one secret\ntwo secret")
	record.Clean(func(line string) string {
		if strings.Contains(line, "\n") {
			t.Errorf("%q is not one line", line)
		}
		return strings.ReplaceAll(line, "secret", "***")
	})
	var text bytes.Buffer
	if err := record.Write(&text); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text.String(), "secret\\n") || strings.Contains(text.String(), "two secret") {
		t.Errorf("not clean: %s", text.String())
	}
	if want := full("one ***\ntwo ***"); !reflect.DeepEqual(record, want) {
		t.Errorf("got %+v, want %+v", record, want)
	}
}

// The schema accepts every record and no other types.
func TestSchema(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, record := range map[string]*Record{"full": full("a"), "of a rejected run": {Format: Version}} {
		var text bytes.Buffer
		if err := record.Write(&text); err != nil {
			t.Fatal(err)
		}
		value, err := jsonschema.UnmarshalJSON(&text)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(value); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		value.(map[string]any)["exit_code"] = "1"
		if schema.Validate(value) == nil {
			t.Errorf("%s: a text is accepted as exit code", name)
		}
	}
}
