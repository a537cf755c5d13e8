package proxy

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// repeatable reports whether the request may go again after a connection failed: one that reads, and any of which not a
// byte has left. Of other writes nobody knows whether FreeAgent acted. Not after a timeout was waited out.
func (s *sending) repeatable(req *http.Request, err error) bool {
	var failed *upstreamError
	if s.failures == maxFailures || !errors.As(err, &failed) || failed.timeout || failed.sent && !isRead(req.Method) {
		return false
	}
	s.failures++
	return failed.connected || s.rest(s.pause(nil))
}

// isGatewayTrouble reports whether an answer is one of FreeAgent's gateway, which cannot tell whether what is behind it has acted.
func isGatewayTrouble(status int) bool {
	return status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

// mayHaveActed is the Proxy-Status of a gateway's answer to a write. It has no error: the answer is FreeAgent's.
func mayHaveActed(status int) []string {
	return []string{"freeagent-proxy; received-status=" + strconv.Itoa(status) +
		"; details=" + structuredString("FreeAgent's gateway answered; "+lookFirst)}
}

// recovers waits for FreeAgent to recover from a gateway's answer to a request that reads. The answer is kept: it is the
// client's if the request cannot go again after all.
func (s *sending) recovers(req *http.Request, resp *http.Response) (again bool, err error) {
	if !isGatewayTrouble(resp.StatusCode) || !isRead(req.Method) || s.failures == maxFailures {
		return false, nil
	}
	s.failures++
	body := resp.Body.(*answerBody)
	body.pause() // it may take longer than the upstream timeout until the answer is read
	switch {
	case s.rest(s.pause(resp.Header)):
		s.trouble = resp
		return true, nil
	case s.presence.Err() != nil:
		discardBody(resp)
		return false, errClientGone
	}
	body.progress()
	return false, nil
}

// rest waits before the request goes again. false: it may not wait that long, its client has left, or we are shutting down.
func (s *sending) rest(pause time.Duration) bool {
	if pause > s.patience {
		return false
	}
	defer s.x.traced.step("pause before replay").end()
	defer s.countWait(time.Now())
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.p.draining.Done():
	case <-s.presence.Done():
	}
	return false
}

// firstPause is what FreeAgent has to recover before a request goes again, if it does not say: half as much more at most, so that
// requests that failed together do not come again together, and twice as much the second time.
const firstPause = 250 * time.Millisecond

func (s *sending) pause(answer http.Header) time.Duration {
	if answer.Get("Retry-After") != "" {
		return retryAfter(answer)
	}
	pause := firstPause << (s.failures - 1)
	return pause + rand.N(pause/2)
}

// instead is what the client gets if its request cannot go again: the gateway's answer, if there is one.
func (s *sending) instead(err error) (*http.Response, error) {
	if s.trouble == nil || errors.Is(err, errClientGone) {
		s.forgetTrouble()
		return nil, err
	}
	resp := s.trouble
	s.trouble = nil
	resp.Body.(*answerBody).progress()
	return resp, nil
}

// forgetTrouble ends with the gateway's answer, when there will be another one.
func (s *sending) forgetTrouble() {
	if s.trouble != nil {
		discardBody(s.trouble)
		s.trouble = nil
	}
}
