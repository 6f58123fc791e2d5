package dockerengine

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// blockedSource blocks reads until it is closed, like a builder that sends nothing. Reads then fail as its stream does.
type blockedSource struct {
	reading, closed   chan struct{}
	readOnce, endOnce sync.Once
}

func (s *blockedSource) Read([]byte) (int, error) {
	s.readOnce.Do(func() { close(s.reading) })
	<-s.closed
	return 0, context.Canceled
}

func (s *blockedSource) Close() error {
	s.endOnce.Do(func() { close(s.closed) })
	return nil
}

// Whatever ends a load first is its error, not what follows from it: an interrupted source or a closed pipe.
func TestLoadKeepsTheCause(t *testing.T) {
	interrupted, broken := errors.New("timed out"), errors.New("builder unavailable")
	full := `{"errorDetail":{"message":"write blob: no space left on device"}}`
	for _, test := range []struct {
		name   string
		broken bool   // the source fails
		cancel bool   // the run ends
		answer string // of the engine, while the source is read
		is     error
		want   string
	}{
		{name: "the engine's disk is full", answer: full, want: "no space left on device (free disk space"},
		{name: "the source fails", broken: true, answer: `{"errorDetail":{"message":"unexpected EOF"}}`, is: broken},
		{name: "the run ends", cancel: true, is: interrupted},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			source := &blockedSource{reading: make(chan struct{}), closed: make(chan struct{})}
			a := archiveOf(t, randomLayer(t))
			a.layers[0].layer = openerLayer{a.layers[0].layer, func(v1.Layer) (io.ReadCloser, error) {
				if test.broken {
					return nil, broken
				}
				return source, nil
			}}
			e := engineOn(t, func(r *http.Request) (*http.Response, error) {
				received := make(chan struct{})
				go func() {
					defer close(received)
					_, _ = io.Copy(io.Discard, r.Body) // ends when Load closes the pipe
				}()
				select {
				case <-source.reading:
				case <-received:
				}
				if test.cancel {
					cancel(interrupted)
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(test.answer))}, nil
			})
			err := e.streamArchive(ctx, a, a.layers)
			if err == nil || test.is != nil && !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %v%s", err, test.is, test.want)
			}
		})
	}
}
