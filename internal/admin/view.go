package admin

import (
	"maps"
	"slices"
	"time"
)

// What follows is a Status as the template needs it: words instead of times and states.

type view struct {
	Version   string
	Ready     bool
	Reason    string
	Up        *moment
	AsOf      *moment
	Accounts  []accountView
	Store     storeView
	Egress    *budgetView
	Incidents []incidentView
	Title     string // of the browser's tab

	Message  *outcome
	Callback string // the redirect URI of this page's address
}

type accountView struct {
	Account
	Key     string // unique on the page, fit for an id
	Label   string // its state in words
	Level   string // good, warn or bad
	Button  string // what pressing it does
	Missing bool   // it has no authorisation
	Age     *moment
	Ends    *moment
	Days    *moment
	Last    *moment
	Outcome string
	Next    *moment
	Budget  budgetView
	Clients []companyView // of a practice

	MoreClients int    // that are not in Clients
	Callback    string // the redirect URI of this page's address
}

type companyView struct {
	Name   string
	Budget budgetView
}

type storeView struct {
	Label, Level, Text string
	Replicas           string
}

type incidentView struct {
	Incident
	Key  string
	When *moment
}

type budgetView struct {
	Windows []windowView
	Spent   []spentView
	More    int // clients that are not in Spent
	Paused  *moment
	Queue   string
	Waiting bool
}

type windowView struct {
	Title               string // any minute
	Requests, Remaining int
	Left                string // 97 of 120 left
	Level               string // good, warn or bad
	Free                int    // of barWidth
	Segments            []segment
}

// segment is a part of a bar.
type segment struct {
	Client   string
	X, Width int
	Tint     int
}

type spentView struct {
	Client string
	Tint   int
	Counts []string // for each window
}

const (
	barWidth = 1000 // units of a bar's picture
	tints    = 6    // colours for clients
	maxSpent = 12   // clients that are listed
	maxRows  = 200  // companies of a practice that are listed
)

func newView(s Status, callback string) view {
	now := s.Now
	if now.IsZero() {
		now = time.Now()
	}
	v := view{
		Version: s.Version, Ready: s.Ready, Reason: s.Reason, Store: newStoreView(s.Store), Callback: callback,
		AsOf: exactly(now, now.UTC().Format("15:04:05 UTC")), Title: "freeagent-proxy: ready",
	}
	if !s.StartedAt.IsZero() {
		v.Up = exactly(s.StartedAt, about(max(0, now.Sub(s.StartedAt))))
	}
	if !s.Ready {
		v.Title = "freeagent-proxy: not ready"
	}
	for _, a := range s.Accounts {
		v.Accounts = append(v.Accounts, newAccountView(a, now, callback))
	}
	if s.Egress != nil {
		egress := newBudgetView(*s.Egress, now)
		v.Egress = &egress
	}
	for _, i := range s.Incidents {
		v.Incidents = append(v.Incidents, incidentView{
			Incident: i, When: ago(now, &i.At), Key: i.At.UTC().Format(time.RFC3339Nano) + " " + i.RequestID,
		})
	}
	return v
}

func newAccountView(a Account, now time.Time, callback string) accountView {
	v := accountView{
		Account: a, Key: a.Name, Button: "Reconnect", Missing: a.State == "unauthorised", Callback: callback,
		Age: age(now, a.AccessObtainedAt), Ends: end(now, a.AccessExpiresAt), Days: daysLeft(now, a.RefreshExpiresAt),
		Next: until(now, a.NextTry), Budget: newBudgetView(a.Budget, now),
	}
	if a.LastRefresh != nil {
		v.Last, v.Outcome = ago(now, &a.LastRefresh.At), a.LastRefresh.Outcome
		switch v.Outcome {
		case "ok":
			v.Outcome = "it worked"
		case "refused":
			v.Outcome = "FreeAgent refused"
		case "trouble":
			v.Outcome = "it failed"
		}
	}
	switch {
	case a.State == "unauthorised":
		v.Label, v.Level, v.Button = "Not connected", "bad", "Connect"
	case a.State == "reauthorise":
		v.Label, v.Level = "Must be reconnected", "bad"
	case a.State == "trouble":
		v.Label, v.Level = "In trouble, trying again", "warn"
	case a.State != "ok":
		v.Label, v.Level = a.State, "warn"
	case a.Unsaved:
		v.Label, v.Level = "Connected, not stored yet", "warn"
	case v.Budget.Paused != nil:
		v.Label, v.Level = "Connected, paused", "warn"
	default:
		v.Label, v.Level = "Connected", "good"
	}
	v.MoreClients = max(0, len(a.Companies)-maxRows)
	for _, c := range a.Companies[:len(a.Companies)-v.MoreClients] {
		v.Clients = append(v.Clients, companyView{c.Subdomain, newBudgetView(c.Budget, now)})
	}
	return v
}

func newStoreView(s Store) storeView {
	name := map[string]string{"file": "File store", "redis": "Redis"}[s.Kind]
	if name == "" {
		name = s.Kind
	}
	v := storeView{Label: name + " works", Level: "good"}
	switch s.State {
	case "local":
		v.Text = "Authorisations are kept in a folder, which this process has to itself."
	case "linked":
		v.Text = "Authorisations and the limits’ counts are kept there."
	case "returning":
		v.Level, v.Text = "warn", "It is back. This replica keeps to its share of the limits until the others are back, too."
	case "alone":
		v.Text = "Requests go on from memory within this replica's share of the limits; tokens are not renewed. See to Redis."
	case "unseen":
		v.Text = "It was never reached since this proxy started. See to Redis, or correct store.redis."
	}
	switch {
	case s.Up:
	case s.State == "local":
		v.Label, v.Level, v.Text = name+" fails", "bad", "An authorisation cannot be read or written; the account says why, and what to do."
	default:
		v.Label, v.Level = name+" does not answer", "bad"
	}
	if s.Replicas > 0 {
		v.Replicas = counted(s.Replicas, "replica")
		if s.Silent > 0 {
			v.Replicas += "; " + number(s.Silent) + " more cannot reach it"
		}
	}
	return v
}

func newBudgetView(b Budget, now time.Time) budgetView {
	v := budgetView{Queue: "none", Waiting: b.Queue > 0}
	if b.Queue > 0 {
		v.Queue = counted(b.Queue, "request")
	}
	if b.PausedUntil != nil && b.PausedUntil.After(now) {
		v.Paused = end(now, b.PausedUntil)
	}
	all := make(map[string]bool)
	for _, w := range b.Windows {
		for client := range w.UsedBy {
			all[client] = true
		}
	}
	clients := slices.Sorted(maps.Keys(all)) // by name, so that rows and colours stay where they are
	for _, w := range b.Windows {
		v.Windows = append(v.Windows, newWindowView(w, clients))
	}
	for i, client := range clients[:min(len(clients), maxSpent)] {
		row := spentView{Client: client, Tint: i % tints}
		for _, w := range b.Windows {
			row.Counts = append(row.Counts, number(w.UsedBy[client]))
		}
		v.Spent = append(v.Spent, row)
	}
	v.More = len(clients) - len(v.Spent)
	return v
}

func newWindowView(w Window, clients []string) windowView {
	left := min(max(0, w.Remaining), w.Requests)
	v := windowView{
		Title: anySuch(w.Per), Requests: w.Requests, Remaining: left, Level: "good",
		Left: number(left) + " of " + number(w.Requests) + " left",
	}
	if 0 < w.Allowed && w.Allowed < w.Requests { // another program uses the same FreeAgent user, or Redis is away
		v.Left = number(left) + " left, " + number(w.Allowed) + " of " + number(w.Requests) + " allowed now"
	}
	if w.Requests <= 0 {
		return v
	}
	switch {
	case left == 0:
		v.Level = "bad"
	case left*5 < w.Requests:
		v.Level = "warn"
	}
	v.Free = left * barWidth / w.Requests
	// What was spent fills the rest. Counts of other moments, or of replicas that have gone, need not add up to it.
	used := 0
	for _, n := range w.UsedBy {
		used += max(0, n)
	}
	whole := max(used, w.Requests-left)
	if whole == 0 {
		return v
	}
	x := v.Free
	for i, client := range clients {
		width := max(0, w.UsedBy[client]) * (barWidth - v.Free) / whole
		v.Segments = append(v.Segments, segment{Client: client, X: x, Width: width, Tint: i % tints})
		x += width
	}
	return v
}
