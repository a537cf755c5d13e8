package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// record is an invoice in a list, with the share of URLs that FreeAgent's have.
const record = `{"url":"%[1]s/v2/invoices/%[2]d","contact":"%[1]s/v2/contacts/%[2]d","project":"%[1]s/v2/projects/7","dated_on":"2025-10-03",` +
	`"due_on":"2025-11-02","reference":"%03[2]d","currency":"GBP","exchange_rate":"1.0","net_value":"150.0","sales_tax_value":"30.0",` +
	`"total_value":"180.0","paid_value":"0.0","due_value":"180.0","status":"Open","omit_header":false,"always_show_bic_and_iban":false,` +
	`"send_thank_you_emails":false,"payment_terms_in_days":30,"created_at":"2025-10-03T21:36:19.000Z","updated_at":"2025-10-03T21:36:19.000Z"}`

// serveList is 5 MB of invoices in chunks, whose URLs begin with the host asked for. It is JSON only if it is asked for as
// that: as anything else the same bytes pass a proxy without being looked at.
func serveList() http.HandlerFunc {
	const length = 5 << 20
	lists := make(map[string]string)
	return func(w http.ResponseWriter, r *http.Request) {
		if lists[r.Host] == "" { // the first request comes alone
			var list strings.Builder
			for i := range length/len(record) + 1 {
				fmt.Fprintf(&list, record+",\n", "http://"+r.Host, i)
			}
			lists[r.Host] = "[" + strings.TrimSuffix(list.String(), ",\n") + "]"
		}
		w.Header().Set("Content-Type", r.URL.Query().Get("as"))
		for list := lists[r.Host]; list != ""; {
			n := min(len(list), 32<<10)
			_, _ = io.WriteString(w, list[:n])
			list = list[n:]
		}
	}
}

// rewriting prints what it costs to rewrite a long list's URLs, beside passing it.
func rewriting(ctx context.Context, s setup, rounds int) error {
	stage, err := s.start(ctx)
	if err != nil {
		return err
	}
	defer stage.stop()
	kinds := []string{"text/plain", "application/json"}
	costs := make(map[string]time.Duration)
	for round := -1; round < rounds; round++ { // the first one warms up
		for _, kind := range kinds {
			before, err := stage.ours.cpu()
			if err != nil {
				return err
			}
			url := "http://" + stage.ours.address + "/v2/list?as=" + kind
			for range 5 {
				if err := transfer(ctx, http.MethodGet, url, nil, 0); err != nil {
					return err
				}
			}
			after, err := stage.ours.cpu()
			if err != nil {
				return err
			}
			if round >= 0 {
				costs[kind] += after - before
			}
		}
	}
	passed, rewritten := costs[kinds[0]], costs[kinds[1]]
	each := func(d time.Duration) float64 { return d.Seconds() * 1e3 / float64(5*rounds) }
	fmt.Printf("\nList of 5 MB, CPU of our process\n  passed %.2f ms, URLs rewritten %.2f ms, ratio %.2f\n", each(passed), each(rewritten), rewritten.Seconds()/passed.Seconds())
	return nil
}
