package admin

import (
	"fmt"
	"time"
)

// moment is a time, for a person: in words, and exactly.
type moment struct {
	Words   string
	Exact   string // UTC, to the second
	Machine string // RFC 3339
}

func exactly(at time.Time, words string) *moment {
	at = at.UTC()
	return &moment{Words: words, Exact: at.Format("2 January 2006, 15:04:05 UTC"), Machine: at.Format(time.RFC3339)}
}

// ago is a time in the past. nil stays nil.
func ago(now time.Time, at *time.Time) *moment {
	if at == nil {
		return nil
	}
	if passed := now.Sub(*at); passed >= time.Second {
		return exactly(*at, about(passed)+" ago")
	}
	return exactly(*at, "just now")
}

// until is a time in the future, or how long it has been over. nil stays nil.
func until(now time.Time, at *time.Time) *moment {
	if at == nil {
		return nil
	}
	switch left := at.Sub(now); {
	case left >= time.Second:
		return exactly(*at, "in "+about(left))
	case left > -time.Second:
		return exactly(*at, "now")
	default:
		return exactly(*at, about(-left)+" ago")
	}
}

// age is how long there has been what was got then. nil stays nil.
func age(now time.Time, at *time.Time) *moment {
	if at == nil {
		return nil
	}
	return exactly(*at, about(max(0, now.Sub(*at)))+" old")
}

// end is when something ends, or ended. nil stays nil.
func end(now time.Time, at *time.Time) *moment {
	m := until(now, at)
	if m == nil {
		return nil
	}
	if at.After(now) || m.Words == "now" {
		m.Words = "ends " + m.Words
	} else {
		m.Words = "ended " + m.Words
	}
	return m
}

// daysLeft is for what lasts long: a refresh token, about twenty years. nil stays nil.
func daysLeft(now time.Time, at *time.Time) *moment {
	if at == nil {
		return nil
	}
	const day = 24 * time.Hour
	switch left := at.Sub(now); {
	case left <= 0:
		return exactly(*at, "ended "+about(-left)+" ago")
	case left < 2*day:
		return exactly(*at, about(left)+" left")
	default:
		return exactly(*at, counted(int(left/day), "day")+" left")
	}
}

// about is a duration in its largest whole unit. One below two is told in the next smaller one, as 90 seconds is.
func about(d time.Duration) string {
	const day, year = 24 * time.Hour, 365 * 24 * time.Hour
	for _, unit := range []struct {
		size time.Duration
		name string
	}{{year, "year"}, {day, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if d >= 2*unit.size {
			return counted(int(d/unit.size), unit.name)
		}
	}
	return counted(int(d/time.Second), "second")
}

// counted is a number of things: 1 second, 1,234 days.
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return number(n) + " " + thing + "s"
}

// number writes thousands apart.
func number(n int) string {
	if n < 0 {
		return "-" + number(-n)
	}
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", number(n/1000), n%1000)
}

// anySuch is a window's length, of which every one counts, wherever it begins: any minute.
func anySuch(per string) string {
	d, err := time.ParseDuration(per)
	if err != nil || d < time.Second || d%time.Second != 0 {
		return "any " + per
	}
	for _, unit := range []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		switch {
		case d == unit.size:
			return "any " + unit.name
		case d%unit.size == 0:
			return "any " + counted(int(d/unit.size), unit.name)
		}
	}
	return "any " + per
}
