package lfs

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/safetext"
)

const (
	maxAttempts = 4
	firstWait   = 500 * time.Millisecond
	minRate     = 1000 // bytes per second
)

// download downloads an object. After an interruption it continues where it stopped. It requests the URL again, because
// URLs expire.
func (d downloader) download(ctx context.Context, object Object, from action) error {
	path := filepath.Join(d.dir, object.OID)
	file, err := os.Create(path + ".part")
	if err != nil {
		return err
	}
	defer file.Close()
	p := &partialObject{file: file, sum: sha256.New(), size: object.Size, progress: d.progress}
	err = d.receiveAll(ctx, object, from, p)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	} else if err != nil {
		return fmt.Errorf("download %s: %w", safetext.Line(object.Path, maxMessage), err)
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(path+".part", path)
}

func (d downloader) receiveAll(ctx context.Context, object Object, from action, p *partialObject) error {
	clock := d.HTTP.Clock
	if clock == nil {
		clock = httpclient.SystemClock{}
	}
	for attempt := 1; ; attempt++ {
		err := d.receive(ctx, from, p)
		if err == nil {
			err = p.verify(object.OID)
		}
		if err == nil || attempt == maxAttempts || isFinal(err) {
			return err
		}
		if err := clock.Sleep(ctx, firstWait<<(attempt-1)); err != nil {
			return err
		}
		actions, err := d.requestBatch(ctx, []Object{object})
		if err != nil {
			return err
		}
		from = actions[object.OID]
	}
}

// isFinal reports whether another attempt to receive an object is useless: the HTTP client has made several, or the
// failure is not the server's.
func isFinal(err error) bool {
	status := httpclient.Status(err)
	return status >= 500 || status == http.StatusTooManyRequests || errors.As(err, new(*os.PathError)) ||
		errors.As(err, new(*unsafeURLError))
}

// receive requests the rest of an object.
func (d downloader) receive(ctx context.Context, from action, p *partialObject) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, from.Href, nil)
	if err != nil {
		return err
	}
	if strings.HasPrefix(d.URL, "https:") && request.URL.Scheme != "https" {
		return &unsafeURLError{request.URL.Host}
	}
	for name, value := range from.Header {
		request.Header.Set(name, value)
	}
	d.authorize(request)
	request.Header.Set("Accept-Encoding", "identity")
	offset := p.received.Load()
	if offset > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	config := d.HTTP
	config.Policy.StreamBody, config.FollowRedirects = true, true
	service := httpclient.Service{
		Name: request.URL.Host, URL: request.URL.Host, Message: storageMessage, Clock: config.Clock,
		Hints: []httpclient.Hint{
			{On: httpclient.NoResponse, Text: "check the network, and that the machine can reach this host"},
			{On: httpclient.Any, Text: "try again later"},
		},
	}
	response, err := config.Client().Do(request)
	if err != nil {
		return service.Failure(ctx, "request the object", nil, err, nil)
	}
	defer response.Body.Close()
	continues := response.StatusCode == http.StatusPartialContent &&
		strings.HasPrefix(response.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", offset))
	if !continues {
		if err := p.restart(); err != nil {
			return err
		}
	}
	if !continues && response.StatusCode != http.StatusOK {
		response.Body = io.NopCloser(io.LimitReader(response.Body, maxErrorBody))
		return service.Failure(ctx, "request the object", response, nil, nil)
	}
	go d.watchRate(ctx, cancel, p)
	_, err = io.Copy(p, io.LimitReader(response.Body, p.size-p.received.Load()+1))
	if slow, ok := errors.AsType[*slowError](context.Cause(ctx)); ok {
		return slow
	}
	return err
}

const maxErrorBody = 64 << 10

// storageMessage returns the message of an error response of S3, Azure or a Git LFS server.
func storageMessage(body []byte) (string, bool) {
	var answer struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &answer) == nil && answer.Message != "" {
		return answer.Message, true
	}
	message := messagePattern.FindSubmatch(body)
	if message == nil {
		return "", true
	}
	return string(message[1]), true
}

var messagePattern = regexp.MustCompile(`<Message>([^<]*)</Message>`)

// watchRate cancels a download that is slower than minRate, until ctx ends.
func (d downloader) watchRate(ctx context.Context, cancel context.CancelCauseFunc, p *partialObject) {
	idle := cmp.Or(d.IdleTimeout, time.Minute)
	ticker := time.NewTicker(idle)
	defer ticker.Stop()
	for before := p.received.Load(); ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := p.received.Load()
		if float64(now-before) < minRate*idle.Seconds() {
			cancel(&slowError{idle})
			return
		}
		before = now
	}
}

// slowError reports a download that was slower than minRate for a time.
type slowError struct{ idle time.Duration }

func (e *slowError) Error() string {
	return fmt.Sprintf("received less than %d bytes/s for %s (check the network)", minRate, e.idle)
}

// unsafeURLError reports a URL that the server may not name.
type unsafeURLError struct{ host string }

func (e *unsafeURLError) Error() string {
	return fmt.Sprintf("the server names a URL on %s without TLS", e.host)
}

// partialObject is the file of an object that is being received.
type partialObject struct {
	file     *os.File
	sum      hash.Hash // of the received bytes
	size     int64
	received atomic.Int64
	progress func(bytes int64) // may be nil
}

// Write implements [io.Writer].
func (p *partialObject) Write(data []byte) (int, error) {
	n, err := p.file.Write(data)
	_, _ = p.sum.Write(data[:n]) // never fails
	p.add(int64(n))
	return n, err
}

func (p *partialObject) add(n int64) {
	p.received.Add(n)
	if p.progress != nil {
		p.progress(n)
	}
}

// restart discards the received bytes.
func (p *partialObject) restart() error {
	p.sum.Reset()
	p.add(-p.received.Load())
	if err := p.file.Truncate(0); err != nil {
		return err
	}
	_, err := p.file.Seek(0, io.SeekStart)
	return err
}

// verify returns an error if the object is incomplete or wrong. It discards a wrong one.
func (p *partialObject) verify(oid string) error {
	received := p.received.Load()
	if received < p.size {
		return fmt.Errorf("received %d of %d bytes: %w", received, p.size, io.ErrUnexpectedEOF)
	}
	got := fmt.Sprintf("%x", p.sum.Sum(nil))
	if got == oid && received == p.size {
		return nil
	}
	if received > p.size {
		got = "more than " + strconv.FormatInt(p.size, 10) + " bytes"
	}
	return errors.Join(fmt.Errorf("checksum mismatch: got %s, want %s", got, oid), p.restart())
}
