// Package browsertest gives tests a real browser, Chromium: what a page does in it, what it complains of, and how it looks.
package browsertest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// patience is how long a test may keep its browser, on a machine that is busy.
const patience = 90 * time.Second

// Start starts Chromium for as long as the test runs. The names evil.test and *.evil.test lead to this machine, as an attacker's DNS
// would have it; no other name leads anywhere.
func Start(t testing.TB) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("no chromium; on Debian: apt-get install chromium")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.NoSandbox, // it may run as root, and sees our own pages only
		chromedp.Flag("headless", "new"),
		chromedp.Flag("host-resolver-rules", "MAP *.evil.test 127.0.0.1, MAP evil.test 127.0.0.1, EXCLUDE 127.0.0.1, EXCLUDE localhost, MAP * ~NOTFOUND"),
		chromedp.Flag("disable-features", "HttpsUpgrades,LocalNetworkAccessChecks,PrivateNetworkAccessRespectPreflightResults"),
	)
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, end := chromedp.NewContext(ctx)
	t.Cleanup(end)
	ctx, stop := context.WithTimeout(ctx, patience)
	t.Cleanup(stop)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	return ctx
}

// Complaints collects what the browser writes to its console from now on: scripts' errors, violations of a content security policy,
// what could not be loaded, and whatever pages log themselves. The function that it returns gives what there is so far.
func Complaints(ctx context.Context) func() []string {
	var mu sync.Mutex
	var all []string
	messages := chromedp.Console(ctx)
	go func() { // ends with ctx
		for m, err := range messages {
			if err != nil {
				return
			}
			mu.Lock()
			all = append(all, m.String()+" "+m.URL)
			mu.Unlock()
		}
	}()
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), all...)
	}
}

// Open navigates to a page and waits until it is loaded.
func Open(t testing.TB, ctx context.Context, page string) {
	t.Helper()
	if err := chromedp.Do(ctx, chromedp.Navigate(page)); err != nil {
		t.Fatalf("%s: %v", page, err)
	}
}

// Evaluate runs a script in the page that is open. What it promises is waited for.
func Evaluate[T any](t testing.TB, ctx context.Context, script string) T {
	t.Helper()
	result, err := chromedp.Run(ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return result
}

// Await waits until a script's expression is true, in whatever page is open by then.
func Await(t testing.TB, ctx context.Context, expression string) {
	t.Helper()
	for deadline := time.Now().Add(patience / 3); ; time.Sleep(20 * time.Millisecond) {
		// Between two pages there is nothing that it could be true of, and that is an error.
		is, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if err == nil && is {
			return
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			t.Fatalf("%s: does not come (%v); the page: %s", expression, err, Evaluate[string](t, ctx, "document.body.innerText"))
		}
	}
}

// Look gives the browser a width in CSS pixels and a colour scheme, light or dark.
func Look(t testing.TB, ctx context.Context, width int64, scheme string) {
	t.Helper()
	err := chromedp.Do(ctx, chromedp.EmulateViewport(width, 900), chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	}))
	if err != nil {
		t.Fatal(err)
	}
}

// Picture writes how the whole page looks into the test's artifacts, which `go test -artifacts` keeps.
func Picture(t testing.TB, ctx context.Context, name string) {
	t.Helper()
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(t.ArtifactDir(), name+".png"), picture, 0o600); err != nil {
		t.Fatal(err)
	}
}
