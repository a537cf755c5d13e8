package tokens_test

import (
	"context"
	"os"
	"testing"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

// TestMain also is the other process of the tests that need one.
func TestMain(m *testing.M) {
	if role := os.Getenv("TOKENS_TEST_CHILD"); role != "" {
		os.Exit(child(role))
	}
	redis.SetLogger(quiet{})
	goleak.VerifyTestMain(m)
}

// quiet drops what go-redis would print about servers that are gone, as they are to be here.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}
