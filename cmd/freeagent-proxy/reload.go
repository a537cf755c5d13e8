package main

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// A reload replaces what requests are judged by, while they are served: whoever is under way goes on as it began, and whoever comes
// after meets the new configuration. It is read as at the start, and if anything is wrong with it nothing changes.

// reloader reads the configuration anew.
type reloader struct {
	server *server
	load   func() (Config, error)
	level  zap.AtomicLevel // of the log
}

// run reloads each time that it is told to, until there is nothing more to tell.
func (r *reloader) run(hangUps <-chan os.Signal) {
	for range hangUps {
		if s := r.server; s.ready.closing.Load() {
			s.log.Info("shutting down; the configuration is not read anew")
			continue
		}
		r.reload()
	}
}

// loadPatience bounds the reading of grants of accounts that are new. What has not come by then is tried again.
const loadPatience = 10 * time.Second

// reload reads and applies the configuration, and tells what came of it.
func (r *reloader) reload() {
	s := r.server
	s.notify.reloading()
	defer s.notify.ready()
	next, err := r.load()
	if err == nil {
		err = r.apply(next)
	}
	s.reloads.done(err == nil)
	if err != nil {
		s.log.Error("the configuration cannot be used, the former one holds on; correct it, `freeagent-proxy check` shows the same, and reload again",
			zap.Strings("problems", strings.Split(err.Error(), "\n")))
	}
}

// apply makes the configuration the one that holds, but for what a running process cannot change.
func (r *reloader) apply(next Config) error {
	s, old := r.server, r.server.config()
	now := s.within(next, old)
	if err := s.tolerable(now); err != nil {
		return err
	}
	files, err := s.certificates.use(now.TLS)
	if err != nil {
		return err
	}
	s.log.counts.follow(now)
	s.current.Store(&now)
	s.proxy.Reconfigure(s.proxyConfig())
	if !samePage(old, now) {
		s.renewPage()
	}
	r.level.SetLevel(now.Log.level())
	s.loadMore(old, now)
	applied, waiting := differences(old, now), differences(now, next)
	s.explain("setting replaced", applied)
	s.explain("setting waits for a restart", waiting)
	changed := words(applied)
	if files {
		changed = append(changed, "the TLS files' content")
	}
	r.summarise(changed, append(words(waiting), s.deserted(now)...), next)
	for _, note := range next.Notes {
		if !slices.ContainsFunc(old.Notes, func(former string) bool { return withoutPlace(former) == withoutPlace(note) }) {
			s.log.Warn("configuration note", zap.String("note", note))
		}
	}
	return nil
}

// explain has each difference in the log at level debug.
func (s *server) explain(decision string, all []difference) {
	for _, d := range all {
		s.log.Debug(decision, zap.String("section", d.section), zap.String("name", d.name), zap.String("setting", d.what))
	}
}

// withoutPlace is a note without the file and the line that it begins with.
func withoutPlace(note string) string {
	_, text, _ := strings.Cut(note, ": ")
	return text
}

// summarise says what changed, what has to wait for a restart, and what could not change.
func (r *reloader) summarise(changed, waiting []string, next Config) {
	if len(changed) == 0 {
		changed = []string{"nothing"}
	}
	fields := []zap.Field{zap.String("changed", strings.Join(changed, "; "))}
	if len(waiting) > 0 {
		fields = append(fields, zap.String("needs_restart", strings.Join(waiting, "; ")))
	}
	if len(next.Variables) > 0 {
		fields = append(fields, zap.String("as_at_start", strings.Join(next.Variables, "; ")+
			" (a running process keeps its environment; a secret that a file holds is read again)"))
	}
	r.server.log.Info("configuration reloaded", fields...)
}

// within is a new configuration with what a running process cannot change as it is.
func (s *server) within(next, old Config) Config {
	next.Listen, next.Inherited, next.MaxConnections = old.Listen, old.Inherited, old.MaxConnections
	next.Admin.Listen = old.Admin.Listen
	next.Upstream, next.Store, next.Encryption, next.Seed = old.Upstream, old.Store, old.Encryption, old.Seed
	next.Tracing = old.Tracing
	next.Limits.Guard, next.Limits.Replicas = old.Limits.Guard, old.Limits.Replicas
	next.Log.Format = old.Log.Format
	if next.TLS.given() != old.TLS.given() {
		next.TLS = old.TLS
	}
	next.Clients = maps.Clone(next.Clients)
	for name, client := range next.Clients {
		client.Listen = s.own[name]
		next.Clients[name] = client
	}
	return next
}

// tolerable makes sure that what the new configuration takes away does not open a listener that stays as it is.
func (s *server) tolerable(now Config) error {
	p := &problems{}
	now.validateListeners(p)
	if len(now.Clients) == 0 && slices.ContainsFunc(now.Listen, isInherited) && slices.ContainsFunc(s.listen, isOpen) {
		p.add("clients", "none are left, but a socket that systemd passed can be reached from other machines")
	}
	if err := p.err(); err != nil {
		return fmt.Errorf("it needs a restart, since with the listeners that are open it would not be allowed: %w", err)
	}
	return nil
}

// isOpen reports whether other machines can reach a listener.
func isOpen(l net.Listener) bool {
	tcp, ok := l.Addr().(*net.TCPAddr)
	return ok && !tcp.IP.IsLoopback()
}

// loadMore reads the grants of accounts that are new.
func (s *server) loadMore(old, now Config) {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(now.Accounts)), func(name string) bool {
		_, known := old.Accounts[name]
		return known
	})
	if len(names) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), loadPatience)
	defer cancel()
	if err := s.tokens.Load(ctx, names); err != nil {
		s.log.Error("grants of new accounts cannot be read; it is tried again until they can, see to the store", zap.Error(err))
	}
}

// deserted names the listeners whose client is configured no more.
func (s *server) deserted(now Config) []string {
	var found []string
	for _, name := range slices.Sorted(maps.Keys(s.own)) {
		if _, known := now.Clients[name]; !known {
			found = append(found, fmt.Sprintf("the listener of client %s, which stays open and lets nobody in", name))
		}
	}
	return found
}
