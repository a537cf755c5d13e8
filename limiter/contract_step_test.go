package limiter_test

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"freeagent-proxy/limiter"
)

// contract is two replicas that share a store; in memory they are the same one.
type contract struct {
	testing.TB // of a step, but for the whole one
	whole      testing.TB
	one, other anyLimiter
	attempt    int
	lost       int // how often the two had lost Redis before
}

// budget is one that no other step uses, nor another attempt at this one.
func (c contract) budget(key string, requests int, per time.Duration) limiter.Budget {
	return budget(fmt.Sprint(key, "/", c.attempt), requests, per)
}

// attempts is how often a step is begun at most.
const attempts = 20

// step is a part of the contract. That holds for two who count in Redis: if one of them has lost it meanwhile, because the machine was
// too busy for an answer in time, a step that failed says nothing, and is begun anew with new budgets. A permit too many is a fault all
// the same; see refused.
func (c contract) step(what func(contract)) {
	c.Helper()
	for n := range attempts {
		until(c, "both count in Redis", func() bool { return linked(c.one) && linked(c.other) })
		before := c.losses()
		s := &step{TB: c.TB}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			what(contract{s, c.whole, c.one, c.other, n, before})
		}()
		<-ended
		switch lost := c.losses() - before; {
		case !s.Failed():
			return
		case lost == 0:
			s.report(c.Error)
			return
		default:
			s.report(c.Log)
			c.Logf("Redis was lost %d times meanwhile: once more", lost)
		}
	}
	c.Errorf("Redis was lost in each of %d attempts", attempts)
}

// until waits until something is so, but not for long if Redis was lost: it may never be then.
func (c contract) until(what string, so func() bool) {
	c.Helper()
	began := time.Now()
	until(c, what, func() bool {
		if so() {
			return true
		}
		if c.losses() > c.lost && time.Since(began) > 10*time.Second {
			c.Fatalf("not so, since Redis was lost: %s", what)
		}
		return false
	})
}

// losses is how often the two have lost Redis.
func (c contract) losses() int { return losses(c.one) + losses(c.other) }

func linked(l anyLimiter) bool {
	r, ok := l.(*limiter.Redis)
	return !ok || r.State() == "linked"
}

func losses(l anyLimiter) int {
	if r, ok := l.(*limiter.Redis); ok {
		return r.Losses()
	}
	return 0
}

// step keeps what is said of a step until it is known whether that counts.
type step struct {
	testing.TB

	mu   sync.Mutex
	said []string
}

func (s *step) Error(args ...any)                 { s.say(fmt.Sprint(args...)) }
func (s *step) Errorf(format string, args ...any) { s.say(fmt.Sprintf(format, args...)) }

func (s *step) Fatal(args ...any) {
	s.say(fmt.Sprint(args...))
	runtime.Goexit()
}

func (s *step) Fatalf(format string, args ...any) {
	s.say(fmt.Sprintf(format, args...))
	runtime.Goexit()
}

// say notes what is wrong, and which of our lines say so.
func (s *step) say(what string) {
	var lines []string
	pcs := make([]uintptr, 10)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	for more := true; more; {
		var at runtime.Frame
		at, more = frames.Next()
		if strings.HasSuffix(at.File, "_test.go") {
			lines = append(lines, fmt.Sprintf("%s:%d", filepath.Base(at.File), at.Line))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, what+" ("+strings.Join(lines, " < ")+")")
}

func (s *step) Failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.said) > 0
}

func (s *step) report(to func(...any)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, what := range s.said {
		to(what)
	}
}
