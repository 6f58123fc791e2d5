package htmlreport

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/org/sandbox-actions/pkg/runrecord"
)

func render(t *testing.T, r *runrecord.Record) []byte {
	t.Helper()
	var page bytes.Buffer
	if err := Write(&page, r); err != nil {
		t.Fatal(err)
	}
	return page.Bytes()
}

// Texts of a record stay text: the page has its own scripts, which the policy names, and no other active content.
func TestHostileText(t *testing.T) {
	page := render(t, hostileRecord())
	document, err := html.Parse(bytes.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	var scripts, policies []string
	for n := range document.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		attributes := map[string]string{}
		for _, a := range n.Attr {
			attributes[a.Key] = a.Val
			if strings.HasPrefix(a.Key, "on") || strings.HasPrefix(strings.ToLower(strings.TrimSpace(a.Val)), "javascript:") {
				t.Errorf("<%s> has the attribute %s=%q", n.Data, a.Key, a.Val)
			}
		}
		switch n.Data {
		case "script":
			if attributes["type"] == "application/json" {
				var data chartData
				if err := json.Unmarshal([]byte(n.FirstChild.Data), &data); err != nil || len(data.Bars) == 0 {
					t.Errorf("the data has %d bars: %v", len(data.Bars), err)
				}
				break
			}
			scripts = append(scripts, contentHash(n.FirstChild.Data))
		case "style":
			scripts = append(scripts, contentHash(n.FirstChild.Data))
		case "meta":
			if attributes["http-equiv"] == "Content-Security-Policy" {
				policies = append(policies, attributes["content"])
			}
		case "img", "iframe", "object", "embed", "base", "form", "link":
			t.Errorf("the page has a <%s>", n.Data)
		}
	}
	if len(scripts) != 2 || len(policies) != 1 {
		t.Fatalf("got %d scripts and styles and %d policies, want 2 and 1", len(scripts), len(policies))
	}
	for _, hash := range scripts {
		if !strings.Contains(policies[0], hash) {
			t.Errorf("the policy %q lacks %s", policies[0], hash)
		}
	}
}

// A page with many steps, files and tests, and long logs stays below 32 MB and says what it omits.
func TestLimits(t *testing.T) {
	page := string(render(t, hugeRecord()))
	if len(page) > 32<<20 {
		t.Errorf("the page has %d bytes", len(page))
	}
	for _, want := range []string{
		"The first 2000 steps are omitted", "2000 tests omitted", "7003 packages omitted", "smaller entries", "exit code: 2",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not contain %q", want)
		}
	}
	// The failed test and the log of the failed step are complete.
	if !strings.Contains(page, "test 11999") {
		t.Error("the page omits the failed test")
	}
	steps, _ := steps(hugeRecord())
	if last := steps[len(steps)-1]; last.Omitted != "" || steps[0].Omitted == "" {
		t.Errorf("omitted %q of the log of the failed step, and %q of another", last.Omitted, steps[0].Omitted)
	}
}

// The page says why a step ran, and what the comparison lacks.
func TestChanges(t *testing.T) {
	r := builtRecord()
	r.Changes.Platforms[0].Unread = 1
	page := string(render(t, r))
	for _, want := range []string{
		"Changed files: <code>tools/package.json</code>",
		"Changed instructions before it: <code>ENV NODE_ENV=production</code>",
		"Files and packages of 1 layer are not compared",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not contain %q", want)
		}
	}
}

func TestEnd(t *testing.T) {
	for _, test := range []struct {
		log         string
		limit       int
		end, missed string
	}{
		{"one\ntwo\n", 100, "one\ntwo\n", ""},
		{"one\ntwo\nthree\n", 8, "three\n", "8 B"},
		{"a line without an end", 3, "end", "18 B"},
		{"ééé", 3, "é", "4 B"},
		{"one\n", 0, "", "4 B"},
	} {
		if end, missed := end(test.log, test.limit); end != test.end || missed != test.missed {
			t.Errorf("%q, %d: got %q, %q, want %q, %q", test.log, test.limit, end, missed, test.end, test.missed)
		}
	}
}

// The treemap keeps the largest entries, and the area of each directory is that of its entries.
func TestTree(t *testing.T) {
	image := hugeRecord().Image.Platforms[0]
	root := tree(image).Root
	nodes := 0
	var check func(n *node)
	check = func(n *node) {
		nodes++
		sum := 0.0
		for _, child := range n.Children {
			sum += child.Area
			check(child)
		}
		if len(n.Children) > 0 && math.Abs(sum-n.Area) > 1e-6*n.Area {
			t.Errorf("%s: the area is %v, that of its entries %v", n.Name, n.Area, sum)
		}
	}
	check(&root)
	if nodes < maxNodes/2 || nodes > 3*maxNodes {
		t.Errorf("got %d nodes", nodes)
	}
	small := tree(runrecord.PlatformImage{Layers: []runrecord.Layer{{
		Size: 100, CreatedBy: "RUN x", Files: files("/usr//share/doc/a", 30, "usr/share/doc/b", 10, "empty", 0),
	}}}).Root
	got, err := json.Marshal(small.Children)
	if err != nil {
		t.Fatal(err)
	}
	const want = `[{"name":"RUN x","bytes":100,"area":100,"children":[` +
		`{"name":"usr/share/doc","bytes":40,"area":100,"children":[{"name":"a","bytes":30,"area":75},` +
		`{"name":"b","bytes":10,"area":25}]},{"name":"empty","bytes":0,"area":0}]}]`
	if string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Links lead to the commit, the run, the line of the Dockerfile, and nowhere outside GitHub Actions.
func TestLinks(t *testing.T) {
	r := failedRecord()
	page := string(render(t, r))
	for _, want := range []string{
		"https://github.com/acme/agents/commit/" + testSHA,
		"https://github.com/acme/agents/actions/runs/4711/attempts/2",
		"https://github.com/acme/agents/blob/" + testSHA + "/sandbox/Dockerfile#L11",
	} {
		if !strings.Contains(page, `href="`+want+`"`) {
			t.Errorf("no link to %s", want)
		}
	}
	r.Run = nil
	if page := string(render(t, r)); strings.Contains(page, "href=\"http") {
		t.Error("the page of a local run has links")
	}
}

// The script of the page is current, has the licenses of what it contains, and stays small.
func TestScript(t *testing.T) {
	for _, want := range []string{"DO NOT EDIT", "Apache License", "The Apache Software Foundation", "zrender/LICENSE"} {
		if !strings.Contains(script, want) {
			t.Errorf("the script does not contain %q", want)
		}
	}
	for _, end := range []string{"</script", "</style", "<!--"} {
		if strings.Contains(strings.ToLower(script+style), end) {
			t.Errorf("the script or the style contains %s, which can end its element", end)
		}
	}
	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	if _, err := w.Write([]byte(script)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if compressed.Len() > 250_000 {
		t.Errorf("the compressed script has %d bytes, want at most 250000", compressed.Len())
	}
	attributes, err := os.ReadFile("../../.gitattributes")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(attributes), "/pkg/htmlreport/report.js linguist-generated") {
		t.Error(".gitattributes does not mark report.js as generated")
	}
	if testing.Short() {
		return
	}
	file := filepath.Join(t.TempDir(), "report.js")
	if output, err := exec.Command("../../scripts/report.sh", file).CombinedOutput(); err != nil {
		t.Fatalf("bundle the script: %v\n%s", err, output)
	}
	if current, err := os.ReadFile(file); err != nil || string(current) != script {
		t.Errorf("report.js is out of date: run scripts/report.sh (%v)", err)
	}
}
