package proxy

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"sync"
)

// maxZipping is how many answers are compressed at a time, by writers of 1.2 MB each. The answers past that, when many clients
// take long ones slowly, are gzip that is not compressed.
const maxZipping = 16

// gzips are what zipping costs memory for, kept for the next answer.
type gzips struct {
	readers, writers sync.Pool
	zipping          chan struct{} // holds one for each writer that is in use
}

func newGzips() *gzips {
	return &gzips{
		zipping: make(chan struct{}, maxZipping),
		readers: sync.Pool{New: func() any { return new(gzip.Reader) }},
		writers: sync.Pool{New: func() any {
			w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // a valid level
			return w
		}},
	}
}

// zip begins a gzip member.
func (g *gzips) zip(out *bytes.Buffer) io.WriteCloser {
	select {
	case g.zipping <- struct{}{}:
		w := g.writers.Get().(*gzip.Writer)
		w.Reset(out)
		return w
	default:
		return &storedZip{out: out}
	}
}

// done gives back what zip has given; nil is nothing.
func (g *gzips) done(zip io.WriteCloser) {
	if w, ok := zip.(*gzip.Writer); ok {
		w.Reset(nil)
		g.writers.Put(w)
		<-g.zipping
	}
}

// gzippedBody is an answer's body that came in gzip and leaves in gzip, since its client asked for that.
type gzippedBody struct {
	x      *exchange
	pools  *gzips
	answer io.Closer
	came   *bufio.Reader
	plain  *rewrittenBody
	reader *gzip.Reader
	writer io.WriteCloser // nil until something has come, and for what is no gzip whatever it says
	out    bytes.Buffer   // what writer has written
	buffer []byte
	err    error
}

// gzip rewrites an answer's body that is zipped. A short one without a URL of FreeAgent's stays byte for byte.
func (u *urls) gzip(x *exchange, out *wanted, f format, resp *http.Response) {
	if resp.ContentLength > 0 && resp.ContentLength < copyBuffer {
		short := u.reader(out, formatOther, resp.Body)
		resp.Body = short
		if short.whole() && !u.zippedIn(short.window[:short.end], out, f) {
			return
		}
	}
	forget(resp.Header)
	resp.Body = u.gzipped(x, out, f, resp.Body)
}

// zippedIn says whether there is anything to rewrite in what is zipped. What cannot be read is not rewritten.
func (u *urls) zippedIn(zipped []byte, out *wanted, f format) bool {
	unzip := u.proxy.gzips.readers.Get().(*gzip.Reader)
	defer u.proxy.gzips.readers.Put(unzip)
	if unzip.Reset(bytes.NewReader(zipped)) != nil {
		return false
	}
	plain := u.reader(out, f, unzip)
	defer plain.Close()
	_, err := io.Copy(io.Discard, plain)
	return err == nil && plain.replaced > 0
}

func (u *urls) gzipped(x *exchange, out *wanted, f format, answer io.ReadCloser) io.ReadCloser {
	b := &gzippedBody{x: x, pools: u.proxy.gzips, answer: answer, came: bufio.NewReader(answer)}
	b.plain = u.reader(out, f, io.NopCloser(unzipping{b}))
	b.buffer = u.proxy.buffers.Get()
	return b
}

// Read zips. FreeAgent labels empty answers as gzip as well; those stay empty.
func (b *gzippedBody) Read(p []byte) (int, error) {
	for b.out.Len() == 0 && b.err == nil {
		n, err := b.plain.Read(b.buffer)
		switch {
		case b.reader == nil: // no gzip
			b.out.Write(b.buffer[:n])
		case b.writer == nil:
			b.writer = b.pools.zip(&b.out)
			fallthrough
		default:
			_, _ = b.writer.Write(b.buffer[:n]) // a bytes.Buffer takes everything
		}
		if errors.Is(err, io.EOF) && b.writer != nil {
			_ = b.writer.Close()
		}
		b.err = err
	}
	if b.out.Len() == 0 {
		return 0, b.err
	}
	return b.out.Read(p)
}

// Close gives back what can be used again.
func (b *gzippedBody) Close() error {
	if b.buffer != nil {
		b.x.rewrite.zipped = b.plain.replaced
		_ = b.plain.Close()
		b.plain.buffers.Put(b.buffer)
		b.buffer, b.err = nil, io.ErrClosedPipe
		b.out.Reset()
	}
	if b.reader != nil {
		b.pools.readers.Put(b.reader)
	}
	b.pools.done(b.writer)
	b.reader, b.writer = nil, nil
	return b.answer.Close()
}

// unzipping reads what came in plain.
type unzipping struct{ *gzippedBody }

var gzipMagic = []byte{0x1f, 0x8b}

func (u unzipping) Read(p []byte) (int, error) {
	b := u.gzippedBody
	if b.reader == nil {
		if head, _ := b.came.Peek(len(gzipMagic)); !bytes.Equal(head, gzipMagic) {
			return b.came.Read(p)
		}
		reader := b.pools.readers.Get().(*gzip.Reader)
		if err := reader.Reset(b.came); err != nil {
			return 0, u.broken(err)
		}
		b.reader = reader
	}
	n, err := b.reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = u.broken(err)
	}
	return n, err
}

// broken notes gzip that cannot be read; a connection that broke off was noted already.
func (u unzipping) broken(err error) error {
	if u.x.reason == "" {
		u.x.reason, u.x.tally.Cut = "upstream sent gzip that cannot be read", true
	}
	return err
}
