package lfs

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// Server is the Git LFS server of a repository.
type Server struct {
	URL   string // for example https://github.com/OWNER/NAME.git/info/lfs
	Token string // for URL and no other server; "" for none

	HTTP        httpclient.Config
	IdleTimeout time.Duration // how long a download may be slower than 1000 bytes/s; default 1 min
}

// Object is an object to download.
type Object struct {
	Pointer
	Path string // of a file with this object, for errors
}

const (
	batchSize         = 100 // objects of one request, as git-lfs sends (v3.8.1, tq/transfer_queue.go)
	parallelDownloads = 8
)

// Download downloads objects to the files dir/OID, and verifies their SHA-256. It downloads each object once. Each time
// that more bytes have arrived, it calls progress, if that is not nil, from several goroutines. ref is the full name of
// the ref that the objects belong to, or "".
func (s Server) Download(
	ctx context.Context, ref string, objects []Object, dir string, progress func(bytes int64),
) error {
	objects = slices.SortedFunc(slices.Values(objects), func(a, b Object) int {
		return cmp.Or(cmp.Compare(a.OID, b.OID), cmp.Compare(a.Path, b.Path))
	})
	objects = slices.CompactFunc(objects, func(a, b Object) bool { return a.OID == b.OID })
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	d := downloader{Server: s, ref: ref, dir: dir, progress: progress}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(1 + parallelDownloads)
	group.Go(func() error {
		for batch := range slices.Chunk(objects, batchSize) {
			actions, err := d.requestBatch(ctx, batch)
			if err != nil {
				return err
			}
			for _, object := range batch {
				group.Go(func() error { return d.download(ctx, object, actions[object.OID]) })
			}
		}
		return nil
	})
	return group.Wait()
}

type downloader struct {
	Server
	ref, dir string
	progress func(bytes int64)
}

// action describes the request for an object.
type action struct {
	Href   string            `json:"href"`
	Header map[string]string `json:"header"`
}

// batchRequest and batchResponse are the messages of the Batch API (docs/api/batch.md).
type batchRequest struct {
	Operation string        `json:"operation"`
	Transfers []string      `json:"transfers"`
	Ref       *batchRef     `json:"ref,omitempty"`
	Objects   []batchObject `json:"objects"`
	HashAlgo  string        `json:"hash_algo"`
}

type batchRef struct {
	Name string `json:"name"`
}

type batchObject struct {
	OID     string `json:"oid"`
	Size    int64  `json:"size"`
	Actions struct {
		Download *action `json:"download"`
	} `json:"actions,omitzero"`
	Error *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

type batchResponse struct {
	Transfer string        `json:"transfer"`
	Objects  []batchObject `json:"objects"`
}

const mediaType = "application/vnd.git-lfs+json"

// requestBatch requests the actions that download objects. The result has one for each object.
func (d downloader) requestBatch(ctx context.Context, objects []Object) (map[string]action, error) {
	message := batchRequest{Operation: "download", Transfers: []string{"basic"}, HashAlgo: "sha256"}
	if d.ref != "" {
		message.Ref = &batchRef{d.ref}
	}
	for _, object := range objects {
		message.Objects = append(message.Objects, batchObject{OID: object.OID, Size: object.Size})
	}
	body, err := json.Marshal(message)
	if err != nil {
		return nil, err
	}
	ctx = httpclient.Idempotent(ctx)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, d.URL+"/objects/batch", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", mediaType)
	request.Header.Set("Content-Type", mediaType)
	d.authorize(request)
	config := d.HTTP
	if config.Policy.RateLimit == nil {
		config.Policy.RateLimit = httpclient.GitHubRateLimit
	}
	response, err := config.Client().Do(request)
	if err != nil {
		return nil, d.failure(ctx, nil, err)
	}
	defer response.Body.Close()
	var answer batchResponse
	if response.StatusCode != http.StatusOK {
		return nil, d.failure(ctx, response, nil)
	}
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, d.failure(ctx, nil, err)
	}
	if err := json.Unmarshal(data, &answer); err != nil || answer.Transfer != "" && answer.Transfer != "basic" {
		response.Body = io.NopCloser(bytes.NewReader(data))
		return nil, d.failure(ctx, response, err)
	}
	return d.actions(answer, objects)
}

// actions returns the actions of a response, or an error that names the objects that the server does not have.
func (d downloader) actions(answer batchResponse, objects []Object) (map[string]action, error) {
	found := map[string]action{}
	reasons := map[string]string{}
	for _, object := range answer.Objects {
		if object.Error != nil {
			reasons[object.OID] = fmt.Sprintf("%d %s", object.Error.Code, safetext.Line(object.Error.Message, maxMessage))
		} else if object.Actions.Download != nil {
			found[object.OID] = *object.Actions.Download
		}
	}
	missing := &MissingError{Server: d.URL}
	for _, object := range objects {
		if _, ok := found[object.OID]; !ok {
			missing.Paths = append(missing.Paths, object.Path)
			missing.Reason = cmp.Or(missing.Reason, reasons[object.OID], "the server names no URL for it")
		}
	}
	if len(missing.Paths) > 0 {
		return nil, missing
	}
	return found, nil
}

const maxMessage = 300

// MissingError reports objects that the server does not have or does not serve.
type MissingError struct {
	Server string
	Paths  []string // of the files
	Reason string   // from the server, for the first file
}

func (e *MissingError) Error() string {
	const shown = 3
	paths := make([]string, 0, shown+1)
	for _, path := range e.Paths[:min(shown, len(e.Paths))] {
		paths = append(paths, safetext.Line(path, maxMessage))
	}
	if more := len(e.Paths) - shown; more > 0 {
		paths = append(paths, fmt.Sprintf("and %d more", more))
	}
	return fmt.Sprintf("%s does not provide %s: %s (push the objects with `git lfs push --all origin`, or set "+
		"lfs: false)",
		e.Server, strings.Join(paths, ", "), e.Reason)
}

// authorize adds the token to a request to the server, unless the request has other credentials.
func (d downloader) authorize(request *http.Request) {
	server, err := url.Parse(d.URL)
	if err == nil && d.Token != "" && isSameServer(request.URL, server) && request.Header.Get("Authorization") == "" {
		request.SetBasicAuth("x-access-token", d.Token)
	}
}

func isSameServer(a, b *url.URL) bool { return a.Scheme == b.Scheme && a.Host == b.Host }

func (d downloader) failure(ctx context.Context, response *http.Response, err error) error {
	service := httpclient.Service{Name: d.URL, URL: d.URL, Hints: d.hints(), Clock: d.HTTP.Clock}
	return service.Failure(ctx, "request the objects", response, err, []string{d.Token})
}

func (d downloader) hints() []httpclient.Hint {
	const noBudget = "raise the Git LFS budget of the repository's owner, or set lfs: false"
	access := "the github_token needs contents: read for this repository"
	if d.Token == "" {
		access = "set github_token to a token with contents: read; only the GitHub server gets it"
	}
	return []httpclient.Hint{
		// GitHub's messages: "exceeded its LFS budget" (onekey-sec/unblob#1183), "over its data quota" (nabla-c0d3/nassl#99).
		{On: http.StatusForbidden, Message: "budget", Text: noBudget},
		{On: http.StatusForbidden, Message: "quota", Text: noBudget},
		{On: http.StatusInsufficientStorage, Text: noBudget},
		{On: statusBandwidthLimit, Text: noBudget},
		{On: http.StatusTooManyRequests, Text: "the server limits requests: try again in a few minutes"},
		{On: http.StatusUnauthorized, Text: access},
		{On: http.StatusForbidden, Text: access},
		{On: http.StatusNotFound, Text: "the server has no Git LFS for this repository, or the token cannot read it"},
		{On: http.StatusRequestEntityTooLarge, Text: "the server refuses a request for 100 objects: set lfs: false"},
		{On: httpclient.ServerErrors, Text: "try again later"},
		{On: httpclient.NoResponse, Text: "check the network"},
		{On: httpclient.Any, Text: "the response is not from a Git LFS server: check lfs.url in .lfsconfig"},
	}
}

const statusBandwidthLimit = 509 // docs/api/batch.md
