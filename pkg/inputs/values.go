package inputs

import (
	"encoding/csv"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/tonistiigi/go-csvvalue"
)

// Item is one element of a list.
type Item struct {
	Text string
	Line int // the line of the input on which the element begins, from 1
}

// List is an input that holds elements separated by commas or line breaks.
type List []Item

// Lines is an input that holds one element per line. Commas are part of an element.
type Lines []Item

// Decode implements kong.MapperValue. A repeated flag appends.
func (l *List) Decode(ctx *kong.DecodeContext) error {
	items, err := decodeItems(ctx, true)
	*l = append(*l, items...)
	return err
}

// Decode implements kong.MapperValue. A repeated flag appends.
func (l *Lines) Decode(ctx *kong.DecodeContext) error {
	items, err := decodeItems(ctx, false)
	*l = append(*l, items...)
	return err
}

// Texts returns the elements without their line numbers.
func Texts[L ~[]Item](list L) []string {
	var texts []string
	for _, item := range list {
		texts = append(texts, item.Text)
	}
	return texts
}

func decodeItems(ctx *kong.DecodeContext, splitAtCommas bool) ([]Item, error) {
	var text string
	if err := ctx.Scan.PopValueInto("list", &text); err != nil {
		return nil, err
	}
	items, err := parseItems(text, splitAtCommas)
	if invalid := (*Error)(nil); errors.As(err, &invalid) {
		invalid.Input = inputOf(ctx)
	}
	return items, err
}

// parseItems parses a list like docker/build-push-action: as CSV, in which a quoted element can contain commas, line
// breaks and doubled quotes. It skips blank lines and lines that begin with #. Unless splitAtCommas is set, a line that
// does not begin with a quote is one element, verbatim. A byte order mark at the start is skipped.
func parseItems(text string, splitAtCommas bool) (items []Item, err error) {
	text = strings.TrimPrefix(text, "\ufeff")
	for number := 1; text != ""; number++ {
		line, rest, _ := strings.Cut(text, "\n")
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || trimmed[0] == '#':
		case trimmed[0] != '"' && !splitAtCommas:
			items = append(items, Item{trimmed, number})
		default:
			fields, consumed, err := readRecord(text)
			if err != nil {
				return nil, csvError(number, err)
			}
			items = append(items, itemsOf(fields, number, splitAtCommas)...)
			line, rest = text[:consumed], text[consumed:]
			number += strings.Count(line, "\n") - 1
		}
		text = rest
	}
	return items, nil
}

// readRecord reads the first CSV record of text and returns its length in bytes. A quote inside an unquoted element is
// literal, as in A={"b": 1}.
func readRecord(text string) (fields []string, consumed int64, err error) {
	for _, lazy := range []bool{false, true} {
		reader := csv.NewReader(strings.NewReader(text))
		reader.TrimLeadingSpace, reader.LazyQuotes = true, lazy
		fields, err = reader.Read()
		consumed = reader.InputOffset()
		if err == nil && strings.Contains(text[:consumed], "\r") {
			// encoding/csv removes carriage returns, which may be part of a quoted secret.
			record := csvvalue.Parser{Comma: ',', LazyQuotes: lazy, TrimLeadingSpace: true}
			fields, err = record.Fields(text[:consumed], nil)
		}
		if !errors.Is(err, csv.ErrBareQuote) {
			return fields, consumed, err
		}
	}
	return fields, 0, err
}

func csvError(number int, err error) error {
	parse := (*csv.ParseError)(nil)
	if !errors.As(err, &parse) {
		return err
	}
	return &Error{
		Line:   number + parse.StartLine - 1,
		Reason: parse.Err.Error() + "; close every quote, and double a quote inside quotes",
	}
}

func itemsOf(fields []string, line int, splitAtCommas bool) (items []Item) {
	if !splitAtCommas {
		return []Item{{strings.Join(fields, ","), line}}
	}
	for _, field := range fields {
		if field = strings.TrimSpace(field); field != "" {
			items = append(items, Item{field, line})
		}
	}
	return items
}

// inputOf returns the name of the input that is being decoded.
func inputOf(ctx *kong.DecodeContext) string {
	return strings.ReplaceAll(ctx.Value.Name, "-", "_")
}

// boolMapper decodes booleans: true, false, 1, 0, yes or no.
type boolMapper struct{}

// IsBool implements kong.BoolMapper: the flag needs no value.
func (boolMapper) IsBool() bool { return true }

// Decode implements kong.Mapper.
func (boolMapper) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	if ctx.Scan.Peek().Type != kong.FlagValueToken {
		target.SetBool(true)
		return nil
	}
	switch value := ctx.Scan.Pop().Value.(type) {
	case bool:
		target.SetBool(value)
		return nil
	case string:
		switch strings.ToLower(strings.TrimSpace(value)) {
		case "true", "1", "yes":
			target.SetBool(true)
			return nil
		case "false", "0", "no":
			target.SetBool(false)
			return nil
		}
		return Errorf(inputOf(ctx), value, "must be true or false")
	default:
		return Errorf(inputOf(ctx), fmt.Sprint(value), "must be true or false")
	}
}

func decodeInt(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("number", &text); err != nil {
		return err
	}
	number, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		return Errorf(inputOf(ctx), text, "must be a whole number, for example 5")
	}
	target.SetInt(int64(number))
	return nil
}

func decodeDuration(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("duration", &text); err != nil {
		return err
	}
	text = strings.TrimSpace(text)
	if text != "" && text != "0" && strings.Trim(text, "0123456789.") == "" {
		return Errorf(inputOf(ctx), text, "has no unit; write %[1]sm or %[1]ss", text)
	}
	duration, err := time.ParseDuration(text)
	if err != nil {
		return Errorf(inputOf(ctx), text, "must be a duration with a unit, for example 30m or 90s")
	}
	target.SetInt(int64(duration))
	return nil
}
