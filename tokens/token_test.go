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

// prints is all that values give away when they are printed.
func prints(values ...any) string {
	var b strings.Builder
	for _, v := range values {
		for _, verb := range verbs {
			fmt.Fprintf(&b, verb+"\n", v)
		}
	}
	return b.String()
}

// hiding holds a value where fmt cannot call its methods.
type hiding struct {
	token  tokens.Token
	key    tokens.Key
	sealer *tokens.Sealer
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
	encoded, err := json.Marshal(map[string]any{"token": token, "app": app, "status": r.Status(account), "key": key})
	if err != nil {
		t.Fatal(err)
	}
	got := string(encoded) + prints(token, &token, app, &app, []tokens.App{app}, r.stored(), []tokens.Grant{r.stored()},
		key, sealer, r.Status(account), hiding{token, key, sealer}, &hiding{token, key, sealer})
	if i := strings.Index(got, secret); i >= 0 {
		t.Errorf("a secret is printed: %s", got[max(0, i-100):i])
	}
	if strings.Contains(strings.ToLower(got), fmt.Sprintf("%x", secret)) {
		t.Error("a secret is printed in hexadecimals")
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
				_, err := r.renewWithin(time.Second, "GET /", tokens.Token{})
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
		q := tokens.Attempt{Account: "account-500", Token: token, Resource: "GET /v2/invoices"}
		b.ReportAllocs()
		for b.Loop() {
			m.Accepted(q)
		}
	})
}
