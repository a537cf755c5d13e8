package proxy

import (
	"context"
	"io"
	"net/http"
	"time"
)

// linger is how long the rest of a refused body may stop coming before its connection is closed, and hearing how long it may take in
// all. nginx has the same (lingering_timeout, lingering_time).
const (
	linger  = 5 * time.Second
	hearing = 30 * time.Second
)

// hearOut takes in what comes of a refused body behind the refusal, and throws it away. Most libraries read an answer only when
// they have sent the request. net/http closes the connection if more than 256 KiB are to come, which ends the sending of these,
// and they never get to know why: they report a broken connection, or send it all again.
func (p *Proxy) hearOut(w http.ResponseWriter, r *http.Request, rest io.Reader) {
	control := http.NewResponseController(w)
	if r.ProtoMajor != 1 || control.Flush() != nil {
		return // in HTTP/2 the server tells the client to stop
	}
	refused := &upload{Reader: rest, control: *control, idle: linger, draining: p.draining}
	defer context.AfterFunc(p.draining, refused.interrupt)()
	buffer := p.buffers.Get()
	defer p.buffers.Put(buffer)
	for left, end := 2*maxBody, time.Now().Add(hearing); left > 0 && time.Now().Before(end); {
		n, err := refused.Read(buffer)
		if err != nil {
			break
		}
		left -= n
	}
	refused.interrupt() // else net/http would read on
}
