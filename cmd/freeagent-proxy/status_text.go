package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"freeagent-proxy/internal/admin"
)

// statusText is how the proxy stands, for a person at a terminal. Times are told from the proxy's own clock.
func statusText(s *admin.Status) []byte {
	t := &statusWriter{now: s.Now, fewer: fewerBecause(s.Store)}
	t.head(s)
	for i := range s.Accounts {
		t.account(&s.Accounts[i])
	}
	if s.Egress != nil {
		t.line("\nall accounts together, by this machine's address")
		t.budget(s.Egress)
	}
	t.incidents(s.Incidents)
	return trailing.ReplaceAll(t.out.Bytes(), nil)
}

// maxName is the longest name of an account, of a client and of a company's subdomain. What answers on admin.listen may be another program
// than ours, so they are no more to be trusted than the rest.
const maxName = 63

// trailing is the white space that a table's empty cells leave.
var trailing = regexp.MustCompile(`(?m)[ \t]+$`)

// statusWriter writes lines.
type statusWriter struct {
	out   bytes.Buffer
	now   time.Time
	fewer string // why fewer permits than FreeAgent's limit may be ours
}

func (t *statusWriter) line(format string, args ...any) { fmt.Fprintf(&t.out, format+"\n", args...) }

// row is one fact of what stands above it.
func (t *statusWriter) row(name, format string, args ...any) {
	t.line("  %-14s %s", name, fmt.Sprintf(format, args...))
}

func (t *statusWriter) head(s *admin.Status) {
	ready := "ready"
	if !s.Ready {
		ready = "NOT READY: " + oneLine(s.Reason, maxReason)
	}
	t.line("freeagent-proxy %s, up for %s: %s", oneLine(s.Version, 40), span(s.Now.Sub(s.StartedAt)), ready)
	t.line("store: %s", storeText(s.Store))
}

// storeStates are what the limiter's states mean for the operator.
var storeStates = map[string]string{
	local:       "up",
	"linked":    "up, limits are counted in it",
	"returning": "back; this replica keeps to its share of the limits until the others are back, too",
	"alone":     "DOWN: requests go on within this replica's share of the limits, tokens cannot be renewed; see to Redis",
	"unseen":    "NOT REACHED since the start: nothing is sent to FreeAgent before it is; see to Redis",
}

func storeText(s admin.Store) string {
	text := oneLine(s.Kind, 40) + ", " + cmp.Or(storeStates[s.State], oneLine(s.State, 40))
	if s.State == local && !s.Up {
		text = oneLine(s.Kind, 40) + ", FAILS: a grant cannot be read or written; the account's state says why, and what to do"
	}
	if s.Replicas > 0 && s.Up {
		text += ", " + several(s.Replicas, "replica")
	}
	if s.Silent > 0 {
		text += fmt.Sprintf(", %d more SILENT: it may count its share alone", s.Silent)
	}
	return text
}

// fewerBecause is why a budget may be smaller than its limit.
func fewerBecause(s admin.Store) string {
	switch {
	case s.State != local && s.State != "linked":
		return "each replica keeps to its share while Redis is away"
	case s.Silent > 0:
		return "replicas that do not reach Redis have their shares"
	default:
		return "another program uses the same FreeAgent user"
	}
}

func (t *statusWriter) account(a *admin.Account) {
	title := "account " + oneLine(a.Name, maxName)
	if a.Company != "" {
		title += " (" + oneLine(a.Company, maxCompanyName) + ")"
	}
	if a.Default {
		title += ", the default"
	}
	t.line("\n%s", title)
	t.row("state", "%s", stateText(a))
	t.tokens(a)
	t.budget(&a.Budget)
	t.companies(a.Companies)
}

func stateText(a *admin.Account) string {
	reason, authorize := oneLine(a.Reason, maxReason), "run `freeagent-proxy authorize --account "+oneLine(a.Name, maxName)+"`"
	switch a.State {
	case "ok":
		return "fine"
	case "reauthorise":
		return "MUST BE AUTHORISED AGAIN: " + reason + "; press Reconnect on the admin page or " + authorize
	case "unauthorised":
		return "NOT AUTHORISED; press Connect on the admin page or " + authorize
	default:
		return "IN TROUBLE: " + reason
	}
}

func (t *statusWriter) tokens(a *admin.Account) {
	switch {
	case a.AccessExpiresAt == nil:
		t.row("access token", "none")
	case !a.AccessExpiresAt.After(t.now):
		t.row("access token", "ended %s ago; renewed when a program calls", span(t.now.Sub(*a.AccessExpiresAt)))
	case a.AccessObtainedAt != nil:
		t.row("access token", "%s old, good for another %s", span(t.now.Sub(*a.AccessObtainedAt)), span(a.AccessExpiresAt.Sub(t.now)))
	default:
		t.row("access token", "good for another %s", span(a.AccessExpiresAt.Sub(t.now)))
	}
	if a.Unsaved {
		t.row("", "IN MEMORY ONLY: see to the store before this process ends")
	}
	if end := a.RefreshExpiresAt; end != nil {
		left := end.Sub(t.now)
		text := fmt.Sprintf("good for another %s, until %s", span(left), end.Local().Format("2 January 2006"))
		if left <= 0 {
			text = "ENDED on " + end.Local().Format("2 January 2006")
		}
		t.row("refresh token", "%s", text)
	} else if a.AccessExpiresAt != nil {
		t.row("refresh token", "FreeAgent has not said when it ends")
	}
	if last := a.LastRefresh; last != nil {
		t.row("last refresh", "%s ago: %s", span(t.now.Sub(last.At)), oneLine(last.Outcome, 20))
	}
	if next := a.NextTry; next != nil && next.After(t.now) {
		t.row("next try", "in %s", span(next.Sub(t.now)))
	}
}

// budget is a line for each window, and what holds requests up.
func (t *statusWriter) budget(b *admin.Budget) {
	for _, w := range b.Windows {
		t.row(windowName(w), "%s %s left%s", bar(w.Remaining, w.Requests), grouped(w.Remaining), usedText(w))
	}
	for _, text := range t.held(b) {
		t.row("", "%s", text)
	}
}

// held is why requests wait.
func (t *statusWriter) held(b *admin.Budget) (texts []string) {
	if b.PausedUntil != nil && b.PausedUntil.After(t.now) {
		texts = append(texts, fmt.Sprintf("PAUSED for another %s: FreeAgent answered 429", span(b.PausedUntil.Sub(t.now))))
	}
	for _, w := range b.Windows {
		if w.Allowed < w.Requests {
			texts = append(texts, fmt.Sprintf("ONLY %s of %s are ours now: %s", grouped(w.Allowed), windowName(w), t.fewer))
			break
		}
	}
	if b.Queue > 0 {
		texts = append(texts, several(b.Queue, "request")+" waiting here")
	}
	return texts
}

func windowName(w admin.Window) string { return grouped(w.Requests) + " in " + oneLine(w.Per, 20) }

// usedText says who used a window, whoever used most first.
func usedText(w admin.Window) string {
	names := slices.SortedFunc(maps.Keys(w.UsedBy), func(a, b string) int {
		return cmp.Or(cmp.Compare(w.UsedBy[b], w.UsedBy[a]), cmp.Compare(a, b))
	})
	var used []string
	for i, name := range names {
		if i == 6 {
			used = append(used, fmt.Sprintf("and %d more", len(names)-i))
			break
		}
		used = append(used, oneLine(name, maxName)+" "+grouped(w.UsedBy[name]))
	}
	if used == nil {
		return ""
	}
	return "; used by " + strings.Join(used, ", ")
}

func (t *statusWriter) companies(all []admin.Company) {
	if len(all) == 0 {
		return
	}
	t.line("  companies in use (the %d busiest)", maxCompanies)
	table := tabwriter.NewWriter(&t.out, 0, 0, 2, ' ', 0)
	for _, c := range all {
		fmt.Fprintf(table, "    %s", oneLine(c.Subdomain, maxName))
		for _, w := range c.Windows {
			fmt.Fprintf(table, "\t%s %s of %s", bar(w.Remaining, w.Requests), grouped(w.Remaining), windowName(w))
		}
		fmt.Fprintf(table, "\t%s\n", strings.Join(t.held(&c.Budget), "; "))
	}
	_ = table.Flush() // into memory
}

// shownIncidents is how many fit on a screen, beside all else.
const shownIncidents = 15

func (t *statusWriter) incidents(all []admin.Incident) {
	if len(all) == 0 {
		t.line("\nno recent trouble")
		return
	}
	t.line("\nrecent trouble at this process, the newest first")
	for _, i := range all[:min(len(all), shownIncidents)] {
		t.line("  %s ago%s: %s", span(t.now.Sub(i.At)), times(i.Count), oneLine(i.Reason, maxReason))
		if about := aboutIncident(i); about != "" {
			t.line("    %s", about)
		}
	}
	if more := len(all) - shownIncidents; more > 0 {
		t.line("  and %d more; status --json has them", more)
	}
}

// aboutIncident is what is known of the newest request of an incident.
func aboutIncident(i admin.Incident) string {
	var parts []string
	add := func(before, text string) {
		if text != "" {
			parts = append(parts, before+oneLine(text, maxIncidentPath))
		}
	}
	if i.Status != 0 {
		add("", strconv.Itoa(i.Status))
	}
	add("", strings.TrimSpace(i.Method+" "+i.Path))
	add("client ", i.Client)
	add("account ", i.Account)
	add("request ", i.RequestID)
	return strings.Join(parts, ", ")
}

func times(n int) string {
	if n < 2 {
		return ""
	}
	return ", " + grouped(n) + " times"
}

// barWidth is a bar's, in characters.
const barWidth = 10

// bar shows how much is left: all of it, some, or (only then empty) nothing.
func bar(left, of int) string {
	filled := 0
	if of > 0 && left > 0 {
		filled = min(max(1, left*barWidth/of), barWidth)
	}
	return "[" + strings.Repeat("#", filled) + strings.Repeat(".", barWidth-filled) + "]"
}

// grouped writes 3600 as 3,600.
func grouped(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func several(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return grouped(n) + " " + what + "s"
}

// span writes a length of time with as much as one wants to read: 5s, 12m, 3h 20m, 58 days.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch d = max(d, 0); {
	case d < 2*time.Minute:
		return d.Truncate(time.Second).String()
	case d < 2*time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + "m"
	case d < 2*day:
		return fmt.Sprintf("%dh %dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		return grouped(int(d/day)) + " days"
	}
}
