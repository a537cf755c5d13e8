package proxy

import "io"

// rewritten reads a body with its URLs rewritten, in constant memory: it looks at a window of the source, and
// hands on what is sure of it. What begins like a URL at the window's end waits for what follows; nothing else waits.
type rewritten struct {
	source  io.Reader
	choose  func(head []byte) scanner // by what the source begins with; nil: that does not tell yet
	scanner scanner                   // the one that was chosen
	window  []byte
	// Of the window, what is before begin was handed on, what is before sure may be, and what is before end was read.
	begin, sure, end int
	drop             int    // bytes at sure that give way to insert
	insert           []byte // what has to be handed on before them
	inserting        []byte
	err              error // the source's
	replaced         int   // how many finds gave way
}

func (r *rewritten) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		switch {
		case len(r.inserting) > 0:
			k := copy(p[n:], r.inserting)
			r.inserting = r.inserting[k:]
			n += k
		case r.begin < r.sure:
			k := copy(p[n:], r.window[r.begin:r.sure])
			r.begin += k
			n += k
		case r.drop > 0:
			r.begin += r.drop
			r.sure, r.drop, r.inserting = r.begin, 0, r.insert
		case r.look():
		case n > 0:
			return n, nil
		case r.err != nil:
			return 0, r.err
		default:
			r.fill()
		}
	}
	return n, nil
}

// look scans what has been read, and says whether anything came of it.
func (r *rewritten) look() bool {
	if r.sure == r.end {
		return false
	}
	if r.scanner == nil {
		r.scanner = r.choose(r.window[r.sure:r.end])
	}
	if r.scanner == nil {
		r.sure = r.end
		return true
	}
	f := r.scanner.scan(r.window[:r.end], r.sure, r.err != nil)
	moved := f.sure > r.sure || f.drop > 0
	r.sure, r.drop, r.insert = f.sure, f.drop, f.insert
	if f.drop > 0 {
		r.replaced++
	}
	return moved
}

// fill reads once. A byte that was handed on stays in the window: scanners look back at it.
func (r *rewritten) fill() {
	if r.begin > 1 && (r.begin == r.end || r.end == len(r.window)) {
		r.end = copy(r.window, r.window[r.begin-1:r.end])
		r.sure -= r.begin - 1
		r.begin = 1
	}
	var n int
	n, r.err = r.source.Read(r.window[r.end:])
	r.end += n
}

// whole reads all of the source if it fits the window, and says whether it did: also when the source broke off.
func (r *rewritten) whole() bool {
	for r.err == nil && r.end < len(r.window) {
		r.fill()
	}
	return r.err != nil
}

// growth is how much longer the source, of which all is in the window, is when it is rewritten, and whether it is at all. Then
// the scanner is at the end.
func (r *rewritten) growth() (bytes int, changed bool) {
	text, from := r.window[:r.end], 0
	for {
		f := r.scanner.scan(text, from, true)
		if f.drop == 0 && from == 0 {
			r.sure = r.end // need not be looked at again
		}
		if f.drop == 0 {
			return bytes, from > 0
		}
		bytes += len(f.insert) - f.drop
		from = f.sure + f.drop
	}
}

// untouched is the scanner of what has no URLs that we know to find.
type untouched struct{}

func (untouched) scan(text []byte, _ int, _ bool) found { return found{sure: len(text)} }
