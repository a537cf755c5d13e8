package simulator

import (
	"fmt"
	"time"
)

// Duration is a time.Duration that is written "1.5s" in JSON.
type Duration time.Duration

// MarshalText writes "1m0s".
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads "60s", "1m", "250ms".
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return err
	}
	if parsed < 0 {
		return fmt.Errorf("duration %s is negative", text)
	}
	*d = Duration(parsed)
	return nil
}
