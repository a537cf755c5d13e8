package outcomes

import "time"

// Halt ends the Book's own work, as if its process were halted or dead: what it holds shows no life any more.
func (b *Book) Halt() {
	b.stop()
	<-b.stopped
}

// Sweep removes what has expired, now.
func (b *Book) Sweep() { b.store.sweep() }

// Expire does what the sweep does to a record that it has seen expired.
func (b *Book) Expire(name Name) {
	f := b.store.(*file)
	f.expire(f.path(&record{id: name.id(), account: name.Account, client: name.Client}))
}

// SetClock sets the clock that the files' times go by so far ahead of the machine's.
func (b *Book) SetClock(ahead time.Duration) {
	c := b.store.(*file).clock
	c.following.Lock()
	defer c.following.Unlock()
	c.wall = func(now time.Time) int64 { return now.Add(ahead).UnixNano() }
}

// Fill counts so many units as the name's client's.
func (b *Book) Fill(name Name, units int) {
	r := &record{account: name.Account, client: name.Client}
	f := b.store.(*file)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.scope(r).units = units
}

// Units is what the name's client has on record.
func (b *Book) Units(name Name) int {
	f := b.store.(*file)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.scope(&record{account: name.Account, client: name.Client}).units
}

// Held is how many claims are not settled, or not stored.
func (b *Book) Held() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.held)
}

// Path is where the file store keeps the name's record.
func Path(name Name) string {
	f := &file{}
	return f.path(&record{id: name.id(), account: name.Account, client: name.Client})
}

// Key is where Redis has it.
func Key(name Name) string {
	return keys(&record{id: name.id(), account: name.Account, client: name.Client})[0]
}

// CountKey is where Redis counts what the name's client has on record.
func CountKey(name Name) string {
	return keys(&record{account: name.Account, client: name.Client})[1]
}
