package tokens_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/tokens"
)

const forbidden = "GET /v2/forbidden"

// frugal expects that no minute saw more than two refreshes, the first aside, which brought the grant.
func (r *rig) frugal() {
	r.t.Helper()
	if n := most(r.agent.times()[1:], time.Minute); n > 2 {
		r.t.Errorf("%d refreshes in one minute, want two at most", n)
	}
}

// own expects that a request is answered by its resource's own 401, after so long.
func (r *rig) own(resource string, after time.Duration) {
	r.t.Helper()
	began := time.Now()
	rejected, err := r.request(resource, never)
	if waited := time.Since(began); !rejected || err != nil || waited != after {
		r.t.Fatalf("%s: rejected %v, %v after %v; want the resource's own 401 after %v", resource, rejected, err, waited, after)
	}
}

// fine expects that a request succeeds at once.
func (r *rig) fine(resource string, healthy func(tokens.Token) bool) {
	r.t.Helper()
	began := time.Now()
	rejected, err := r.request(resource, healthy)
	if waited := time.Since(began); rejected || err != nil || waited != 0 {
		r.t.Errorf("%s: rejected %v, %v after %v; want success at once", resource, rejected, err, waited)
	}
}

// A resource that answers 401 to healthy tokens, polled each second amid healthy traffic: at most two
// refreshes in any minute, and no client waits for it.
func TestStubbornResource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.inUse()
		sleep(10 * time.Second)
		for range 10 * 60 {
			r.own(forbidden, 0)
			r.fine(invoices, always)
			sleep(time.Second)
		}
		r.frugal()
		if n := r.agent.count(); n < 9 {
			t.Errorf("%d refreshes in ten minutes: it is not asked again", n)
		}

		// Meanwhile a token that is revoked is cured at once by any other resource.
		for range 3 {
			sleep(6 * time.Second)
			r.fine(invoices, but(r.token()))
		}
		sleep(6 * time.Second)
		r.fine("GET /v2/never_seen", but(r.token()))
	})
}

// One of a resource's many answers 401, the others do not: they are told apart.
func TestStubbornRequestOfAHealthyResource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.inUse()
		sleep(10 * time.Second)
		const resource = "GET /v2/invoices/:id"
		for range 5 * 60 {
			if rejected, err := r.exactly(resource, "13", never); !rejected || err != nil {
				t.Fatalf("stubborn: %v, %v", rejected, err)
			}
			if rejected, err := r.exactly(resource, "14", always); rejected || err != nil {
				t.Fatalf("healthy: %v, %v", rejected, err)
			}
			sleep(time.Second)
		}
		r.frugal()
		for range 3 {
			_, _ = r.exactly(resource, "13", never)
			sleep(6 * time.Second)
			began := time.Now()
			if rejected, err := r.exactly(resource, "14", but(r.token())); rejected || err != nil || time.Since(began) != 0 {
				t.Errorf("revoked token: %v, %v after %v; want it cured at once", rejected, err, time.Since(began))
			}
		}
	})
}

// A request that is now accepted, now not, and nothing tells which it will be: the bound holds.
func TestRequestThatIsNowRejectedNowNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.inUse()
		sleep(10 * time.Second)
		for i := range 10 * 60 {
			if rejected, err := r.request(invoices, func(tokens.Token) bool { return i%2 == 0 }); rejected != (i%2 == 1) || err != nil {
				t.Fatalf("request %d: %v, %v", i, rejected, err)
			}
			sleep(time.Second)
		}
		r.frugal()
		sleep(6 * time.Second)
		if rejected, err := r.request(invoices, but(r.token())); rejected || err != nil {
			t.Errorf("revoked token: %v, %v; want it cured", rejected, err)
		}
	})
}

// Hundreds of client companies that each reject one resource: two refreshes a minute all the same, and no more
// than one once they are known.
func TestManyStubbornResources(t *testing.T) {
	for _, before := range []bool{false, true} { // whether they accepted tokens once
		t.Run(fmt.Sprintf("accepted once %v", before), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.inUse()
				sleep(10 * time.Second)
				if before {
					r.own(forbidden, 0)
					for i := range 300 {
						r.fine(fmt.Sprint("GET /v2/payroll ", i), always)
					}
				}
				for i := range 30 * 60 {
					if rejected, err := r.request(fmt.Sprint("GET /v2/payroll ", i%300), never); !rejected || err != nil {
						t.Fatalf("request %d: %v, %v", i, rejected, err)
					}
					r.fine(invoices, always)
					sleep(time.Second)
				}
				r.frugal()
				settled := r.agent.count()
				sleep(time.Minute)
				for i := range 10 * 60 {
					r.own(fmt.Sprint("GET /v2/payroll ", i%300), 0)
					r.fine(invoices, always)
					sleep(time.Second)
				}
				if n := r.agent.count() - settled; n > 10 {
					t.Errorf("%d refreshes in ten minutes", n)
				}
				sleep(6 * time.Second)
				r.fine(invoices, but(r.token()))
			})
		})
	}
}

// A resource that accepts a token again is trusted again, when it has for a minute.
func TestStubbornResourceComesRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.inUse()
		sleep(time.Minute)
		if r.Suspicious() {
			t.Error("suspicious of nothing")
		}
		r.own(invoices, 0)
		r.refreshes(2)
		if !r.Suspicious() {
			t.Error("not suspicious")
		}
		sleep(10 * time.Second)
		r.own(invoices, 0)
		r.refreshes(2)
		r.fine(invoices, always)
		if rejected, err := r.request(invoices, but(r.token())); rejected || err != nil {
			t.Errorf("request: %v, %v; want it cured", rejected, err)
		}
		r.refreshes(3)
		sleep(time.Minute)
		r.fine(invoices, always)
		if r.Suspicious() {
			t.Error("still suspicious")
		}
		r.fine(invoices, but(r.token()))
		r.refreshes(4)
		if r.Suspicious() {
			t.Error("suspicious although the renewal helped")
		}
	})
}

// A new consent is not held responsible for what the last one's tokens met with.
func TestStubbornResourcesOfAnotherGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, replace := range []func(*rig) error{
			func(r *rig) error { return r.Put(context.Background(), r.consent("50")) },
			func(r *rig) error { return r.Remove(context.Background(), account) },
		} {
			r := newRig(t)
			r.inUse()
			sleep(time.Minute)
			_, _ = r.request(invoices, never)
			if err := replace(r); err != nil {
				t.Fatal(err)
			}
			if r.Suspicious() {
				t.Error("still suspicious")
			}
		}
	})
}

// A stubborn resource is polled alone, then a token is revoked: what other resources meet
// with is cured, since its 401s were not the token's fault.
func TestRevokedBesideAStubbornResource(t *testing.T) {
	for _, polls := range []int{1, 3, 600} {
		t.Run(fmt.Sprint(polls), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.inUse()
				for range polls {
					if rejected, err := r.request(forbidden, never); !rejected || err != nil {
						t.Fatalf("request: %v, %v; want the resource's own 401", rejected, err)
					}
					sleep(time.Second)
				}
				r.frugal()
				before := r.agent.count()
				if rejected, err := r.request(invoices, but(r.token())); rejected || err != nil {
					t.Errorf("revoked token: %v, %v; want it cured", rejected, err)
				}
				r.refreshes(before + 1)
			})
		})
	}
}

// A company where everything is 401: each resource gets its own 401, and two refreshes a minute are the most.
func TestEverythingIsRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.inUse()
		sleep(time.Minute)
		resource := func(i int) string { return fmt.Sprintf("GET /v2/resource-%c", 'a'+i%26) }
		for i := range 30 * 60 {
			if rejected, err := r.request(resource(i), never); !rejected || err != nil {
				t.Fatalf("second %d: %v, %v", i, rejected, err)
			}
			sleep(time.Second)
		}
		r.frugal()
		for i := range 5 * 60 { // all are known by now
			r.own(resource(i), 0)
			sleep(time.Second)
		}
		sleep(6 * time.Second)
		r.fine("GET /v2/new", but(r.token()))
	})
}

// When nobody knows whose fault a 401 is, what other requests meet with decides.
func TestOthersTellWhoseFaultItIs(t *testing.T) {
	for name, c := range map[string]struct {
		other    func(r *rig, current tokens.Token)
		rejected bool
	}{
		"accepted":      {func(r *rig, _ tokens.Token) { r.fine(invoices, always) }, true},
		"rejected, too": {func(r *rig, current tokens.Token) { r.fine(invoices, but(current)) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.inUse()
				sleep(time.Minute)
				for _, resource := range []string{"GET /v2/a", "GET /v2/b"} { // they use up the useless renewals
					r.own(resource, 0)
					r.fine(invoices, always)
					sleep(6 * time.Second)
				}
				current, began := r.token(), time.Now()
				healthy := never
				if !c.rejected {
					healthy = but(current)
				}
				result := make(chan bool)
				go func() {
					rejected, err := r.request("GET /v2/c", healthy)
					if err != nil {
						t.Error(err)
					}
					result <- rejected
				}()
				sleep(time.Second)
				c.other(r, current)
				if rejected := <-result; rejected != c.rejected || time.Since(began) != time.Second {
					t.Errorf("rejected %v after %v, want %v as soon as another resource tells", rejected, time.Since(began), c.rejected)
				}
			})
		})
	}
}

// An answer to what was sent before the 401 says nothing: the token may have been revoked in between.
func TestEarlierAnswersTellNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.inUse()
		sleep(time.Minute)
		for _, resource := range []string{"GET /v2/a", "GET /v2/b"} {
			r.own(resource, 0)
			r.fine("GET /v2/company", always)
			sleep(6 * time.Second)
		}
		revoked := r.token()
		slow := attempt(invoices, revoked)
		sleep(time.Second)
		var others sync.WaitGroup
		defer others.Wait()
		others.Go(func() {
			time.Sleep(500 * time.Millisecond)
			r.Accepted(slow)
			time.Sleep(500 * time.Millisecond)
			r.fine("GET /v2/company", but(revoked))
		})
		if rejected, err := r.request("GET /v2/c", but(revoked)); rejected || err != nil {
			t.Errorf("request: %v, %v; want it cured", rejected, err)
		}
	})
}

// What is remembered is bounded, and so are refreshes when it is forgotten.
func TestStubbornResourcesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.inUse()
		sleep(time.Minute)
		r.own(forbidden, 0)
		before := heapInUse()
		for i := range 100_000 {
			r.Accepted(attempt(fmt.Sprint("GET /v2/", i), r.token()))
		}
		if grown := heapInUse() - before; grown > 2<<20 {
			t.Errorf("%d KB for what is remembered of one account", grown>>10)
		}
		for range 10 * 60 {
			_, _ = r.request(forbidden, never)
			sleep(time.Second)
		}
		r.frugal()
	})
}

// While the token endpoint is in trouble a stubborn resource's 401 is handed on, not held back.
func TestStubbornResourceInTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.inUse()
		sleep(time.Minute)
		r.own(forbidden, 0)
		sleep(2 * time.Minute)
		r.agent.ever(unavailable)
		for range 60 {
			r.own(forbidden, 0)
			r.fine(invoices, always)
			sleep(time.Second)
		}
	})
}

func heapInUse() int {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int(stats.HeapAlloc)
}
