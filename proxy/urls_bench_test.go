package proxy_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// What rewriting a list costs, beside copying it.
func BenchmarkRewrite(b *testing.B) {
	record := `{"url":"https://api.freeagent.com/v2/invoices/%d","contact":"https://api.freeagent.com/v2/contacts/2","project":"https://api.freeagent.com/v2/projects/3","dated_on":"2025-10-03","due_value":"50.0","status":"Open","created_at":"2025-10-03T21:36:19.000Z","comments":"It's a \"quote\" and more text that goes on"},`
	var list strings.Builder
	for i := 0; list.Len() < 5<<20; i++ {
		fmt.Fprintf(&list, record, i)
	}
	plain := strings.ReplaceAll(list.String(), "api.freeagent.com", "api.example.com")
	buffer, window := make([]byte, 32<<10), 32<<10
	for name, text := range map[string]string{"list": list.String(), "none": plain, "2KB": plain[:2048]} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, outward("json").Reader(strings.NewReader(text), window), buffer)
			}
		})
	}
}
