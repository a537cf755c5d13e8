package tokens

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"
)

// maxSeeds is how many seeds a grant remembers: nobody goes back to a token 16 imports old.
const maxSeeds = 16

// digest is how a seed is remembered.
func digest(refreshToken string) string {
	sum := sha256.Sum256([]byte(refreshToken))
	return hex.EncodeToString(sum[:])
}

// withSeeds adds digests to a list, without repeating any; the newest are kept.
func withSeeds(seeds []string, more ...string) []string {
	seeds = slices.Clone(seeds)
	for _, d := range more {
		if !slices.Contains(seeds, d) {
			seeds = append(seeds, d)
		}
	}
	return seeds[max(0, len(seeds)-maxSeeds):]
}

// seen reports whether a refresh token from outside is nothing new to the grant.
func (g Grant) seen(seed string) bool {
	return seed == g.RefreshToken || seed == g.PreviousRefresh || slices.Contains(g.Seeds, digest(seed))
}

// same reports whether two grants came of one write. Two processes may choose one version in
// the same millisecond, so the version alone does not tell.
func (g Grant) same(other Grant) bool {
	return g.Version == other.Version && g.RefreshToken == other.RefreshToken && g.AccessToken == other.AccessToken
}

// refreshed is the grant after spending one of its refresh tokens, or a seed, brought got.
func (g Grant) refreshed(got Grant, spent string) Grant {
	next := g
	next.AccessToken, next.ObtainedAt, next.ExpiresAt = got.AccessToken, got.ObtainedAt, got.ExpiresAt
	if got.RefreshToken == g.RefreshToken && got.RefreshExpiresAt.IsZero() {
		return next // the old token stays, with what is known of it
	}
	next.RefreshToken = got.RefreshToken
	next.RefreshObtained, next.RefreshExpiresAt = got.RefreshObtained, got.RefreshExpiresAt
	if got.RefreshToken != g.RefreshToken {
		next.PreviousRefresh = ""
	}
	if got.RefreshToken != spent {
		next.PreviousRefresh = spent
	}
	return next
}

// anchored ties the times of a grant to the monotonic clock, so that setting the wall clock changes nothing from now on.
func (g Grant) anchored(now time.Time) Grant {
	return g.withTimes(func(t time.Time) time.Time { return now.Add(t.Sub(now)) })
}

// onWall puts them on the wall clock as it is now, should that have been set since they were taken.
func (g Grant) onWall(now time.Time) Grant {
	return g.withTimes(func(t time.Time) time.Time { return now.Round(0).Add(t.Sub(now)) })
}

// withTimes changes all times that are known.
func (g Grant) withTimes(change func(time.Time) time.Time) Grant {
	for _, t := range []*time.Time{&g.ObtainedAt, &g.ExpiresAt, &g.RefreshObtained, &g.RefreshExpiresAt} {
		if !t.IsZero() {
			*t = change(*t)
		}
	}
	return g
}

// agingPause is the pause between such refreshes, should none of them bring a new end of life.
const agingPause = 24 * time.Hour

// aging reports whether the refresh token has used two thirds of its life. It is then
// refreshed though nobody uses the account, lest it die unseen.
func (g Grant) aging(now time.Time) bool {
	life := g.RefreshExpiresAt.Sub(g.RefreshObtained)
	return !g.RefreshExpiresAt.IsZero() && now.After(g.RefreshObtained.Add(life-life/3)) &&
		now.Sub(g.ObtainedAt) > min(agingPause, life/30)
}
