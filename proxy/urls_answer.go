package proxy

import (
	"io"
	"net/http"
	"strconv"
	"strings"
)

// aboutBytes are response headers that hold for the bytes that FreeAgent sent, not for rewritten ones. ETag stays: for
// one URL and one client's origin the same tag means the same bytes, and what programs send back in If-None-Match or If-Match
// must be FreeAgent's.
var aboutBytes = []string{"Content-Length", "Content-Md5", "Digest", "Content-Digest", "Repr-Digest", "Accept-Ranges"}

// ask limits what the answer may be encoded in to what we can read.
func (u *urls) ask(h http.Header) {
	if u == nil {
		return
	}
	lines, ok := h["Accept-Encoding"]
	if !ok {
		return
	}
	accept := strings.ToLower(strings.Join(lines, ","))
	if accepted(accept, "gzip").q > 0 || !strings.Contains(accept, "gzip") && accepted(accept, "*").q > 0 {
		h["Accept-Encoding"] = []string{"gzip"}
	} else {
		delete(h, "Accept-Encoding")
	}
}

// answer rewrites FreeAgent's answer to a request of that method.
func (u *urls) answer(x *exchange, resp *http.Response) {
	if u == nil {
		return
	}
	out := &u.outward
	u.headers(out, resp.Header)
	format := answerFormat(resp.Header)
	if format == formatOther || resp.StatusCode == http.StatusPartialContent {
		return
	}
	switch encoding := resp.Header.Get("Content-Encoding"); {
	case x.method == http.MethodHead:
		forget(resp.Header)
	case resp.ContentLength == 0 || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified:
	case encoding == "" || strings.EqualFold(encoding, "identity"):
		u.body(out, format, resp)
	case strings.EqualFold(encoding, "gzip"):
		u.gzip(x, out, format, resp)
	}
}

// headers rewrites those headers whose URLs a program follows.
func (u *urls) headers(out *wanted, h http.Header) {
	for _, name := range []string{"Location", "Content-Location"} {
		for i, value := range h[name] {
			h[name][i] = out.location(value, u.prefix)
		}
	}
	for i, value := range h["Link"] {
		h["Link"][i] = out.link(value, u.prefix)
	}
}

// body rewrites an answer's body. A short one keeps a Content-Length, without which old programs do not
// see its end; a long one, and one that came in chunks, is handed on as it comes.
func (u *urls) body(out *wanted, f format, resp *http.Response) {
	body := u.readInto(&u.plain, out, f, resp.Body)
	resp.Body = body
	if resp.ContentLength < 0 || resp.ContentLength >= copyBuffer || !body.whole() {
		forget(resp.Header)
		return
	}
	if grown, changed := body.growth(); changed {
		body.scanner = f.scanner(out) // which begins anew
		forget(resp.Header)
		resp.Header["Content-Length"] = []string{strconv.FormatInt(resp.ContentLength+int64(grown), 10)}
	}
}

func forget(h http.Header) {
	for _, name := range aboutBytes {
		delete(h, name)
	}
}

// rewrittenBody is an answer's body. It owns its window.
type rewrittenBody struct {
	rewritten
	io.Closer
	buffers *bufferPool
}

func (u *urls) reader(out *wanted, f format, source io.ReadCloser) *rewrittenBody {
	return u.readInto(new(rewrittenBody), out, f, source)
}

func (u *urls) readInto(b *rewrittenBody, out *wanted, f format, source io.ReadCloser) *rewrittenBody {
	*b = rewrittenBody{
		rewritten: rewritten{
			source:  source,
			scanner: f.scanner(out),
			window:  u.proxy.buffers.Get(),
		},
		Closer:  source,
		buffers: u.proxy.buffers,
	}
	return b
}

// Close gives back the window.
func (b *rewrittenBody) Close() error {
	if b.window != nil {
		b.buffers.Put(b.window)
		b.window, b.begin, b.sure, b.end, b.drop, b.inserting, b.err = nil, 0, 0, 0, 0, nil, io.ErrClosedPipe
	}
	return b.Closer.Close()
}
