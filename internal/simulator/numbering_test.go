package simulator_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
)

// TestNumberingRace: concurrent creates without a reference come to the same
// number, which is stored twice or refused, by switch.
func TestNumberingRace(t *testing.T) {
	const creates, meanwhile = 8, simulator.Duration(2 * time.Second) // in which all of them come
	run := func(t *testing.T, cfg simulator.Config) (s *sim, statuses map[int]int) {
		cfg.Enforcement = simulator.EnforceOff
		s = start(t, cfg)
		contact := s.make("contacts", `{"first_name":"Ann"}`)
		statuses = map[int]int{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range creates {
			wg.Go(func() {
				a, err := s.try("POST", "/v2/invoices", fmt.Sprintf(`{"invoice":{"contact":"%s","comments":"%d"}}`, contact, i))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				statuses[a.StatusCode]++
			})
		}
		wg.Wait()
		return s, statuses
	}
	t.Run("refused", func(t *testing.T) {
		s, statuses := run(t, simulator.Config{NumberingDelay: meanwhile})
		equal(t, "created", statuses[201], 1)
		equal(t, "refused", statuses[422], creates-1)
		contact := s.make("contacts", `{"first_name":"Bo"}`)
		taken := s.must(422, "POST", "/v2/invoices", `{"invoice":{"contact":"`+contact+`","reference":"001"}}`)
		equal(t, "body", taken.body, `{"errors":[{"message":"reference has already been taken"}]}`)
		equal(t, "Location", taken.Header.Get("Location"), s.url+"/v2/invoices")
	})
	t.Run("stored", func(t *testing.T) {
		s, statuses := run(t, simulator.Config{NumberingDelay: meanwhile, DuplicateReferences: true})
		equal(t, "created", statuses[201], creates)
		equal(t, "duplicates", s.Stats().Writes.DuplicateReferences, creates-1)
	})
	t.Run("no race", func(t *testing.T) {
		s, statuses := run(t, simulator.Config{})
		equal(t, "created", statuses[201], creates)
		references := map[any]bool{}
		for _, r := range s.must(200, "GET", "/v2/invoices", "").list(t) {
			references[r["reference"]] = true
		}
		equal(t, "references", len(references), creates)
	})
}
