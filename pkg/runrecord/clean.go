package runrecord

import (
	"reflect"
	"strings"
)

// Clean applies clean to each line of text in the record, also to the keys of maps. It removes secrets and control
// characters from text that comes from outside.
func (r *Record) Clean(clean func(line string) string) { cleanValue(reflect.ValueOf(r).Elem(), clean) }

func cleanValue(v reflect.Value, clean func(string) string) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			cleanValue(v.Elem(), clean)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() { // time.Time has other fields only
				cleanValue(v.Field(i), clean)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			cleanValue(v.Index(i), clean)
		}
	case reflect.Map: // of strings
		cleaned := reflect.MakeMapWithSize(v.Type(), v.Len())
		for _, key := range v.MapKeys() {
			cleaned.SetMapIndex(
				reflect.ValueOf(cleanLines(key.String(), clean)), reflect.ValueOf(cleanLines(v.MapIndex(key).String(), clean)))
		}
		if !v.IsNil() {
			v.Set(cleaned)
		}
	case reflect.String:
		v.SetString(cleanLines(v.String(), clean))
	}
}

func cleanLines(text string, clean func(string) string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = clean(line)
	}
	return strings.Join(lines, "\n")
}
