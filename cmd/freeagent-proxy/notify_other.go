//go:build !linux

package main

import "time"

// monotonic is the time on systemd's clock, which there is not here.
func monotonic() time.Duration { return 0 }
