package limiter

import "time"

// owner is the number of a client, by which its permits are told from others'.
type owner uint16

const (
	// unknown owns what was taken before a restart, or by another process that did not tell.
	unknown owner = 0
	// maxOwners is how many clients are told apart; the rest is unknown. Configurations have a few dozen.
	maxOwners = 4096
)

// Unknown is the name under which UsedBy counts the permits that were taken before a restart, or by other
// processes that share the budget when this one could not hear of it.
const Unknown = "unknown"

// owners are the clients that ever took a permit.
type owners struct {
	numbers map[string]owner
	names   []string // by number
}

// number is the client's number, given to it now if it has none.
func (o *owners) number(client string) owner {
	if n, ok := o.numbers[client]; ok {
		return n
	}
	if o.numbers == nil {
		o.numbers, o.names = make(map[string]owner), []string{Unknown}
	}
	if len(o.names) == maxOwners {
		return unknown
	}
	n := owner(len(o.names))
	o.numbers[client] = n
	o.names = append(o.names, client)
	return n
}

// name is the client of a number.
func (o *owners) name(who owner) string {
	if who == unknown {
		return Unknown
	}
	return o.names[who]
}

// hold counts one more permit as open.
func (b *budget) hold(who owner) {
	b.open++
	for len(b.openOf) <= int(who) {
		b.openOf = append(b.openOf, 0)
	}
	b.openOf[who]++
}

// drop counts one less as open.
func (b *budget) drop(who owner) {
	b.open--
	b.openOf[who]--
}

// UsedBy returns who uses the budget: for each of its windows, how many permits each client has in it, those that are
// open included. What is not known is counted under Unknown.
func (l *Local) UsedBy(b Budget) []map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	used := make([]map[string]int, len(b.Windows))
	state := l.look(b.Key)
	for i, w := range b.Windows {
		used[i] = l.named(state.usedBy(l.now() - w.Per - l.guard))
	}
	return used
}

// named is what each client uses, by its name.
func (l *Local) named(used []int) map[string]int {
	byName := make(map[string]int)
	for who, n := range used {
		if n > 0 {
			byName[l.owners.name(owner(who))] += n
		}
	}
	return byName
}

// usedBy counts by owner what is open, or was sent after the time: by all processes, also where this one has but a share.
func (b *budget) usedBy(after time.Duration) []int {
	used := make([]int, len(b.openOf), len(b.openOf)+1)
	copy(used, b.openOf)
	ring := &b.ring
	if b.mirror != nil {
		ring = b.everything()
	}
	for k := ring.since(after); k > 0; k-- {
		who := ring.owners[ring.place(ring.count-k)]
		for len(used) <= int(who) {
			used = append(used, 0)
		}
		used[who]++
	}
	return used
}
