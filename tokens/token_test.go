package tokens_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/tokens"
)

var verbs = []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"}

// prints is all that a value gives away when it is printed, also from inside other values.
func prints(t *testing.T, value any) string {
	t.Helper()
	inside := struct {
		Exported any
		hidden   any
		list     []any
	}{value, value, []any{value}}
	var b strings.Builder
	for _, verb := range verbs {
		for _, v := range []any{value, inside, &inside, []any{value}, map[string]any{"x": value}} {
			fmt.Fprintf(&b, verb+"\n", v)
		}
	}
	encoded, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return b.String() + string(encoded)
}

func TestNothingPrintsASecret(t *testing.T) {
	r := newRig(t)
	token := r.inUse()
	key, err := tokens.ParseKey("2026", tokens.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := tokens.NewSealer(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]any{
		"Token": token, "*Token": &token, "App": app, "Status": r.Status(account), "Key": key, "Sealer": sealer,
	} {
		if got := prints(t, value); strings.Contains(got, secret) || strings.Contains(got, fmt.Sprintf("%x", secret)) {
			t.Errorf("%s prints a secret: %s", name, got)
		}
	}
	var token2 struct{ t tokens.Token }
	token2.t = token
	for _, verb := range verbs {
		for _, value := range []any{r.stored(), []tokens.Grant{r.stored()}, token2, r.Manager} {
			if got := fmt.Sprintf(verb, value); strings.Contains(got, secret) {
				t.Errorf("%s of %T prints a secret: %s", verb, value, got)
			}
		}
	}
	if got := (tokens.Token{}).Authorization(); got != "" {
		t.Errorf("Authorization of no token = %q, want none", got)
	}
}

// A run through all kinds of failures, with marked secrets: no error, event or status holds one.
func TestNoSecretIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var told []error
		try := func(err error) { told = append(told, err) }
		get := func() { _, err := r.tokenWithin(2 * time.Second); try(err) }

		r.authorised()
		body := `{"error":"` + secret + `","error_description":"` + secret + `","access_token":"` + secret + ` with a blank"}`
		for _, status := range []int{200, 400, 401, 403, 429, 500, 302} {
			for _, contentType := range []string{"application/json", "text/plain", "application/x-www-form-urlencoded"} {
				sleep(2 * time.Hour)
				r.agent.ever(answer(status, contentType, body))
				get()
				try(r.Import(t.Context(), account, secret+"-imported"))
				try(r.Seed(t.Context(), account, secret+"-seed"))
				sleep(time.Minute)
				_, err := r.Renew(t.Context(), tokens.Rejection{Account: account, Resource: "GET /"})
				try(err)
				told = append(told, errors.New(r.Status(account).Reason))
			}
		}
		r.agent.ever(nil)
		r.store.fail("save", "load")
		try(r.Put(t.Context(), r.consent("50")))
		get()
		try(r.closeWithin(time.Second))
		all := errors.Join(told...).Error() + r.events.String()
		for _, value := range told {
			all += fmt.Sprintf("%#v", value)
		}
		if i := strings.Index(all, secret); i >= 0 {
			t.Errorf("a secret was told: …%s", all[max(0, i-200):min(len(all), i+50)])
		}
		if len(told) < 80 || r.events.count(tokens.EventRefused) == 0 || r.events.count(tokens.EventUnsaved) == 0 {
			t.Errorf("the run went through too little: %d errors, events %s", len(told), r.events)
		}
	})
}

func BenchmarkToken(b *testing.B) {
	agent := newFreeAgent()
	m := tokens.New(tokens.Config{
		Store:    newMemory(),
		Endpoint: agent.endpoint(),
		App:      func(string) (tokens.App, bool) { return app, true },
	})
	b.Cleanup(func() { _ = m.Close(b.Context()) })
	ctx := b.Context()
	for i := range 1000 {
		if err := m.Import(ctx, fmt.Sprint("account-", i), agent.grant()); err != nil {
			b.Fatal(err)
		}
	}
	token, err := m.Token(ctx, "account-500")
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Token", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_, _ = m.Token(ctx, "account-500")
			}
		})
	})
	b.Run("Accepted", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.Accepted("account-500", "GET /v2/invoices", token)
		}
	})
}
