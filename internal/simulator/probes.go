package simulator

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// maxStream is the most that /v2/_sim_stream sends: 1 TB.
const maxStream = 1 << 40

// streamed is /v2/_sim_stream?bytes=N: N bytes at full speed.
func (c *call) streamed() (reply, error) {
	n, err := strconv.ParseInt(c.r.URL.Query().Get("bytes"), 10, 64)
	if err != nil || n < 1 || n > maxStream {
		return reply{}, refusal(http.StatusBadRequest, "bytes must lie between 1 and %d", int64(maxStream))
	}
	return reply{status: http.StatusOK, acted: true, stream: n, kind: "application/octet-stream"}, nil
}

// echo is /v2/_sim_echo: what arrived, by any method. The token stays out of
// it, as it goes back to a client that must not know it; GET /_sim/requests has it.
func (c *call) echo() reply {
	names := make([]string, 0, len(c.entry.Header))
	for name := range c.entry.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	header := object{}
	for _, name := range names {
		lines := []any{}
		for _, line := range c.entry.Header[name] {
			if name == "Authorization" {
				scheme, _, _ := strings.Cut(line, " ")
				line = scheme + " ***"
			}
			lines = append(lines, line)
		}
		header = append(header, field{name, lines})
	}
	return reply{status: http.StatusOK, acted: true, value: object{{"echo", object{
		{"method", c.r.Method}, {"target", c.r.RequestURI}, {"proto", c.r.Proto}, {"header", header},
		{"body_bytes", number(int(c.bodyBytes))}, {"body_sha256", c.bodySHA256},
	}}}}
}
