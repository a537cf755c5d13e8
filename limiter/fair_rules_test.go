package limiter_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/limiter"

	"pgregory.net/rapid"
)

// Whoever the clients are, no window sees too much, nobody waits too long, and each client is
// served in order of arrival.
func TestExactnessWithClients(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := &runner{scenario: drawScenario(rt)}
		clients := rapid.SliceOfN(rapid.IntRange(0, 3), len(r.requests), len(r.requests)).Draw(rt, "clients")
		weighted := rapid.Bool().Draw(rt, "weighted")
		for i := range r.requests {
			r.requests[i].client = fmt.Sprint("client", clients[i])
			if weighted {
				r.requests[i].weight = 1 + clients[i]
			}
		}
		synctest.Test(t, func(t *testing.T) {
			r.l = newLocal(t, limiter.Config{Guard: r.guard})
			r.run(t)
		})
		for _, p := range r.problems {
			rt.Error(p)
		}
		if err := check(r.history, append(r.accounts, r.egress), r.guard); err != nil {
			rt.Error(err)
		}
		for _, p := range r.history {
			for _, q := range r.history {
				if p.budgets[0].Key == q.budgets[0].Key && clients[p.request] == clients[q.request] &&
					p.request < q.request && p.at.After(q.at) {
					rt.Errorf("request %d was served before %d of the same client", q.request, p.request)
				}
			}
		}
	})
}

// drawQueue lets clients of several weights come in any order: each is the index of a weight.
func drawQueue(t *rapid.T) (weights, clients []int) {
	weights = rapid.SliceOfN(rapid.IntRange(1, 5), 2, 5).Draw(t, "weights")
	clients = rapid.SliceOfN(rapid.IntRange(0, len(weights)-1), 2, 60).Draw(t, "clients")
	return weights, clients
}

// While two clients wait, what they have had differs by no more than one permit of each, in proportion to their weights.
func TestNobodyLagsBehind(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		weights, clients := drawQueue(rt)
		var turns []string
		synctest.Test(t, func(t *testing.T) {
			l := newLocal(t, limiter.Config{})
			b := budget("acme", 1, 10*time.Millisecond)
			p := take(t, l, named("nobody", 1, b))
			c := gather(t, l, time.Hour)
			for _, client := range clients {
				c.wg.Go(func() { c.once(named(fmt.Sprint(client), weights[client], b)) })
				synctest.Wait()
			}
			p.Sent()
			c.wg.Wait()
			turns = c.turns
		})
		left, had := make([]int, len(weights)), make([]float64, len(weights))
		for _, client := range clients {
			left[client]++
		}
		for _, turn := range turns {
			for i := range weights {
				for j := range weights {
					most := 1/float64(weights[i]) + 1/float64(weights[j])
					if left[i] > 0 && left[j] > 0 && had[i]-had[j] > most+1e-6 {
						rt.Fatalf("%d has had %.2f, and %d %.2f, by weight: %q", i, had[i], j, had[j], turns)
					}
				}
			}
			var client int
			fmt.Sscan(turn, &client)
			left[client]--
			had[client] += 1 / float64(weights[client])
		}
	})
}

// The wait that is foretold is the wait there is, though others wait and have their turns: no more than one slot too short,
// nor three too long (who has not had its part may go before those of whom the plan thinks that they will).
func TestRetryAfterIsFair(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		weights, clients := drawQueue(rt)
		requests := rapid.IntRange(20, 60).Draw(rt, "requests")
		newcomer := rapid.IntRange(0, len(weights)).Draw(rt, "newcomer")
		expected := rapid.Bool().Draw(rt, "others are expected")
		weights = append(weights, 1)
		const slot = 100 * time.Millisecond
		var problem error
		synctest.Test(t, func(t *testing.T) {
			l := newLocal(t, limiter.Config{})
			b := budget("acme", requests, slot*time.Duration(requests))
			ask := func(client int) limiter.Request {
				if !expected {
					return named(fmt.Sprint(client), 0, b)
				}
				return named(fmt.Sprint(client), weights[client], b)
			}
			for range requests {
				if p, err := l.Take(t.Context(), request(0, b)); err == nil {
					p.Sent()
				}
				time.Sleep(slot)
			}
			c := gather(t, l, time.Hour)
			for _, client := range clients {
				c.wg.Go(func() { c.once(ask(client)) })
				synctest.Wait()
			}
			r := ask(newcomer)
			r.MaxWait = 0
			p, err := l.Take(t.Context(), r)
			if err == nil {
				p.Sent()
			} else {
				problem = waitAsTold(t, l, r, err, slot)
			}
			c.wg.Wait()
		})
		if problem != nil {
			rt.Error(problem)
		}
	})
}

func waitAsTold(t *testing.T, l *limiter.Local, r limiter.Request, err error, slot time.Duration) error {
	told := err.(*limiter.OverBudgetError).RetryAfter
	r.MaxWait = time.Hour
	start := time.Now()
	p, err := l.Take(t.Context(), r)
	if err != nil {
		return err
	}
	p.Sent()
	if waited := time.Since(start); waited > told+slot || waited < told-3*slot {
		return fmt.Errorf("waited %v, when told %v", waited, told)
	}
	return nil
}
