package tokens

// Changed says that the store has, or may have, another grant for the account than when it was
// last read. In the background the Manager takes over what is newer, so that all who wait for a
// token get it at once, also those whose refresh still waits for its lock; and stores again
// what it holds itself if the store has lost that. An account that nobody asked for is left alone.
func (m *Manager) Changed(name string) {
	entry, ok := m.accounts.Load(name)
	if !ok {
		return
	}
	a := entry.(*account)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.looking {
		a.lookAgain = true
		return
	}
	a.looking = m.spawn(func() { m.catchUp(a) })
}

// catchUp looks until nothing changed meanwhile. A look that fails is no loss: the store tells
// again, and whoever needs a token looks for himself.
func (m *Manager) catchUp(a *account) {
	for {
		_ = m.look(a)
		a.mu.Lock()
		again := a.lookAgain
		a.lookAgain, a.looking = false, again
		m.schedule(a)
		a.mu.Unlock()
		if !again {
			return
		}
	}
}
