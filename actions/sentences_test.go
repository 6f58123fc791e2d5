package actions

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// subjects are the packages, the script and the workflows, which all say something, in the order of docs/sentences.md.
var subjects = []string{"actions/run.sh", ".github/workflows", "actions", "pkg/runner", "pkg/source", "pkg/builder", "pkg/image", "pkg/dockerengine", "pkg/suite", "pkg/daytona", "pkg/doppler"}

func sentencesOf(t *testing.T, dir string) []string {
	t.Helper()
	found, err := sentencesIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Every sentence that a program can end with is in docs/sentences.md.
func TestSentencesContract(t *testing.T) {
	same(t, "../docs/sentences.md", func(old []byte) string {
		text := string(old)
		for _, subject := range subjects {
			var list strings.Builder
			for _, sentence := range sentencesOf(t, "../"+subject) {
				list.WriteString("- " + strings.NewReplacer("<", "&lt;", "*", `\*`).Replace(sentence) + "\n")
			}
			between := regexp.MustCompile(`(?s)(<!-- ` + subject + ` -->\n).*?(<!-- end -->)`)
			if !between.MatchString(text) {
				t.Errorf("docs/sentences.md has no place for %s", subject)
			}
			text = between.ReplaceAllLiteralString(text, between.FindStringSubmatch(text)[1]+list.String()+"<!-- end -->")
		}
		return text
	})
	packages, err := filepath.Glob("../pkg/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range packages {
		if !slices.Contains(subjects, strings.TrimPrefix(dir, "../")) && len(sentencesOf(t, dir)) > 0 {
			t.Errorf("%s is no subject of docs/sentences.md", dir)
		}
	}
}

// documented are the sentences of the code as one expression that finds the last of them at the end of what was said.
var documented = sync.OnceValue(func() *regexp.Regexp {
	var all []string
	for _, subject := range subjects {
		found, err := sentencesIn("../" + subject)
		if err != nil {
			panic(err)
		}
		for _, sentence := range found {
			all = append(all, strings.ReplaceAll(regexp.QuoteMeta(sentence), "…", ".*"))
		}
	}
	return regexp.MustCompile(`(^|[:;,] |\()(` + strings.Join(all, "|") + `)$`)
})

// ofFlags is what the reader of flags says.
var ofFlags = regexp.MustCompile(`^(input [a-z_]+|--[a-z-]+): expected |^unknown flag `)

// checkDocumented sees that what a program ended with is in docs/sentences.md.
func checkDocumented(t *testing.T, stderr string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	said, ok := strings.CutPrefix(lines[len(lines)-1], "error: ")
	if ok && !ofFlags.MatchString(said) && !documented().MatchString(said) {
		t.Errorf("not in docs/sentences.md: %s", said)
	}
}

// remarks are calls whose text ends nothing: it is shown beside the work, or is for machines, or is looked for in what others say.
var remarks = regexp.MustCompile(`^(Infof|[lL]og|Group|begin|Warning|Notice|row|table|warn|Fprint(f|ln)|WriteString|Command(Context)?|git|MustCompile|[cC]ontains|HasPrefix|Format)$`)

// sentencesIn are the texts of a package's code that can be a sentence or a part of one: of three words or more (two before another's sentence), with … for what is
// known only then. What is only a remark is left out.
func sentencesIn(dir string) ([]string, error) {
	if strings.HasSuffix(dir, ".sh") {
		script, err := os.ReadFile(dir)
		return sentencesOfScript(string(script)), err
	}
	files, err := filepath.Glob(dir + "/*.*")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, name := range files {
		if strings.HasSuffix(name, ".yml") {
			steps, err := os.ReadFile(name)
			if err != nil {
				return nil, err
			}
			found = append(found, sentencesOfScript(string(steps))...)
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(file, func(node ast.Node) bool {
			switch node := node.(type) {
			case *ast.ImportSpec, *ast.ArrayType:
				return false
			case *ast.Field: // a tag is no text
				return node.Tag == nil
			case *ast.CompositeLit: // words of a command, or what others say
				if array, ok := node.Type.(*ast.ArrayType); ok && fmt.Sprint(array.Elt) == "string" {
					return false
				}
			case *ast.CallExpr:
				name := called(node)
				if remarks.MatchString(name) {
					return false
				}
				if name == "refuse" || name == "refuseLine" {
					if input, ok := text(node.Args[0]); ok && len(node.Args) == 3 {
						if why, ok := text(node.Args[2]); ok {
							if name == "refuseLine" {
								input += ", line …"
							}
							found = append(found, "input "+input+": … "+why)
							return false
						}
					}
				}
			}
			if expression, ok := node.(ast.Expr); ok {
				if sentence, ok := text(expression); ok {
					if len(word.FindAllString(sentence, -1)) >= 3-strings.Count(sentence, "…: …") && !strings.Contains(sentence, "\n") {
						found = append(found, strings.TrimSpace(sentence))
					}
					return false
				}
			}
			return true
		})
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// sentencesOfScript are what a shell script, or the steps of a workflow, end with, and why.
func sentencesOfScript(script string) []string {
	var found []string
	script = regexp.MustCompile(`\$(\w+|\{[^}]*\}|\([^)]*\))`).ReplaceAllString(script, "…")
	for _, m := range regexp.MustCompile(`\b(?:fail |why=)(?:"([^"]+)"|'([^']+)')|"::error::([^"]+)"`).FindAllStringSubmatch(script, -1) {
		found = append(found, m[1]+m[2]+m[3])
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func called(call *ast.CallExpr) string {
	switch function := call.Fun.(type) {
	case *ast.Ident:
		return function.Name
	case *ast.SelectorExpr:
		return function.Sel.Name
	}
	return ""
}

// word is one of a sentence, and not a part of a name.
var word = regexp.MustCompile(`\S*[A-Za-z]\S*`)

var verb = regexp.MustCompile(`%[-+# 0-9.\[\]*]*[a-zA-Z]`)

// text is what an expression says: a literal, a format, or a concatenation with one.
func text(expression ast.Expr) (string, bool) {
	switch e := expression.(type) {
	case *ast.BasicLit:
		if e.Kind != token.STRING {
			return "", false
		}
		value, err := strconv.Unquote(e.Value)
		return verb.ReplaceAllString(strings.ReplaceAll(value, "%%", "%"), "…"), err == nil
	case *ast.BinaryExpr:
		left, isLeft := text(e.X)
		right, isRight := text(e.Y)
		if e.Op != token.ADD || !isLeft && !isRight {
			return "", false
		}
		if !isLeft {
			left = "…"
		}
		if !isRight {
			right = "…"
		}
		return strings.ReplaceAll(left+right, "……", "…"), true
	case *ast.ParenExpr:
		return text(e.X)
	case *ast.CallExpr:
		if name := called(e); (name == "Sprintf" || name == "Errorf" || name == "New") && len(e.Args) > 0 {
			return text(e.Args[0])
		}
	}
	return "", false
}
