package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// inMemory is how much of a body stays in memory; a longer one goes to a temporary file.
	inMemory = 1 << 20
	// allInMemory bounds what all bodies together hold in memory. Past it even
	// small ones go to files, so that a crowd of clients costs disk, not memory.
	allInMemory = 16 << 20
	// maxBody is the longest body: FreeAgent takes several 5 MB attachments in one
	// request, in base64, inside JSON.
	maxBody = 64 << 20
)

// bodies reads request bodies whole before a permit is taken, so that a slow client holds up
// nobody, and so that a request can be sent again.
type bodies struct {
	memory  *semaphore.Weighted
	held    atomic.Int64 // of memory, which does not tell
	spilled atomic.Int64 // bodies that went to a file
}

// noBody is the body of all requests without one.
var noBody = &body{}

func newBodies() *bodies { return &bodies{memory: semaphore.NewWeighted(allInMemory)} }

func (b *bodies) acquire(n int64) bool {
	if !b.memory.TryAcquire(n) {
		return false
	}
	b.held.Add(n)
	return true
}

func (b *bodies) release(n int64) {
	b.held.Add(-n)
	b.memory.Release(n)
}

// body is a request body, read once and opened as often as needed. The zero body is empty.
type body struct {
	memory   []byte
	file     *os.File // nil when it all fitted in memory
	size     int64
	acquired int64
	owner    *bodies
	replaced int // URLs in it that were rewritten
}

// read takes in the request's body. Its errors are errBodyTooLarge, errBodyBroken and errBodyStalled
// (the client's), errBodyStorage (ours) and errDraining.
func (p *Proxy) readBody(x *exchange, r *http.Request) (*body, error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return noBody, nil
	}
	if r.ContentLength > maxBody {
		return nil, errBodyTooLarge
	}
	client := &upload{Reader: x.keyed.reading(r.Body), control: x.control, idle: p.config.Timeout, draining: p.draining}
	defer client.finish(context.AfterFunc(p.draining, client.interrupt))
	read := &body{owner: p.bodies}
	if err := read.fromClient(x, r, client); err != nil {
		read.Close()
		return nil, err
	}
	x.unread = false
	return read, nil
}

// growth is how much longer than twice its length a body may get in memory by being rewritten: tens of URLs in a short one.
const growth = 1 << 10

// fromClient reads a body, with the URLs in it rewritten if they are to be.
func (b *body) fromClient(x *exchange, r *http.Request, client io.Reader) error {
	if !x.urls.reads(r) {
		return b.from(client, r.ContentLength, r.ContentLength)
	}
	window := x.urls.proxy.buffers.Get()
	defer x.urls.proxy.buffers.Put(window)
	src := x.urls.request(r, client, window)
	err := b.from(src, r.ContentLength, 2*r.ContentLength+growth)
	b.replaced = src.replaced
	return err
}

// upload is a body on its way from the client. It may take as long as it moves, and as we are not shutting
// down: nothing of it has been sent yet.
type upload struct {
	io.Reader
	control  http.ResponseController // a copy: interrupt may come late
	idle     time.Duration
	draining context.Context
}

func (u *upload) Read(p []byte) (int, error) {
	_ = u.control.SetReadDeadline(time.Now().Add(u.idle)) // a reader without deadlines is a test's
	if u.draining.Err() != nil {
		return 0, errDraining
	}
	n, err := u.Reader.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errBodyStalled
		if u.draining.Err() != nil {
			err = errDraining
		}
	}
	return n, err
}

// interrupt ends a read that waits.
func (u *upload) interrupt() { _ = u.control.SetReadDeadline(time.Unix(1, 0)) }

// finish takes the deadline off: from now on the connection is read to learn whether the client leaves.
func (u *upload) finish(stop func() bool) {
	stop()
	_ = u.control.SetReadDeadline(time.Time{})
}

// from reads src, whose length is declared, or unknown (-1). It may be longer when it is rewritten, but then more than
// most only goes to a file.
func (b *body) from(src io.Reader, declared, most int64) error {
	head := int64(inMemory)
	if declared >= 0 {
		head = min(head, most)
	}
	if b.owner.acquire(head) {
		b.acquired = head
		if err := b.readMemory(src, head, declared); err != nil {
			return err
		}
		if b.size <= head {
			b.owner.release(b.acquired - b.size) // chunks of ten bytes must not hold a megabyte
			b.acquired = b.size
			return nil
		}
	}
	return b.spill(src)
}

// readMemory reads up to head bytes and one more, which tells that there are more. An unknown length grows as it comes: a
// chunked request of ten bytes must not cost a megabyte.
func (b *body) readMemory(src io.Reader, head, declared int64) error {
	var buffer bytes.Buffer
	if declared >= 0 {
		buffer.Grow(int(min(head, declared)) + bytes.MinRead)
	}
	n, err := buffer.ReadFrom(io.LimitReader(src, head+1))
	b.memory, b.size = buffer.Bytes(), n
	if err != nil {
		return fmt.Errorf("%w: %w", errBodyBroken, err)
	}
	return nil
}

// spill puts what was read and what is to come into a temporary file, which has no
// name any more, so that a crash leaves nothing behind.
func (b *body) spill(src io.Reader) error {
	file, err := os.CreateTemp("", "freeagent-proxy-body-*")
	if err != nil {
		return fmt.Errorf("%w: %w", errBodyStorage, err)
	}
	b.file = file
	b.owner.spilled.Add(1)
	_ = os.Remove(file.Name()) // fails on Windows while it is open; Close removes it there
	if _, err := file.Write(b.memory); err != nil {
		return fmt.Errorf("%w: %w", errBodyStorage, err)
	}
	b.release()
	return b.copyToFile(io.LimitReader(src, maxBody+1-b.size))
}

func (b *body) copyToFile(src io.Reader) error {
	source := &sourceReader{Reader: src}
	n, err := io.Copy(b.file, source)
	b.size += n
	switch {
	case source.err != nil:
		return fmt.Errorf("%w: %w", errBodyBroken, source.err)
	case err != nil:
		return fmt.Errorf("%w: %w", errBodyStorage, err)
	case b.size > maxBody:
		return errBodyTooLarge
	}
	return nil
}

// sourceReader remembers a read error, to tell the client's failures from the disk's.
type sourceReader struct {
	io.Reader
	err error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// open gives the body from its beginning. Several readers may be open at a time: the transport
// may still be reading for one attempt when the next one begins.
func (b *body) open() io.ReadCloser {
	switch {
	case b.size == 0:
		return http.NoBody
	case b.file != nil:
		return io.NopCloser(io.NewSectionReader(b.file, 0, b.size))
	default:
		return io.NopCloser(bytes.NewReader(b.memory))
	}
}

// Close gives back the memory and the file.
func (b *body) Close() {
	b.release()
	if b.file != nil {
		_ = b.file.Close()
		_ = os.Remove(b.file.Name()) // already gone but on Windows
	}
}

func (b *body) release() {
	if b.acquired > 0 {
		b.memory = nil
		b.owner.release(b.acquired)
		b.acquired = 0
	}
}
