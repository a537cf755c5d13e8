package simulator_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
)

// A request counts from when the machine had it, though the simulator came to it later: else a busy machine would make it look as if
// more had been sent in a window than were.
func TestArrivalIsWhenTheMachineHadIt(t *testing.T) {
	s := start(t, simulator.Config{Enforcement: simulator.EnforceSliding, UserLimits: []simulator.Window{
		{Requests: 1, Per: simulator.Duration(400 * time.Millisecond)},
	}})
	const delay = 500 * time.Millisecond
	s.arm(simulator.Fault{Kind: simulator.FaultLatency, Delay: simulator.Duration(delay), Match: simulator.Match{Times: 1}})
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request := fmt.Sprintf("GET /v2/company HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n", s.token)
	if _, err := fmt.Fprint(conn, request, request); err != nil { // the second waits for the first one's answer
		t.Fatal(err)
	}
	answers := bufio.NewReader(conn)
	for _, want := range []int{http.StatusOK, http.StatusTooManyRequests} {
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(resp.Body).WriteTo(new(strings.Builder)); err != nil {
			t.Fatal(err)
		}
		equal(t, "status", resp.StatusCode, want)
	}
	came := s.Requests(0)
	if apart := came[1].Time.Sub(came[0].Time); apart >= delay/2 {
		t.Errorf("two requests that came together are %v apart", apart)
	}
}
