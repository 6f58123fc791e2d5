package grace

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestExtend(t *testing.T) {
	interrupted, late := errors.New("interrupted"), errors.New("too late")
	for _, test := range []struct{ cause, want error }{{nil, interrupted}, {late, late}} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			extended, stop := Extend(ctx, time.Second, test.cause)
			defer stop()
			time.Sleep(time.Hour)
			cancel(interrupted)
			time.Sleep(time.Second - time.Nanosecond)
			if err := context.Cause(extended); err != nil {
				t.Errorf("ended before the grace period: %v", err)
			}
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			if err := context.Cause(extended); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
	extended, stop := Extend(t.Context(), time.Hour, nil)
	stop()
	if err := context.Cause(extended); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v after stop", err)
	}
}
