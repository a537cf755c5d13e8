package limiter

import (
	"context"
	"encoding/binary"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// listen hears what the others do, and fetches all rings anew whenever something may have been missed.
func (s *Redis) listen(ctx context.Context) {
	for s.listenOnce(ctx) {
	}
}

// listenOnce is listen until the subscription is to be made anew (true) or all ends.
func (s *Redis) listenOnce(ctx context.Context) bool {
	subscription := s.client.Subscribe(ctx, channel)
	defer subscription.Close()
	messages := subscription.ChannelWithSubscriptions(redis.WithChannelSize(4096))
	for {
		select {
		case <-ctx.Done():
			return false
		case <-s.listenAnew:
			return true
		case message, ok := <-messages:
			if !ok {
				return false
			}
			switch m := message.(type) {
			case *redis.Message:
				s.hear(m.Payload)
			case *redis.Subscription:
				s.suspectAll()
			}
		}
	}
}

// show keeps a connection for Redis to see that this process lives, and nothing else. It is not closed however long Redis is silent:
// so if it is, the process has ended.
func (s *Redis) show(ctx context.Context) {
	for s.showOnce(ctx) {
	}
}

// showOnce is show until the connection is to be made anew (true) or all ends.
func (s *Redis) showOnce(ctx context.Context) bool {
	subscription := s.client.Subscribe(ctx, s.ownChannel())
	defer subscription.Close()
	messages := subscription.ChannelWithSubscriptions(redis.WithChannelHealthCheckInterval(0))
	for {
		select {
		case <-ctx.Done():
			return false
		case <-s.showAnew:
			return true
		case _, ok := <-messages:
			if !ok {
				return false
			}
		}
	}
}

// hear takes in what a replica tells of what it did. It skips what another version may tell.
func (s *Redis) hear(message string) {
	switch message {
	case "replica":
		s.nudge()
		return
	case forgotten:
		s.heardForgotten()
		return
	}
	if link, ok := strings.CutPrefix(message, s.echo); ok {
		s.heardEcho(link)
		return
	}
	news := readCounts(message)
	if len(news) == 0 {
		news = readAmendment(message)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(news) == 0 || s.epoch.Load() == 0 || s.closed {
		return
	}
	now := s.now()
	for _, n := range news {
		s.heard(n, now)
	}
	s.changes++
	s.pump(now)
}

// news is what a replica did with a budget. Times are Redis's.
type news struct {
	verb, key      string
	stamp, before  int64 // what was counted, and what before; what was moved, and to when; a pause's end
	shrunk, factor int64
	span           int64
	keep           int
	taker          // whose a count is
}

// readCounts takes admit.lua's message apart, which is in binary.
func readCounts(message string) []news {
	const fixed, each = 1 + 8, 8 + 8 + 4 + 2
	if len(message) < fixed || message[0] != '+' {
		return nil
	}
	who, rest, ok := cutTaker(message[fixed:])
	if !ok {
		return nil
	}
	stamp := number(message, 1)
	var all []news
	for data := []byte(rest); len(data) >= each; {
		n := news{verb: "count", stamp: stamp, taker: who}
		who.weight = 0 // the queue is the first budget's
		n.before = int64(binary.BigEndian.Uint64(data))
		n.span = int64(binary.BigEndian.Uint64(data[8:]))
		n.keep = int(binary.BigEndian.Uint32(data[16:]))
		length := int(binary.BigEndian.Uint16(data[20:]))
		data = data[each:]
		if len(data) < length {
			return nil
		}
		n.key, data = budgetKey(string(data[:length])), data[length:]
		all = append(all, n)
	}
	return all
}

// readAmendment takes amend.lua's message apart, which is in words.
func readAmendment(message string) []news {
	words := strings.Split(message, " ")
	want := map[string]int{"move": 6, "drop": 6, "pause": 7, "merge": 6}[words[0]]
	if want != len(words) {
		return nil
	}
	var numbers []int64
	for _, word := range words[1 : want-1] {
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return nil
		}
		numbers = append(numbers, n)
	}
	n := news{verb: words[0], key: budgetKey(words[want-1]), stamp: numbers[0], before: numbers[1]}
	if n.verb == "pause" {
		n.shrunk, n.factor = numbers[1], numbers[2]
	}
	n.keep, n.span = int(numbers[len(numbers)-2]), numbers[len(numbers)-1]
	return []news{n}
}

// heard takes in what was done with one budget. s.mu is held.
func (s *Redis) heard(n news, now time.Duration) {
	if n.key == "" {
		return
	}
	s.sweep(now)
	b := s.budget(n.key, nil, now)
	b.keep = max(b.keep, n.keep)
	b.span = max(b.span, time.Duration(n.span)*time.Microsecond)
	switch n.verb {
	case "count":
		if s.doubtful() && n.replica != s.name {
			b.learnOf(s.local(n.stamp))
			return
		}
		who := s.heardOf(b, n.taker, now)
		b.insert(s.local(n.stamp))
		if n.replica != s.name {
			b.mark(s.local(n.stamp), who)
		}
		s.follows(b, s.local(n.before), now)
	case "move":
		who, ours := b.everything().whose(s.local(n.stamp)), b.ring.has(s.local(n.stamp))
		b.remove(s.local(n.stamp))
		if s.doubtful() && !ours {
			b.learnOf(s.local(n.before))
			return
		}
		b.insert(s.local(n.before))
		if who != unknown {
			b.mark(s.local(n.before), who)
		}
	case "drop":
		s.heardBack(b, b.everything().whose(s.local(n.stamp)), now) // one of our own is not there any more
		b.remove(s.local(n.stamp))
		b.full = longAgo
	case "pause":
		s.pausedBy(b, n.stamp, n.shrunk, n.factor)
	case "merge": // by one that is back: of what it counted alone nothing else tells
		s.gaps[b] = gap{never, now}
	}
}
