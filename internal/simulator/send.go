package simulator

import (
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// send completes the log's entry and sends the answer.
func (s *Simulator) send(c *call, rep reply) {
	body, kind := c.encode(rep)
	h := c.w.Header()
	s.setHeaders(c, rep, kind)
	if rep.value != nil && !rep.jsonOnly && (rep.status == http.StatusOK || rep.status == http.StatusCreated) {
		etag := entityTag(body)
		h["Etag"] = []string{etag}
		if c.cfg.ConditionalGet && isRead(c.r.Method) && strings.Contains(c.r.Header.Get("If-None-Match"), etag) {
			rep, body = reply{status: http.StatusNotModified}, nil
		}
	}
	switch {
	case rep.stream > 0:
		h["Content-Length"] = []string{strconv.FormatInt(rep.stream, 10)}
		s.finish(c, rep.status)
		s.pour(c, rep)
		return
	case rep.status == http.StatusOK && !rep.bare && !rep.cut && c.acceptsGzip():
		h["Content-Encoding"] = []string{"gzip"}
		body = s.zip(body)
	}
	switch {
	case !bodyAllowed(rep.status):
	case rep.bare || rep.cut || c.cfg.NoChunked || !c.r.ProtoAtLeast(1, 1):
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	case c.r.ProtoMajor == 1:
		h["Transfer-Encoding"] = []string{"chunked"}
	}
	s.finish(c, rep.status)
	switch {
	case rep.cut && c.r.Method == http.MethodHead:
		cutHeader(c.w)
	case rep.cut:
		cutOff(c.w, rep.status, body)
	}
	c.w.WriteHeader(rep.status)
	_, _ = c.w.Write(body) // a client that has gone reads no error
	if rep.thenReset > 0 {
		c.resetAfter(rep.thenReset)
	}
}

// setHeaders sets what does not depend on how the body is framed.
func (s *Simulator) setHeaders(c *call, rep reply, kind string) {
	h := c.w.Header()
	if rep.bare {
		h["Server"] = s.static.server
	} else {
		s.static.set(h, c)
	}
	for _, line := range rep.header {
		h.Set(line[0], line[1])
	}
	if !rep.modified.IsZero() {
		h["Last-Modified"] = []string{rep.modified.UTC().Format(http.TimeFormat)}
	}
	h["Content-Type"] = []string{kind}
}

// finish completes the log's entry and the counts; the answer's first byte has not left yet.
func (s *Simulator) finish(c *call, status int) {
	s.log.update(c.entry, func(e *Request) { e.Status = status })
	if status == http.StatusUnauthorized && c.isAPI() {
		s.meter.countDenied()
	}
}

// encode returns the body and its Content-Type, in the client's format.
func (c *call) encode(rep reply) (body []byte, kind string) {
	switch {
	case rep.value == nil && rep.kind == "" && c.wantsXML():
		return nil, "application/xml"
	case rep.value == nil && rep.kind == "":
		return nil, "application/json"
	case rep.value == nil:
		return []byte(rep.text), rep.kind
	case c.wantsXML() && !rep.jsonOnly:
		return appendXML(nil, rep.value, c.base), "application/xml; charset=utf-8"
	}
	return appendJSON(make([]byte, 0, 1024), rep.value, c.base), "application/json; charset=utf-8"
}

// wantsXML goes by which of the two Accept names first; without either it is JSON.
func (c *call) wantsXML() bool {
	if c.cfg.AlwaysXML {
		return true
	}
	accept := strings.ToLower(c.r.Header.Get("Accept"))
	before, _, isXML := strings.Cut(accept, "xml")
	return isXML && !strings.Contains(before, "json")
}

func (c *call) acceptsGzip() bool {
	return !c.cfg.NoGzip && strings.Contains(c.r.Header.Get("Accept-Encoding"), "gzip")
}

func isRead(method string) bool { return method == http.MethodGet || method == http.MethodHead }

func bodyAllowed(status int) bool {
	return status != http.StatusNoContent && status != http.StatusNotModified
}

// entityTag is weak and 32 hex digits long, as recorded. MD5 is no secret here.
func entityTag(body []byte) string {
	sum := md5.Sum(body)
	return `W/"` + hex.EncodeToString(sum[:]) + `"`
}

func (s *Simulator) zip(body []byte) []byte {
	var out bytes.Buffer
	z, ok := s.gzips.Get().(*gzip.Writer)
	if ok {
		z.Reset(&out)
	} else {
		z, _ = gzip.NewWriterLevel(&out, gzip.BestSpeed) // a valid level
	}
	defer s.gzips.Put(z)
	_, _ = z.Write(body) // a bytes.Buffer takes everything
	_ = z.Close()
	return out.Bytes()
}

// cutOff sends half of the answer and resets the connection. It does not return.
func cutOff(w http.ResponseWriter, status int, body []byte) {
	if len(body) == 0 {
		w.Header().Set("Content-Length", "1") // of which none comes
	}
	w.WriteHeader(status)
	_, _ = w.Write(body[:len(body)/2]) // a client that has gone reads no error
	reset(w)
}

// cutHeader is cutOff for an answer that is a header alone: after it the connection would be as good as ever. It does not return.
func cutHeader(w http.ResponseWriter) {
	if conn, buffered, err := http.NewResponseController(w).Hijack(); err == nil { // not in HTTP/2
		_, _ = buffered.WriteString("HTTP/1.1 200 OK\r\nContent-") // a client that has gone reads no error
		_ = buffered.Flush()
		resetConn(conn)
	}
	hangUp()
}

// reset sends what was written and then RST, in HTTP/2 RST_STREAM. It does not return.
func reset(w http.ResponseWriter) {
	control := http.NewResponseController(w)
	_ = control.Flush()
	if conn, _, err := control.Hijack(); err == nil { // not in HTTP/2
		resetConn(conn)
	}
	hangUp()
}

// pour sends rep.stream bytes of filler as fast as they are taken; half of them if it is to be cut.
func (s *Simulator) pour(c *call, rep reply) {
	c.w.WriteHeader(rep.status)
	if c.r.Method == http.MethodHead {
		return
	}
	left := rep.stream
	if rep.cut {
		left /= 2
	}
	for left > 0 {
		n, err := c.w.Write(s.static.filler[:min(left, int64(len(s.static.filler)))])
		if err != nil {
			hangUp()
		}
		left -= int64(n)
	}
	if rep.cut {
		reset(c.w)
	}
}

// runtime is X-Runtime: the seconds that the application took.
func (c *call) runtime() string {
	return strconv.FormatFloat(time.Since(c.start).Seconds(), 'f', 6, 64)
}
