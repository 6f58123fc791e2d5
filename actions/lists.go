package actions

import (
	"encoding/csv"
	"errors"
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// Item is one element of a list, and the line of the input on which it begins.
type Item struct {
	Text string
	Line int
}

// List is an input whose elements are separated by commas and line breaks.
type List []Item

// Lines is an input with one element a line: commas belong to it.
type Lines []Item

// Decode implements kong.MapperValue. A flag may be given several times.
func (l *List) Decode(ctx *kong.DecodeContext) error {
	return decode(ctx, func(fields []string, line int) {
		for _, field := range fields {
			if field = strings.TrimSpace(field); field != "" {
				*l = append(*l, Item{field, line})
			}
		}
	}, false)
}

// Decode implements kong.MapperValue. A flag may be given several times.
func (l *Lines) Decode(ctx *kong.DecodeContext) error {
	return decode(ctx, func(fields []string, line int) {
		*l = append(*l, Item{strings.Join(fields, ","), line})
	}, true)
}

// Texts are the elements without their lines.
func Texts[L ~[]Item](list L) []string {
	var texts []string
	for _, item := range list {
		texts = append(texts, item.Text)
	}
	return texts
}

// decode reads a list as docker/build-push-action does: CSV in which a quoted element may hold commas, line breaks and doubled quotes;
// lines that begin with # and blank ones are skipped. With whole, a line that does not begin with a quote is one element as it stands.
func decode(ctx *kong.DecodeContext, add func(fields []string, line int), whole bool) error {
	var text string
	if err := ctx.Scan.PopValueInto("list", &text); err != nil {
		return err
	}
	for number := 1; text != ""; {
		line, rest, _ := strings.Cut(text, "\n")
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || trimmed[0] == '#':
		case trimmed[0] != '"' && whole:
			add([]string{trimmed}, number)
		default:
			reader := csv.NewReader(strings.NewReader(text))
			reader.TrimLeadingSpace = true
			fields, err := reader.Read()
			if errors.Is(err, csv.ErrBareQuote) { // a quote inside an element stands for itself
				reader = csv.NewReader(strings.NewReader(text))
				reader.TrimLeadingSpace, reader.LazyQuotes = true, true
				fields, err = reader.Read()
			}
			if parse := new(csv.ParseError); errors.As(err, &parse) {
				return fmt.Errorf("line %d: %w: double a quote inside quotes, and close what is opened", number+parse.StartLine-1, parse.Err)
			} else if err != nil {
				return err
			}
			add(fields, number)
			line, rest = text[:reader.InputOffset()], text[reader.InputOffset():]
			number += strings.Count(line, "\n") - 1
		}
		text = rest
		number++
	}
	return nil
}
