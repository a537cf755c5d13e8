package limiter

// A client that follows a Sentinel, or a name, may go over to another server in the middle of all, without an error: one that has not
// heard of what was counted last, or of all that was counted at an old master that was cut off with us. So when a connection goes to
// another address than the one before, it is asked for the server's run before its answers count; and each beat tells it. Who finds
// another run gives that server what it knows before it counts there.

// dialled notes where a connection goes.
func (s *Redis) dialled(address string) {
	if before, _ := s.address.Swap(address).(string); before != "" && before != address && !s.cluster {
		s.moved.Store(true)
	}
}

// elsewhere reports whether another run of a server answered last than the one that was given what we know. s.mu is held.
func (s *Redis) elsewhere() bool {
	return (s.state == linked || s.state == returning) && s.run != s.ranAs
}

// subscribeAnew sees to it that we hear of, and can be seen at, the server that we are about to count at. A subscription at one that was
// cut off stays where it is, since nothing tells that it is of no use. The connection that shows that we live stays if the server
// is the same: that is what it is for.
func (s *Redis) subscribeAnew(other bool) {
	anew := []chan struct{}{s.listenAnew}
	if other {
		anew = append(anew, s.showAnew)
	}
	for _, c := range anew {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
