package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/internal/admin"
)

// A name is asked for once a day, behind the back of whoever looks, and kept if it cannot be had again.
func TestCompanyNameIsAskedForOnceADay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // in which all that sleeps takes no time
		var answer string
		var failure error
		var asked atomic.Int64
		names := &companyNames{ask: func(context.Context, string) (string, error) {
			asked.Add(1)
			time.Sleep(time.Second)
			return answer, failure
		}}
		defer names.close()
		look := func(what string, may bool, wantName string, wantAsked int64) {
			t.Helper()
			began := time.Now()
			got := names.of(account, may)
			if waited := time.Since(began); waited > 0 {
				t.Errorf("%s: whoever looks waits for %s", what, waited)
			}
			time.Sleep(5 * time.Second)
			synctest.Wait()
			if got != wantName || asked.Load() != wantAsked {
				t.Errorf("%s: %q, asked %d times; want %q and %d", what, got, asked.Load(), wantName, wantAsked)
			}
		}
		look("without leave", false, "", 0)
		failure = errNotAsked
		look("no budget", true, "", 1)
		look("at once after that", true, "", 1)
		answer, failure = "Acme Ltd", nil
		time.Sleep(nameRetry)
		look("after a minute", true, "", 2)
		look("learnt", true, "Acme Ltd", 2)
		time.Sleep(nameLasts - 20*time.Second)
		look("nearly a day later", true, "Acme Ltd", 2)
		answer, failure = "", errors.New("status 500")
		time.Sleep(20 * time.Second)
		look("the next day", true, "Acme Ltd", 3)
		look("FreeAgent is in trouble", true, "Acme Ltd", 3)
		names.forget(account)
		answer, failure = "Other Ltd", nil
		look("authorised anew", true, "", 4)
		look("and learnt", true, "Other Ltd", 4)

		names.forget(account)
		names.of(account, true)
		names.forget(account) // while FreeAgent answers: it may be another's name
		look("authorised anew at a bad moment", true, "", 6)
		look("that is learnt", true, "Other Ltd", 6)
		for i := range 3 * maxAsking {
			names.of(fmt.Sprint("one of many ", i), true)
		}
		look("one of many 0", false, "Other Ltd", 6+maxAsking)
	})
}

func TestAskCompanyName(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status       int
		ours         bool
		body, want   string
		failed, sent bool
	}{
		"fine":         {200, false, `{"company":{"name":"Acme Ltd","type":"UkLimitedCompany"}}`, "Acme Ltd", false, true},
		"no name":      {200, false, `{"company":{}}`, "", false, true},
		"odd name":     {200, false, `{"company":{"name":"A\u001b[31m\nB` + strings.Repeat("é", 200) + `"}}`, "A [31m B" + strings.Repeat("é", 91) + "…", false, true},
		"not JSON":     {200, false, "<html>", "", true, true},
		"too long":     {200, false, strings.Repeat(" ", maxHeld+1), "", true, true},
		"forbidden":    {403, false, "{}", "", true, true},
		"over budget":  {429, true, "", "", true, false},
		"no token":     {503, true, "", "", true, false},
		"FreeAgent's":  {429, false, "", "", true, true},
		"its gateway":  {503, false, "", "", true, true},
		"broke off":    {0, false, "", "", true, true},
		"out of reach": {502, true, "", "", true, true},
	} {
		got, err := askCompanyName(t.Context(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.RequestURI != "/accounts/acme/v2/company" || r.Method != http.MethodGet || r.Header.Get("Accept") != "application/json" {
				t.Errorf("asked %s %s, %v", r.Method, r.RequestURI, r.Header)
			}
			if c.status == 0 {
				panic(http.ErrAbortHandler)
			}
			if c.ours {
				w.Header().Set("Proxy-Status", "freeagent-proxy; error=http_request_denied")
			}
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		}), account)
		if got != c.want || (err != nil) != c.failed || errors.Is(err, errNotAsked) == c.sent {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}

func TestAmpleBudget(t *testing.T) {
	t.Parallel()
	soon := time.Now().Add(time.Minute)
	window := func(remaining int) []admin.Window { return []admin.Window{{Requests: 120, Remaining: remaining}} }
	for want, budgets := range map[bool][]admin.Budget{
		true:  {{Windows: window(120)}, {Windows: window(60)}},
		false: {{Windows: window(59)}, {Windows: window(120), Queue: 1}, {Windows: window(120), PausedUntil: &soon}},
	} {
		for _, b := range budgets {
			if got := ample(b); got != want {
				t.Errorf("%+v: %v, want %v", b, got, want)
			}
		}
	}
}
