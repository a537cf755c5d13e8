package main

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"freeagent-proxy/internal/admin"
	"freeagent-proxy/proxy"
)

// incidents keeps, for the operator, which requests failed or were refused of late, and what the log warned of. What is
// alike is one entry with a count; and of whoever has most entries the oldest one goes first, so that no flood, nor a hundred
// different mistakes of one program, pushes out what happened to others.
type incidents struct {
	mu  sync.Mutex
	all []incident // the newest last
}

// incident is one entry, and what makes another one alike.
type incident struct {
	admin.Incident
	kind string // of its reason
}

const (
	maxIncidents = 50
	// maxReason is the longest reason that is kept, in bytes: several causes that a library has joined.
	maxReason = 400
	// maxIncidentPath is the longest path.
	maxIncidentPath = 200
	// clientGone is the status of a request whose client left before its answer.
	clientGone = 499
)

// served takes in what became of a request. One that went well costs it two comparisons.
func (n *incidents) served(s *proxy.Served) {
	if s.Status < http.StatusBadRequest && !s.Cut {
		return
	}
	reason, ok := failure(s)
	if !ok {
		return
	}
	n.add(admin.Incident{
		At: s.Began.Add(s.Took), RequestID: s.RequestID, Client: s.Client, Account: s.Account,
		Method: s.Method, Path: s.Path, Status: s.Status, Reason: reason,
	})
}

// failure says what was wrong with a request; false: nothing that an operator need know of. What FreeAgent finds wrong with
// a program's request is the program's own business, and so is that it left.
func failure(s *proxy.Served) (reason string, ok bool) {
	switch {
	case s.Client == proxy.Self: // nobody misses it
		return "", false
	case s.Status == clientGone, s.Kept:
		return "", false
	case s.Cut:
		reason = cmp.Or(s.Reason, "FreeAgent's answer broke off")
	case !s.Upstream:
		reason = s.Reason
	case s.Status == http.StatusTooManyRequests || s.Status >= http.StatusInternalServerError:
		reason = strings.TrimSpace(fmt.Sprintf("FreeAgent answered %d %s", s.Status, http.StatusText(s.Status)))
	default:
		return "", false
	}
	if s.Doubtful {
		reason += "; FreeAgent may have acted on this write, so look before sending it again"
	}
	return reason, true
}

// add keeps an incident, as one more of an entry if it is like that.
func (n *incidents) add(one admin.Incident) {
	one.Count = 1
	one.Reason, one.Path = shortened(one.Reason, maxReason), shortened(one.Path, maxIncidentPath)
	entry := incident{one, kindOf(one.Reason)}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = slices.DeleteFunc(n.all, func(i incident) bool { return i.announces(&entry) })
	if i := slices.IndexFunc(n.all, func(i incident) bool { return i.alike(&entry) }); i >= 0 {
		entry.Count += n.all[i].Count
		n.all = slices.Delete(n.all, i, i+1)
	}
	if len(n.all) == maxIncidents {
		n.makeRoom()
	}
	n.all = append(n.all, entry)
}

// alike reports whether two entries are of one kind.
func (i *incident) alike(newer *incident) bool {
	return i.kind == newer.kind && i.Status == newer.Status && i.Client == newer.Client && i.Account == newer.Account
}

// announces reports whether the log told of a request that tells of itself now: of a failure of ours it does so just before.
func (i *incident) announces(newer *incident) bool {
	return i.Status == 0 && newer.Status != 0 && i.RequestID != "" && i.RequestID == newer.RequestID
}

// makeRoom drops the oldest entry of whoever has most.
func (n *incidents) makeRoom() {
	entries := make(map[string]int)
	for i := range n.all {
		entries[n.all[i].whose()]++
	}
	most := 0
	for _, count := range entries {
		most = max(most, count)
	}
	i := slices.IndexFunc(n.all, func(i incident) bool { return entries[i.whose()] == most })
	n.all = slices.Delete(n.all, i, i+1)
}

// whose is whom an entry is counted for: a client, those that are none of ours, or the proxy.
func (i *incident) whose() string {
	if i.Status == 0 {
		return "log"
	}
	return "client " + i.Client
}

// list is what the operator is shown, the newest first.
func (n *incidents) list() []admin.Incident {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make([]admin.Incident, 0, len(n.all))
	for _, i := range slices.Backward(n.all) {
		i.At = i.At.UTC().Truncate(time.Millisecond)
		list = append(list, i.Incident)
	}
	return list
}

// kindOf is a reason without what differs from time to time: what is quoted, and words that have a digit in them.
func kindOf(reason string) string {
	var kind strings.Builder
	for i, part := range strings.Split(reason, `"`) {
		if i%2 == 1 {
			kind.WriteByte('"')
			continue
		}
		for _, word := range strings.Fields(part) {
			if strings.ContainsAny(word, "0123456789") {
				word = "#"
			}
			kind.WriteString(word + " ")
		}
	}
	return kind.String()
}

// shortened is a text of so many bytes at most.
func shortened(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// keep lets a logger's warnings and errors be incidents, too, whatever its level.
func (n *incidents) keep(log *zap.Logger) *zap.Logger {
	return log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewTee(core, incidentCore{LevelEnabler: zapcore.WarnLevel, into: n})
	}))
}

// incidentCore takes in what is logged. Of its fields it knows those below, and looks at no others.
type incidentCore struct {
	zapcore.LevelEnabler
	into *incidents
	with []zapcore.Field
}

// With is that of zapcore.Core.
func (c incidentCore) With(fields []zapcore.Field) zapcore.Core {
	c.with = slices.Concat(c.with, fields)
	return c
}

// Check is that of zapcore.Core.
func (c incidentCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

// Write is that of zapcore.Core.
func (c incidentCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	one := admin.Incident{At: e.Time, Reason: e.Message}
	for _, f := range slices.Concat(c.with, fields) {
		switch f.Key {
		case "request_id":
			one.RequestID = f.String
		case "client":
			one.Client = f.String
		case "account":
			one.Account = f.String
		case "method":
			one.Method = f.String
		case "path":
			one.Path = f.String
		case "budget", "note", "part", "reason":
			one.Reason += ": " + f.String
		case "error":
			if err, ok := f.Interface.(error); ok {
				one.Reason += ": " + strings.ReplaceAll(err.Error(), "\n", "; ")
			}
		}
	}
	c.into.add(one)
	return nil
}

// Sync is that of zapcore.Core.
func (incidentCore) Sync() error { return nil }
