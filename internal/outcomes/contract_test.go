package outcomes_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"freeagent-proxy/internal/outcomes"
	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/tokens"
)

func TestMain(m *testing.M) {
	redis.SetLogger(quiet{})
	// The client library looks once a second whether a server that was gone is back; a closed client's look ends by itself.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

const (
	lease    = 3 * time.Second // an owner shows life each third of it and a quarter of a second, or late on a busy machine
	patience = 20 * time.Second
)

var (
	invoice = outcomes.Name{Account: "acme", Client: "billing", Subdomain: "one", Key: "marked-key"}
	first   = outcomes.Fingerprint{1}
	other   = outcomes.Fingerprint{2}
	created = outcomes.Answer{
		Status: 201,
		Header: http.Header{"Location": {"https://api.freeagent.com/v2/invoices/1"}, "X-A": {"1", "2"}},
		Body:   []byte(`{"invoice":{"reference":"marked-body"}}` + "\n\x00\xff"),
	}
)

// shelf is a store that processes open: one after another, or at a time if it is shared.
type shelf struct {
	t      *testing.T
	shared bool
	sealer *tokens.Sealer
	dir    string
	server *redistest.Server
	client redis.UniversalClient
}

// shelves runs a test over each kind of store.
func shelves(t *testing.T, test func(t *testing.T, s *shelf)) {
	t.Run("file", func(t *testing.T) { t.Parallel(); test(t, newShelf(t, false)) })
	t.Run("redis", func(t *testing.T) { t.Parallel(); test(t, newShelf(t, true)) })
}

func newShelf(t *testing.T, shared bool, options ...redistest.Option) *shelf {
	t.Helper()
	key, err := tokens.ParseKey("tests", tokens.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	s := &shelf{t: t, shared: shared, dir: filepath.Join(t.TempDir(), "writes")}
	if s.sealer, err = tokens.NewSealer(key); err != nil {
		t.Fatal(err)
	}
	if shared {
		s.server = redistest.Start(t, options...)
		o := s.server.Options()
		o.ContextTimeoutEnabled, o.MaxRetries = true, -1
		s.client = redis.NewClient(o)
		t.Cleanup(func() { _ = s.client.Close() })
	}
	return s
}

// open opens the store as another process does.
func (s *shelf) open() *outcomes.Book {
	s.t.Helper()
	cfg := outcomes.Config{Sealer: s.sealer}
	var b *outcomes.Book
	if s.shared {
		b = outcomes.NewRedis(s.client, lease, cfg)
	} else {
		var err error
		if b, err = outcomes.OpenFile(s.dir, cfg); err != nil {
			s.t.Fatal(err)
		}
	}
	s.t.Cleanup(b.Halt)
	return b
}

func begin(b *outcomes.Book, name outcomes.Name, print outcomes.Fingerprint) (*outcomes.Claim, *outcomes.Answer, error) {
	return b.Begin(context.Background(), name, print)
}

// claims expects that the name is free.
func claims(t *testing.T, b *outcomes.Book, name outcomes.Name) *outcomes.Claim {
	t.Helper()
	c, answer, err := begin(b, name, first)
	if c == nil || answer != nil || err != nil {
		t.Fatalf("Begin: %v, %v, %v; want a claim", c, answer, err)
	}
	return c
}

// refuses expects that error, of the same request.
func refuses(t *testing.T, b *outcomes.Book, want error) {
	t.Helper()
	if _, answer, err := begin(b, invoice, first); !errors.Is(err, want) || answer != nil {
		t.Fatalf("Begin: %v, %v; want %v", answer, err, want)
	}
	if _, _, err := begin(b, invoice, other); !errors.Is(err, outcomes.ErrDifferent) {
		t.Fatalf("Begin with another request: %v; want %v", err, outcomes.ErrDifferent)
	}
}

// answers expects that the kept answer is given.
func answers(t *testing.T, b *outcomes.Book, want outcomes.Answer) {
	t.Helper()
	c, got, err := begin(b, invoice, first)
	if c != nil || got == nil || err != nil {
		t.Fatalf("Begin: %v, %v, %v; want an answer", c, got, err)
	}
	if got.Status != want.Status || fmt.Sprint(got.Header) != fmt.Sprint(want.Header) || !bytes.Equal(got.Body, want.Body) || got.Cut != want.Cut {
		t.Errorf("got %+v, want %+v", *got, want)
	}
	if _, _, err := begin(b, invoice, other); !errors.Is(err, outcomes.ErrDifferent) {
		t.Errorf("Begin with another request: %v; want %v", err, outcomes.ErrDifferent)
	}
}

func leaves(t *testing.T, c *outcomes.Claim) {
	t.Helper()
	if err := c.Leave(); err != nil {
		t.Fatalf("Leave: %v", err)
	}
}

func soon(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so within %s: %s", patience, what)
		}
	}
}

func TestAnAnswerIsKept(t *testing.T) {
	t.Parallel()
	shelves(t, func(t *testing.T, s *shelf) {
		b := s.open()
		c := claims(t, b, invoice)
		refuses(t, b, outcomes.ErrRunning)
		leaves(t, c)
		leaves(t, c) // another attempt
		refuses(t, b, outcomes.ErrRunning)
		c.Keep(created)
		c.End()
		answers(t, b, created)
		b.Halt()
		answers(t, s.open(), created)
	})
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		run  func(*outcomes.Claim)
		want error // nil: the name is free
	}{
		"unknown":              {func(c *outcomes.Claim) { _ = c.Leave(); c.Doubt() }, outcomes.ErrUnknown},
		"panicked after":       {func(c *outcomes.Claim) { _ = c.Leave(); c.End() }, outcomes.ErrUnknown},
		"unknown, then ended":  {func(c *outcomes.Claim) { _ = c.Leave(); c.Doubt(); c.Drop(); c.End() }, outcomes.ErrUnknown},
		"refused before":       {func(c *outcomes.Claim) { c.Drop() }, nil},
		"panicked before":      {func(c *outcomes.Claim) { c.End() }, nil},
		"certainly not acted":  {func(c *outcomes.Claim) { _ = c.Leave(); c.Drop() }, nil},
		"dropped, then ended":  {func(c *outcomes.Claim) { _ = c.Leave(); c.Drop(); c.End(); c.Keep(created) }, nil},
		"settled for one only": {func(c *outcomes.Claim) { _ = c.Leave(); c.Drop(); c.Doubt() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shelves(t, func(t *testing.T, s *shelf) {
				for _, next := range []func(b *outcomes.Book) *outcomes.Book{
					func(b *outcomes.Book) *outcomes.Book { return b },
					func(*outcomes.Book) *outcomes.Book { return s.open() },
				} {
					b := s.open()
					if got, _, err := begin(b, invoice, first); err == nil {
						c.run(got)
					}
					if c.want == nil {
						claims(t, next(b), invoice).Drop()
						continue
					}
					refuses(t, next(b), c.want)
				}
			})
		})
	}
}

// A process that dies leaves its names free if it had not sent, else unknown.
func TestDeadOwner(t *testing.T) {
	t.Parallel()
	shelves(t, func(t *testing.T, s *shelf) {
		b := s.open()
		claims(t, b, invoice)
		b.Halt()
		b = s.open()
		var c *outcomes.Claim
		soon(t, "what waited is free", func() bool { c, _, _ = begin(b, invoice, first); return c != nil })
		leaves(t, c)
		b.Halt()
		b = s.open()
		soon(t, "what was sent is unknown", func() bool { _, _, err := begin(b, invoice, first); return errors.Is(err, outcomes.ErrUnknown) })
		refuses(t, b, outcomes.ErrUnknown)
	})
}

func TestNamesAreApart(t *testing.T) {
	t.Parallel()
	shelves(t, func(t *testing.T, s *shelf) {
		b := s.open()
		claims(t, b, invoice).Doubt()
		for _, name := range []outcomes.Name{
			{Account: "other", Client: "billing", Subdomain: "one", Key: "marked-key"},
			{Account: "acme", Client: "nightly", Subdomain: "one", Key: "marked-key"},
			{Account: "acme", Client: "billing", Subdomain: "two", Key: "marked-key"},
			{Account: "acme", Client: "billing", Subdomain: "one", Key: "Marked-key"},
			{Account: "acme", Client: "billing", Subdomain: "onemarked", Key: "-key"},
		} {
			claims(t, b, name).Doubt()
		}
		refuses(t, b, outcomes.ErrUnknown)
	})
}

func TestLongAnswersAreCut(t *testing.T) {
	t.Parallel()
	shelves(t, func(t *testing.T, s *shelf) {
		b := s.open()
		c := claims(t, b, invoice)
		leaves(t, c)
		long := created
		long.Body = bytes.Repeat([]byte{'x'}, outcomes.MaxBody+1)
		c.Keep(long)
		long.Body, long.Cut = nil, true
		answers(t, s.open(), long)
	})
}

// One of many that come at a time gets the name, however many processes there are.
func TestOnlyOneGetsTheName(t *testing.T) {
	t.Parallel()
	shelves(t, func(t *testing.T, s *shelf) {
		books := []*outcomes.Book{s.open()}
		if s.shared {
			books = append(books, s.open(), s.open())
		}
		for round := range 20 {
			name := invoice
			name.Key = fmt.Sprint(round)
			var claimed, running atomic.Int32
			var all sync.WaitGroup
			for i := range 30 {
				all.Go(func() {
					c, _, err := begin(books[i%len(books)], name, first)
					switch {
					case c != nil:
						claimed.Add(1)
						if err := c.Leave(); err != nil {
							t.Errorf("Leave: %v", err)
						}
					case errors.Is(err, outcomes.ErrRunning):
						running.Add(1)
					}
				})
			}
			all.Wait()
			if claimed.Load() != 1 || running.Load() != 29 {
				t.Fatalf("round %d: %d claims, %d told that it runs; want 1 and 29", round, claimed.Load(), running.Load())
			}
		}
	})
}

// A client that has the most on record gets no more, others do.
func TestFull(t *testing.T) {
	t.Parallel()
	shelves(t, func(t *testing.T, s *shelf) {
		b := s.open()
		if s.shared {
			hour := fmt.Sprint(time.Now().Unix()/3600 - 3)
			s.client.HSet(t.Context(), outcomes.CountKey(invoice), hour, outcomes.MaxUnits-1, "1000", outcomes.MaxUnits)
		} else {
			b.Fill(invoice, outcomes.MaxUnits-1)
		}
		c := claims(t, b, invoice)
		leaves(t, c)
		c.Keep(created)
		another := invoice
		another.Key = "another"
		if _, _, err := begin(b, another, first); !errors.Is(err, outcomes.ErrFull) {
			t.Errorf("Begin: %v, want %v", err, outcomes.ErrFull)
		}
		another.Client = "nightly"
		claims(t, b, another).Drop()
		answers(t, b, created)
	})
}

// Nothing of a request or its answer can be read in the store.
func TestRecordsAreSealed(t *testing.T) {
	t.Parallel()
	shelves(t, func(t *testing.T, s *shelf) {
		b := s.open()
		c := claims(t, b, invoice)
		leaves(t, c)
		c.Keep(created)
		var raw strings.Builder
		if s.shared {
			for _, key := range s.client.Keys(t.Context(), "*").Val() {
				fmt.Fprintln(&raw, key, s.client.HGetAll(t.Context(), key).Val())
			}
		} else {
			path := filepath.Join(s.dir, outcomes.Path(invoice))
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			raw.WriteString(path)
			raw.Write(content)
		}
		if raw.Len() < len(created.Body) {
			t.Fatalf("found nothing: %q", raw.String())
		}
		for _, secret := range []string{"marked", "invoices/1"} {
			if strings.Contains(raw.String(), secret) {
				t.Errorf("%q is readable in %q", secret, raw.String())
			}
		}
	})
}
