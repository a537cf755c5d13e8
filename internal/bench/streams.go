package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

// streams sends long bodies through our proxy and prints what memory they took.
func streams(ctx context.Context, s setup) error {
	stage, err := s.start(ctx)
	if err != nil {
		return err
	}
	defer stage.stop()
	fmt.Println("\nMemory of our process, MB")
	fmt.Printf("  %-34s %8s %8s\n", "", "now", "peak")
	row := func(name string) {
		now, peak := stage.ours.memory()
		fmt.Printf("  %-34s %8.0f %8.0f\n", name, now, peak)
	}
	row("at rest")
	base := "http://" + stage.ours.address
	if err := transfer(ctx, http.MethodGet, base+"/v2/stream?bytes=200000000", nil, 0); err != nil {
		return err
	}
	row("after a response of 200 MB")
	const upload = 60 << 20
	if err := transfer(ctx, http.MethodPost, base+"/v2/stream", io.LimitReader(zeros{}, upload), upload); err != nil {
		return err
	}
	row("after a request of 60 MB")
	return nil
}

func transfer(ctx context.Context, method, url string, body io.Reader, length int64) error {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return fmt.Errorf("make a request: %w", err)
	}
	req.ContentLength = length
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("stream: status %d", resp.StatusCode)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
