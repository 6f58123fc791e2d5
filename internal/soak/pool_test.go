//go:build linux

package soak

import (
	"iter"
	"sync"
	"testing"
)

// workers is the number of labs that run at once. Most runs wait, for the services and for retries.
const workers = 12

// inLabs runs jobs in labs, several at once, and returns when all jobs have ended.
func inLabs(t *testing.T, jobs iter.Seq[func(*lab)]) {
	t.Helper()
	queue := make(chan func(*lab))
	var running sync.WaitGroup
	for range workers {
		l := newLab(t)
		running.Go(func() {
			for job := range queue {
				job(l)
			}
		})
	}
	for job := range jobs {
		queue <- job
	}
	close(queue)
	running.Wait()
}
