package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"regexp"
	"strings"
)

// Secret is text that must not be shown. However it is printed, logged or marshalled, it says
// "[redacted]"; only Reveal gives it. The zero Secret is no secret, and reveals "".
type Secret struct {
	// A pointer, because fmt prints the bare fields of a Secret inside an unexported field
	// without asking its methods: what appears then is an address.
	text *string
}

const redacted = "[redacted]"

func newSecret(text string) Secret { return Secret{&text} }

// Reveal is the text itself.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// String, GoString, Format, MarshalText and LogValue cover fmt, JSON and YAML, zap and slog.
func (s Secret) String() string               { return redacted }
func (s Secret) GoString() string             { return redacted }
func (s Secret) Format(f fmt.State, _ rune)   { _, _ = io.WriteString(f, redacted) }
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }

// variableName is how environment variables are usually called. Anything else may be the secret
// itself, written where a name belongs, and is not repeated in a problem.
var variableName = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)

// secretFromVariable reads a secret from the environment.
func secretFromVariable(name string, getenv func(string) string) (Secret, error) {
	text := strings.TrimSpace(getenv(name))
	switch {
	case text != "":
		return newSecret(text), nil
	case variableName.MatchString(name):
		return Secret{}, fmt.Errorf("the environment variable %s is not set", name)
	default:
		return Secret{}, errors.New("no environment variable has this name; give the name of one that holds the secret, not the secret")
	}
}

// maxSecretFile is far above any secret, and keeps a wrong path from filling the memory.
const maxSecretFile = 64 << 10

// secretFromFile reads a secret from a file. White space around it, such as the newline that
// editors add, is no part of it. readers is who else may read the file, if they need not: of a file that belongs to somebody
// else its group may be how we read it.
func secretFromFile(path string) (secret Secret, readers string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return Secret{}, "", unreadable(err)
	}
	if !info.Mode().IsRegular() {
		return Secret{}, "", errors.New("what this names is not a regular file")
	}
	file, err := os.Open(path)
	if err != nil {
		return Secret{}, "", unreadable(err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxSecretFile+1))
	text := strings.TrimSpace(string(data))
	switch {
	case err != nil:
		return Secret{}, "", unreadable(err)
	case len(data) > maxSecretFile:
		return Secret{}, "", errors.New("the file that this names is too large for a secret")
	case text == "":
		return Secret{}, "", errors.New("the file that this names is empty")
	}
	switch {
	case openToAll(info):
		readers = "every user of this machine"
	case info.Mode().Perm()&0o040 != 0 && isOurs(info):
		readers = "every member of its group"
	}
	return newSecret(text), readers, nil
}

// unreadable leaves the path out: it may be the secret itself, written where a path belongs.
func unreadable(err error) error {
	if cause := (*fs.PathError)(nil); errors.As(err, &cause) {
		err = cause.Err
	}
	return fmt.Errorf("the file that this names cannot be read: %w; a relative path starts at the configuration file's folder", err)
}
