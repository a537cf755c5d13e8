package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

func TestSecretIsNotShown(t *testing.T) {
	const marked = "MARKED-s3cret"
	secret := newSecret(marked)
	if got := secret.Reveal(); got != marked {
		t.Fatalf("Reveal: got %q, want %q", got, marked)
	}
	c := Config{
		Seed:       secret,
		Admin:      AdminConfig{Password: secret},
		Encryption: EncryptionConfig{Keys: []KeyConfig{{Key: secret}}},
		Apps:       map[string]AppConfig{"main": {ClientSecret: secret}},
	}
	hidden := struct{ config Config }{c}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+verb+verb+verb, secret, &secret, c, hidden)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("slog", "secret", secret, "config", c)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("slog", "secret", secret, "config", c)
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&out), zapcore.InfoLevel)
	zap.New(core).Info("zap", zap.Any("secret", secret), zap.Stringer("stringer", secret), zap.Any("config", c), zap.Reflect("reflect", hidden))
	for _, marshal := range []func(any) ([]byte, error){json.Marshal, yaml.Marshal} {
		text, err := marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(text)
	}
	if strings.Contains(out.String(), "MARKED") || strings.Contains(out.String(), fmt.Sprintf("%x", marked)) {
		t.Errorf("the secret is shown: %s", &out)
	}
	if !strings.Contains(out.String(), redacted) {
		t.Errorf("%s is not shown: %s", redacted, &out)
	}
}

func TestSecretZero(t *testing.T) {
	var none Secret
	if got := none.Reveal(); got != "" {
		t.Errorf("got %q, want nothing", got)
	}
	if got := fmt.Sprint(none); got != redacted {
		t.Errorf("got %q, want %q", got, redacted)
	}
}
