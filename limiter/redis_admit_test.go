package limiter_test

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/limiter"

	"github.com/redis/go-redis/v9"
)

// ring is one budget in Redis, asked by its scripts alone, and what counting by hand makes of it.
type ring struct {
	t      *testing.T
	client *redis.Client
	stamps []int64 // all that count, in µs, the oldest first
	last   int64   // the latest that ever counted
}

// What the ring is for, whatever windows are asked for: kept is more than any of them holds, so that a permit may be dropped.
const (
	ringKey  = "fap:v1:{acme}:api"
	ringKept = 60
	ringSpan = 40 * time.Millisecond
)

// clock says that Redis's clock is right.
func clock() []byte { return binary.BigEndian.AppendUint64(make([]byte, 16), 1<<52) }

// ask asks for a permit, and checks the answer.
func (r *ring) ask(windows []limiter.Window) {
	r.t.Helper()
	order := binary.BigEndian
	q := order.AppendUint64(clock(), uint64(ringSpan.Microseconds()))
	q = order.AppendUint64(order.AppendUint32(q, ringKept), 0)
	q = append(q, byte(len(windows)))
	for _, w := range windows {
		q = order.AppendUint64(order.AppendUint32(q, uint32(w.Requests)), uint64(w.Per.Microseconds()))
	}
	text, err := limiter.Admit.Run(context.Background(), r.client, []string{ringKey}, q).Text()
	if err != nil {
		r.t.Fatal(err)
	}
	answer := []byte(text)
	number := func(at int) int64 { return int64(order.Uint64(answer[at:])) }
	now, ready := number(1), int64(0)
	for _, w := range windows {
		if i := len(r.stamps) - w.Requests; i >= 0 {
			ready = max(ready, r.stamps[i]+w.Per.Microseconds())
		}
	}
	switch {
	case ready > now && (answer[0] != 0 || number(9) != ready):
		r.t.Fatalf("answer %x at %d to %v, want no until %d", answer, now, windows, ready)
	case ready <= now && (answer[0] != 1 || number(9) != even(max(now, r.last+1)) || number(17) != r.last):
		r.t.Fatalf("answer %x at %d to %v, want yes, after %d", answer, now, windows, r.last)
	case ready <= now:
		r.last = number(9)
		r.stamps = append(r.stamps, r.last)
	}
}

// even is the time from which on Redis may make a stamp: odd ones are made by replicas that count alone.
func even(t int64) int64 { return t + t%2 }

// amend moves or drops the permit that was taken so many permits ago.
func (r *ring) amend(verb string, ago int) {
	r.t.Helper()
	i := len(r.stamps) - 1 - ago
	if i < 0 {
		return
	}
	answer, err := limiter.Amend.Run(context.Background(), r.client, []string{ringKey},
		"channel", ringSpan.Microseconds(), ringKept, clock(), verb, r.stamps[i]).Text()
	if err != nil {
		r.t.Fatal(err)
	}
	stamp, err := strconv.ParseInt(answer, 10, 64)
	if err != nil || verb == "move" && (stamp <= r.last || stamp != even(stamp)) || verb == "drop" && stamp != 0 {
		r.t.Fatalf("%s of %d: %q, the last is %d", verb, r.stamps[i], answer, r.last)
	}
	if r.stamps = slices.Delete(r.stamps, i, i+1); verb == "move" {
		r.last = stamp
		r.stamps = append(r.stamps, stamp)
	}
}

// Whoever asks, for whatever windows, the ring in Redis answers what counting all permits gives, to the microsecond.
func TestRedisSameAsCounting(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	for seed := range uint64(12) {
		t.Logf("seed %d", seed)
		if err := client.Del(context.Background(), ringKey).Err(); err != nil {
			t.Fatal(err)
		}
		draw := rand.New(rand.NewPCG(seed, 0))
		r := &ring{t: t, client: client}
		var windows []limiter.Window
		for step := range 600 {
			if step%150 == 0 || draw.IntN(40) == 0 { // others have other limits, or left a part of theirs to somebody
				windows = windows[:0]
				for range 1 + draw.IntN(3) {
					length := 200*time.Microsecond + time.Duration(draw.Int64N(int64(ringSpan)))/time.Duration(1+draw.IntN(20))
					windows = append(windows, limiter.Window{Requests: 1 + draw.IntN(ringKept-15), Per: min(length, ringSpan)})
				}
			}
			switch draw.IntN(100) {
			case 0:
				time.Sleep(time.Duration(draw.Int64N(int64(ringSpan))))
			case 1:
				r.amend("drop", draw.IntN(4))
			case 2, 3:
				r.amend("move", draw.IntN(4))
			default:
				r.ask(windows)
			}
		}
	}
}
