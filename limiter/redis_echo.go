package limiter

import (
	"context"
	"strconv"
)

// When Redis has forgotten what was counted, those who go on are to put back all of it. But what another one counted last may
// be on its way to us still. So whoever finds that Redis has forgotten says a word on the channel on which counts are told, and
// hears it after all that was told before. (In a Cluster words of two servers may overtake one another.)

// echoPatience is the longest that our own word is waited for: our connection may be broken, and be made anew in that time.
const echoPatience = settle

// catchUp waits until we have heard of all that was counted before Redis forgot it. The error is that Redis is away.
func (s *Redis) catchUp(ctx context.Context, link int) error {
	ctx, cancel := context.WithTimeout(ctx, echoPatience)
	defer cancel()
	if err := s.client.Publish(ctx, channel, s.echo+strconv.Itoa(link)).Err(); err != nil {
		return err
	}
	for {
		select {
		case heard := <-s.echoed:
			if heard == link {
				return nil
			}
		case <-ctx.Done():
			return nil // it will not come any more
		}
	}
}

// heardEcho takes in our own word.
func (s *Redis) heardEcho(text string) {
	link, err := strconv.Atoi(text)
	if err != nil {
		return
	}
	select {
	case <-s.echoed: // of one that nobody waits for
	default:
	}
	s.echoed <- link
}
